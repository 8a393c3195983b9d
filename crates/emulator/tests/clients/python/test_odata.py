"""PyPI `python-odata`: a client of any OData service, which builds its classes from `$metadata`."""

import pytest
import requests
from odata import ODataService
from odata.exceptions import ODataError


@pytest.fixture(scope="module")
def service(place):
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {place.ready['token']}"
    return ODataService(f"{place.url}/api/data/v9.2/", session=session, reflect_entities=True)


def test_every_set_becomes_a_class(service, place):
    sets = requests.get(
        f"{place.url}/api/data/v9.2/", headers={"Authorization": f"Bearer {place.ready['token']}"}
    ).json()["value"]
    assert {item["name"] for item in sets} == set(service.entities)


def test_properties_have_their_types_and_keys(service):
    account = service.entities["accounts"]
    assert account.accountid.primary_key
    assert not account.name.primary_key
    kinds = {name: type(getattr(account, name)).__name__ for name in ("name", "revenue", "createdon", "donotphone")}
    assert kinds == {
        "name": "StringProperty", "revenue": "DecimalProperty", "createdon": "DatetimeProperty",
        "donotphone": "BooleanProperty",
    }


def test_rows_are_saved_found_changed_and_deleted(service):
    account = service.entities["accounts"]
    for n in range(3):
        row = account()
        row.name = f"OData {n}"
        row.numberofemployees = n
        service.save(row)
    query = service.query(account).filter(account.name.startswith("OData")).order_by(account.name.desc())
    assert [row.name for row in query.all()] == ["OData 2", "OData 1", "OData 0"]
    first = service.query(account).filter(account.name == "OData 1").first()
    assert first.numberofemployees == 1
    first.numberofemployees = 10
    service.save(first)
    assert service.query(account).get(first.accountid).numberofemployees == 10
    service.delete(first)
    assert service.query(account).filter(account.name == "OData 1").first() is None


def test_functions_are_known(service):
    assert {"WhoAmI", "RetrieveVersion", "RetrieveTotalRecordCount"} <= set(service.functions)


def test_a_refusal_is_an_error(service):
    account = service.entities["accounts"]
    row = account()
    row.name = "x" * 161
    with pytest.raises(ODataError, match="exceeded the maximum allowed length"):
        service.save(row)
