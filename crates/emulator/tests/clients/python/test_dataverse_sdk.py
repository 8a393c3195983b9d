"""Microsoft's Python SDK, `PowerPlatform-Dataverse-Client`: rows, queries, DataFrames."""

import datetime
import warnings

import pandas as pd
import pytest
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError, MetadataError, ValidationError
from PowerPlatform.Dataverse.models.filters import col, raw
from PowerPlatform.Dataverse.models.query_builder import ExpandOption
from PowerPlatform.Dataverse.models.upsert import UpsertItem


@pytest.fixture(scope="module")
def client(place):
    with DataverseClient(place.url, place.credential()) as client:
        yield client


@pytest.fixture(scope="module")
def customers(client):
    """Twelve accounts, three of them in Leeds."""
    rows = [
        {
            "name": f"Customer {n:02}",
            "accountnumber": f"C-{n:02}",
            "address1_city": "Leeds" if n % 4 == 0 else "York",
            "numberofemployees": n * 10,
            "revenue": n * 1000.5,
            "donotphone": n % 2 == 0,
        }
        for n in range(1, 13)
    ]
    return client.records.create("account", rows)


def names(records):
    return [record["name"] for record in records]


class TestRows:
    def test_a_row_is_created_and_read_back(self, client):
        row_id = client.records.create("account", {"name": "O'Brien & Söhne", "numberofemployees": 5})
        record = client.records.retrieve("account", row_id, select=["name", "numberofemployees", "accountid"])
        assert record.data["name"] == "O'Brien & Söhne"
        assert record["numberofemployees"] == 5
        assert record["accountid"] == row_id == record.id
        assert record.etag.startswith('W/"')

    def test_several_rows_come_back_in_their_order(self, client):
        ids = client.records.create("contact", [{"lastname": name} for name in ("a", "b", "c")])
        assert len(set(ids)) == 3
        assert [client.records.retrieve("contact", i)["lastname"] for i in ids] == ["a", "b", "c"]

    def test_labels_of_choices_become_their_numbers(self, client):
        row_id = client.records.create("account", {"name": "Label", "industrycode": "Accounting"})
        assert client.records.retrieve("account", row_id)["industrycode"] == 1

    def test_lookups_are_bound_by_id_and_by_key(self, client, customers):
        row_id = client.records.create(
            "contact", {"lastname": "Bound", "parentcustomerid_account@odata.bind": f"/accounts({customers[0]})"}
        )
        record = client.records.retrieve(
            "contact", row_id, select=["lastname", "_parentcustomerid_value"], include_annotations="*"
        )
        assert record["_parentcustomerid_value"] == customers[0]
        annotation = "_parentcustomerid_value@Microsoft.Dynamics.CRM.lookuplogicalname"
        assert record[annotation] == "account"
        assert record["_parentcustomerid_value@OData.Community.Display.V1.FormattedValue"] == "Customer 01"

    def test_one_and_many_are_updated(self, client):
        ids = client.records.create("account", [{"name": "u1"}, {"name": "u2"}, {"name": "u3"}])
        client.records.update("account", ids[0], {"telephone1": "1"})
        client.records.update("account", ids[:2], {"fax": "same"})
        client.records.update("account", ids, [{"name": "v1"}, {"name": "v2"}, {"name": "v3"}])
        rows = [client.records.retrieve("account", i, select=["name", "fax", "telephone1"]) for i in ids]
        assert [(r["name"], r["fax"], r["telephone1"]) for r in rows] == [
            ("v1", "same", "1"), ("v2", "same", None), ("v3", None, None),
        ]

    def test_an_update_of_a_missing_row_is_not_an_upsert(self, client):
        missing = "11111111-1111-1111-1111-111111111111"
        with pytest.raises(HttpError) as refused:
            client.records.update("account", missing, {"name": "x"})
        assert refused.value.status_code == 404
        assert refused.value.details["service_error_code"] == "0x80040217"
        assert client.records.retrieve("account", missing) is None

    def test_one_row_is_deleted(self, client):
        row_id = client.records.create("account", {"name": "gone"})
        client.records.delete("account", row_id)
        assert client.records.retrieve("account", row_id) is None
        with pytest.raises(HttpError) as refused:
            client.records.delete("account", row_id)
        assert refused.value.status_code == 404

    def test_many_rows_are_deleted_by_a_job_or_one_by_one(self, client, place):
        ids = client.records.create("account", [{"name": "job"}] * 3)
        job = client.records.delete("account", ids)
        place.skip(60)
        assert client.records.retrieve("asyncoperation", job, select=["statuscode"])["statuscode"] == 30
        assert client.records.list("account", filter="name eq 'job'").first() is None
        ids = client.records.create("account", [{"name": "single"}] * 2)
        assert client.records.delete("account", ids, use_bulk_delete=False) is None
        assert client.records.list("account", filter="name eq 'single'").first() is None

    def test_upsert_goes_by_alternate_key(self, client, place):
        client.tables.create("wr_Upserted", {"wr_Code": "string", "wr_Value": "int"})
        client.tables.create_alternate_key("wr_Upserted", "wr_CodeKey", ["wr_code"])
        place.skip(10)
        client.records.upsert("wr_upserted", [UpsertItem({"wr_code": "A"}, {"wr_value": 1})])
        client.records.upsert("wr_upserted", [{"alternate_key": {"wr_code": "A"}, "record": {"wr_value": 2}}])
        client.records.upsert(
            "wr_upserted",
            [UpsertItem({"wr_code": "A"}, {"wr_value": 3}), UpsertItem({"wr_code": "B"}, {"wr_value": 4})],
        )
        rows = client.records.list("wr_upserted", select=["wr_code", "wr_value"], orderby=["wr_code"])
        assert [(row["wr_code"], row["wr_value"]) for row in rows] == [("A", 3), ("B", 4)]

    def test_bad_input_raises_with_the_services_code(self, client):
        cases = [
            ({"name": "x" * 161}, 400, "0x80044331"),
            ({"numberofemployees": 10**12}, 400, None),
            ({"industrycode": 99}, 400, "0x8004431a"),
            ({"nosuchcolumn": 1}, 400, None),
            ({"_primarycontactid_value": "11111111-1111-1111-1111-111111111111"}, 400, None),
        ]
        for data, status, code in cases:
            with pytest.raises(HttpError) as refused:
                client.records.create("account", data)
            assert refused.value.status_code == status, data
            if code:
                assert refused.value.details["service_error_code"].lower() == code, data
            assert not refused.value.is_transient
            assert refused.value.details["service_request_id"]

    def test_a_failing_bulk_leaves_nothing(self, client):
        with pytest.raises(HttpError):
            client.records.create("account", [{"name": "half"}, {"name": "y" * 161}])
        assert client.records.list("account", filter="name eq 'half'").first() is None

    def test_an_unknown_table_is_a_metadata_error(self, client):
        with pytest.raises(MetadataError):
            client.records.create("nosuchtable", {"name": "x"})


class TestQueries:
    def test_list_filters_orders_and_limits(self, client, customers):
        found = client.records.list(
            "account",
            filter=(col("address1_city") == "Leeds") & col("accountnumber").startswith("C-"),
            select=["name"],
            orderby=["name desc"],
            top=2,
        )
        assert names(found) == ["Customer 12", "Customer 08"]

    @pytest.mark.parametrize(
        ("expression", "expected"),
        [
            (col("numberofemployees").between(30, 50), [3, 4, 5]),
            (~col("numberofemployees").between(30, 120), [1, 2]),
            (col("numberofemployees").not_between(30, 110), [1, 2, 12]),
            (col("accountnumber").in_(["C-01", "C-07", "x"]), [1, 7]),
            (col("accountnumber").not_in([f"C-{n:02}" for n in range(1, 12)]), [12]),
            ((col("revenue") > 11000) | (col("revenue") <= 1000.5), [1, 11, 12]),
            (col("name").contains("omer 1") & (col("donotphone") == True), [10, 12]),  # noqa: E712
            (col("name").endswith("9"), [9]),
            (col("name").like("Customer 1%"), [10, 11, 12]),
            (col("name").not_like("%1%") & (col("numberofemployees") >= 80), [8, 9]),
            (col("telephone1").is_null() & (col("numberofemployees") < 20), [1]),
            (col("accountnumber").is_not_null() & (col("name") == "CUSTOMER 05"), [5]),
            (raw("Microsoft.Dynamics.CRM.Today(PropertyName='createdon')") & (col("numberofemployees") != 10),
             list(range(2, 13))),
            (col("createdon") >= datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), list(range(1, 13))),
        ],
    )
    def test_filter_expressions(self, client, customers, expression, expected):
        expression = expression & col("accountnumber").startswith("C-") if expected else expression
        found = client.query.builder("account").select("name").where(expression).order_by("name").execute()
        assert names(found) == [f"Customer {n:02}" for n in expected]

    def test_pages_follow_next_links(self, client, customers):
        pages = list(
            client.records.list_pages("account", filter="startswith(accountnumber,'C-')", orderby=["name"], page_size=5)
        )
        assert [len(page.records) for page in pages] == [5, 5, 2]
        assert names(record for page in pages for record in page.records) == [f"Customer {n:02}" for n in range(1, 13)]

    def test_the_builder_pages_counts_and_formats(self, client, customers):
        builder = (
            client.query.builder("account").select("name", "donotphone", "revenue").where(col("accountnumber") == "C-03")
            .include_formatted_values().count()
        )
        record = builder.execute().first()
        assert record["donotphone@OData.Community.Display.V1.FormattedValue"] == "Allow"
        assert record["revenue"] == 3001.5
        pages = list(
            client.query.builder("account").select("name").where(col("accountnumber").startswith("C-"))
            .page_size(7).execute_pages()
        )
        assert [len(page.records) for page in pages] == [7, 5]

    def test_expand_reaches_related_rows(self, client, customers):
        client.records.create(
            "contact", {"lastname": "Expanded", "parentcustomerid_account@odata.bind": f"/accounts({customers[1]})"}
        )
        option = ExpandOption("contact_customer_accounts").select("lastname").filter("lastname eq 'Expanded'").top(5)
        record = (
            client.query.builder("account").select("name").where(col("accountnumber") == "C-02").expand(option)
            .execute().first()
        )
        assert [contact["lastname"] for contact in record["contact_customer_accounts"]] == ["Expanded"]
        contact = client.records.list(
            "contact", filter="lastname eq 'Expanded'", expand=["parentcustomerid_account($select=name)"]
        ).first()
        assert contact["parentcustomerid_account"]["name"] == "Customer 02"

    def test_helpers_learn_names_from_metadata(self, client, customers):
        columns = client.query.sql_columns("account")
        assert "name" in [column["name"] for column in columns]
        assert "accountnumber" in client.query.odata_select("account")
        expands = client.query.odata_expands("contact")
        assert any(item["target_table"] == "account" for item in expands)
        navigation = client.query.odata_expand("contact", "account")
        bind = client.query.odata_bind("contact", "account", customers[0])
        assert list(bind.values()) == [f"/accounts({customers[0]})"]
        assert f"{navigation}@odata.bind" in bind

    def test_the_old_get_still_works(self, client, customers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pages = list(client.records.get("account", filter="startswith(accountnumber,'C-')", page_size=6, count=True))
        assert [len(page) for page in pages] == [6, 6]

    def test_a_bad_filter_is_refused(self, client):
        for bad in ("name eq", "nosuch eq 1", "tolower(name) eq 'a'", "name eq 'open"):
            with pytest.raises(HttpError) as refused:
                client.records.list("account", filter=bad)
            assert refused.value.status_code == 400, bad


class TestDataFrames:
    def test_rows_go_in_and_out_of_frames(self, client):
        frame = pd.DataFrame({"name": ["f1", "f2", "f3"], "numberofemployees": [1, 2, None]})
        ids = client.dataframe.create("account", frame)
        assert len(set(ids)) == 3
        back = client.dataframe.get("account", select=["name", "numberofemployees"], filter="startswith(name,'f')",
                                    orderby=["name"])
        assert list(back["name"]) == ["f1", "f2", "f3"]
        assert back["numberofemployees"].tolist()[:2] == [1, 2]
        changes = pd.DataFrame({"accountid": ids, "fax": ["a", "b", None]})
        client.dataframe.update("account", changes, id_column="accountid")
        changes = pd.DataFrame({"accountid": ids[:1], "fax": [None]})
        client.dataframe.update("account", changes, id_column="accountid", clear_nulls=True)
        back = client.query.builder("account").select("name", "fax").where(col("name").startswith("f")).to_dataframe()
        assert dict(zip(back["name"], back["fax"].fillna("-"))) == {"f1": "-", "f2": "b", "f3": "-"}
        client.dataframe.delete("account", ids, use_bulk_delete=False)
        assert client.dataframe.get("account", filter="startswith(name,'f')").empty


class TestLimitsAsTheClientSeesThem:
    def test_a_429_is_transient_and_says_when_to_come_back(self, client, place):
        place.control("faults", [{"match": {"op": "Create", "times": 1}, "do": {"limit": "requests", "retry_after": 17}}])
        with pytest.raises(HttpError) as refused:
            client.records.create("account", {"name": "limited"})
        error = refused.value
        assert (error.status_code, error.is_transient, error.details["retry_after"]) == (429, True, 17)
        assert error.details["service_error_code"].lower() == "0x80072322"
        client.records.create("account", {"name": "limited"})

    def test_a_cut_connection_is_tried_again(self, client, place):
        place.control("faults", [{"match": {"op": "Retrieve", "times": 1}, "do": "drop_before_commit"}])
        row_id = client.records.create("account", {"name": "cut"})
        assert client.records.retrieve("account", row_id)["name"] == "cut"

    def test_a_refused_token_is_an_authentication_failure(self, client, place):
        place.control("faults", [{"match": {"op": "Create", "times": 1}, "do": {"status": 401, "empty": True}}])
        with pytest.raises(HttpError) as refused:
            client.records.create("account", {"name": "401"})
        assert (refused.value.status_code, refused.value.is_transient) == (401, False)

    def test_sql_that_is_no_text_never_leaves(self, client, place):
        before = place.control("stats")["requests"]
        with pytest.raises(ValidationError):
            client.query.sql("  ")
        assert place.control("stats")["requests"] == before
