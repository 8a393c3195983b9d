"""Microsoft's Python SDK: tables, columns, relationships, alternate keys, batches, files, SQL, FetchXML."""

import enum
import hashlib

import pandas as pd
import pytest
import requests
from PowerPlatform.Dataverse.client import DataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError, MetadataError, ValidationError
from PowerPlatform.Dataverse.models.labels import Label, LocalizedLabel
from PowerPlatform.Dataverse.models.relationship import (
    CascadeConfiguration,
    LookupAttributeMetadata,
    ManyToManyRelationshipMetadata,
    OneToManyRelationshipMetadata,
)
from PowerPlatform.Dataverse.models.upsert import UpsertItem


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2

    __labels__ = {1033: {"SMALL": "Small one", "LARGE": "Large one"}}


COLUMNS = {
    "wr_Text": "string", "wr_Memo": "memo", "wr_Int": "int", "wr_Decimal": "decimal", "wr_Float": "float",
    "wr_When": "datetime", "wr_Flag": "bool", "wr_Size": Size, "wr_File": "file",
    "wr_Rating": {"type": "int", "min_value": 1, "max_value": 5, "display_name": "Rating", "required": "Recommended"},
}


@pytest.fixture(scope="module")
def client(place):
    with DataverseClient(place.url, place.credential()) as client:
        yield client


@pytest.fixture(scope="module")
def thing(client):
    return client.tables.create("wr_Thing", COLUMNS, primary_column="wr_Title", display_name="Thing",
                                solution="agency_integration")


def label(text):
    return Label([LocalizedLabel(text, 1033)])


class TestTables:
    def test_a_table_of_every_type_is_created(self, client, thing):
        assert (thing.schema_name, thing.logical_name, thing.entity_set_name) == ("wr_Thing", "wr_thing", "wr_things")
        assert set(thing.columns_created) == set(COLUMNS)
        found = client.tables.get("wr_Thing")
        assert found.metadata_id == thing.metadata_id
        assert (found.primary_id_attribute, found.primary_name_attribute) == ("wr_thingid", "wr_title")
        listed = client.tables.list(filter="LogicalName eq 'wr_thing'", select=["LogicalName", "EntitySetName"])
        assert listed[0]["EntitySetName"] == "wr_things"
        assert client.tables.get("wr_nothing") is None

    def test_every_type_holds_its_values(self, client, thing):
        row = {
            "wr_title": "one", "wr_text": "t", "wr_memo": "m\nn", "wr_int": 5, "wr_decimal": 1.25, "wr_float": 2.5,
            "wr_when": "2026-03-01T08:00:00Z", "wr_flag": True, "wr_size": "Large one", "wr_rating": 5,
        }
        row_id = client.records.create("wr_Thing", row)
        back = client.records.retrieve("wr_thing", row_id)
        expected = {**row, "wr_size": 2}
        assert {name: back[name] for name in row} == expected
        with pytest.raises(HttpError) as refused:
            client.records.update("wr_thing", row_id, {"wr_rating": 6})
        assert refused.value.details["service_error_code"].lower() == "0x8004432f"

    def test_a_name_cannot_be_taken_twice(self, client, thing):
        with pytest.raises(MetadataError):
            client.tables.create("wr_Thing", {"wr_A": "string"})
        with pytest.raises(HttpError):
            client.tables.create("noprefix", {"wr_A": "string"})
        with pytest.raises((ValueError, ValidationError)):
            client.tables.create("wr_Other", {"wr_A": "no such type"})

    def test_columns_come_change_and_go(self, client, thing):
        assert client.tables.add_columns("wr_Thing", {"wr_Extra": "string", "wr_More": "int"}) == ["wr_Extra", "wr_More"]
        column = client.tables.get_column("wr_thing", "wr_extra")
        assert (column["AttributeType"], column["SchemaName"]) == ("String", "wr_Extra")
        assert client.tables.update_column("wr_thing", "wr_extra", {"max_length": 7}) == "wr_extra"
        typed = client.tables.get_column("wr_thing", "wr_extra", typed=True)
        assert typed["MaxLength"] == 7
        client.tables.update_columns("wr_thing", {"wr_more": {"min_value": 2, "max_value": 4, "required": "Recommended"}})
        typed = client.tables.get_column("wr_thing", "wr_more", typed=True)
        assert (typed["MinValue"], typed["MaxValue"], typed["RequiredLevel"]["Value"]) == (2, 4, "Recommended")
        with pytest.raises(HttpError):
            client.records.create("wr_thing", {"wr_extra": "12345678"})
        names = [c["LogicalName"] for c in client.tables.list_columns("wr_thing", select=["LogicalName"])]
        assert {"wr_extra", "wr_more", "createdon"} <= set(names)
        strings = client.tables.list_columns("wr_thing", filter="AttributeType eq 'String'", select=["LogicalName"])
        assert {c["LogicalName"] for c in strings} >= {"wr_title", "wr_text", "wr_extra", "wr_file_name"}
        assert client.tables.remove_columns("wr_thing", ["wr_Extra", "wr_More"]) == ["wr_Extra", "wr_More"]
        assert client.tables.get_column("wr_thing", "wr_extra") is None

    def test_alternate_keys_become_active(self, client, thing, place):
        client.tables.create_alternate_key("wr_thing", "wr_TextKey", ["wr_text"], display_name="By text")
        assert client.tables.get_alternate_keys("wr_thing")[0].status in ("Pending", "InProgress")
        place.skip(10)
        found = client.tables.get_alternate_keys("wr_thing")
        assert [(k.schema_name, k.key_attributes, k.status) for k in found] == [("wr_TextKey", ["wr_text"], "Active")]
        client.records.upsert("wr_thing", [UpsertItem({"wr_text": "k"}, {"wr_int": 1})])
        # The id that creation returns is the table's: the client takes the first of the header's two.
        client.tables.delete_alternate_key("wr_thing", found[0].metadata_id)
        assert client.tables.get_alternate_keys("wr_thing") == []
        with pytest.raises(HttpError):
            client.records.upsert("wr_thing", [UpsertItem({"wr_text": "k"}, {"wr_int": 1})])

    def test_relationships_of_both_kinds(self, client, thing):
        client.tables.create("wr_Part", {"wr_Weight": "float"})
        lookup = LookupAttributeMetadata("wr_ThingId", label("Thing"))
        one = OneToManyRelationshipMetadata(
            "wr_thing_wr_part", "wr_thing", "wr_part", "wr_thingid",
            cascade_configuration=CascadeConfiguration(delete="Restrict"),
        )
        made = client.tables.create_one_to_many_relationship(lookup, one)
        assert (made.lookup_schema_name, made.referencing_entity) == ("wr_ThingId", "wr_part")
        field = client.tables.create_lookup_field("wr_part", "wr_MakerId", "account", display_name="Maker", required=True)
        assert field.referenced_entity == "account"
        many = client.tables.create_many_to_many_relationship(
            ManyToManyRelationshipMetadata("wr_thing_account", "wr_thing", "account", "wr_thing_account")
        )
        assert client.tables.get_relationship("wr_thing_account").relationship_id == many.relationship_id
        names = {r["SchemaName"] for r in client.tables.list_table_relationships("wr_thing", select=["SchemaName"])}
        assert {"wr_thing_wr_part", "wr_thing_account"} <= names
        listed = client.tables.list_relationships(
            filter="RelationshipType eq Microsoft.Dynamics.CRM.RelationshipType'ManyToManyRelationship'",
            select=["SchemaName"],
        )
        assert "wr_thing_account" in {r["SchemaName"] for r in listed}

        parent = client.records.create("wr_thing", {"wr_title": "parent"})
        bind = client.query.odata_bind("wr_part", "wr_thing", parent)
        assert list(bind) == ["wr_ThingId@odata.bind"]
        client.records.create("wr_part", {"wr_name": "part", **bind})
        with pytest.raises(HttpError) as refused:
            client.records.delete("wr_thing", parent)
        assert refused.value.status_code == 405

        client.tables.delete_relationship(many.relationship_id)
        assert client.tables.get_relationship("wr_thing_account") is None
        client.tables.delete("wr_part")
        assert client.tables.get("wr_part") is None
        with pytest.raises(MetadataError):
            client.tables.delete("wr_part")


class TestBatches:
    def test_one_batch_holds_operations_of_every_kind(self, client, thing):
        batch = client.batch.new()
        batch.records.create("account", {"name": "batch one"})
        batch.records.create("account", [{"name": "batch two"}, {"name": "batch three"}])
        with batch.changeset() as change_set:
            account = change_set.records.create("account", {"name": "batch parent"})
            change_set.records.create("contact", {"lastname": "batch", "parentcustomerid_account@odata.bind": account})
            change_set.records.update("account", account, {"fax": "5"})
        batch.tables.get("wr_Thing")
        batch.tables.list(filter="LogicalName eq 'wr_thing'", select=["LogicalName"])
        batch.records.list("account", filter="startswith(name,'batch')", select=["name"], orderby=["name"])
        result = batch.execute()
        assert not result.has_errors, [(r.status_code, r.error_message) for r in result.failed]
        assert [row["name"] for row in result.responses[-1].data["value"]] == [
            "batch one", "batch parent", "batch three", "batch two",
        ]
        parent = client.records.list("account", filter="name eq 'batch parent'").first()
        assert parent["fax"] == "5"
        contact = client.records.list("contact", filter="lastname eq 'batch'").first()
        assert contact["_parentcustomerid_value"] == parent["accountid"]

    def test_rows_are_read_changed_and_deleted_in_batches(self, client):
        ids = client.records.create("account", [{"name": "b1"}, {"name": "b2"}, {"name": "b3"}])
        batch = client.batch.new()
        batch.records.update("account", ids[0], {"fax": "1"})
        batch.records.update("account", ids[1:], {"fax": "2"})
        batch.records.retrieve("account", ids[2], select=["fax"])
        batch.records.delete("account", ids[0])
        batch.records.delete("account", ids[1:], use_bulk_delete=False)
        result = batch.execute()
        assert [r.status_code for r in result.responses] == [204, 204, 200, 204, 204, 204]
        assert result.responses[2].data["fax"] == "2"

    def test_a_failure_ends_a_batch_or_not(self, client):
        batch = client.batch.new()
        batch.records.create("account", {"name": "before"})
        batch.records.create("account", {"name": "x" * 161})
        batch.records.create("account", {"name": "after"})
        result = batch.execute()
        assert [r.status_code for r in result.responses] == [204, 400]
        assert result.failed[0].error_code.lower() == "0x80044331"
        batch = client.batch.new()
        batch.records.create("account", {"name": "x" * 161})
        batch.records.create("account", {"name": "after all"})
        result = batch.execute(continue_on_error=True)
        assert [r.status_code for r in result.responses] == [400, 204]
        names = [row["name"] for row in client.records.list("account", filter="name ne null", select=["name"])]
        assert "before" in names and "after all" in names and "after" not in names

    def test_a_change_set_is_all_or_nothing(self, client):
        batch = client.batch.new()
        with batch.changeset() as change_set:
            change_set.records.create("account", {"name": "atomic"})
            change_set.records.create("account", {"nosuchcolumn": 1})
        assert batch.execute(continue_on_error=True).has_errors
        assert client.records.list("account", filter="name eq 'atomic'").first() is None

    def test_frames_and_upserts_go_in_batches(self, client, thing, place):
        client.tables.create_alternate_key("wr_thing", "wr_IntKey", ["wr_int"])
        place.skip(10)
        batch = client.batch.new()
        batch.dataframe.create("wr_thing", pd.DataFrame({"wr_title": ["d1", "d2"], "wr_int": [901, 902]}))
        batch.records.upsert("wr_thing", [UpsertItem({"wr_int": 903}, {"wr_title": "d3"})])
        assert not batch.execute().has_errors
        rows = client.records.list("wr_thing", filter="wr_int ge 901", select=["wr_title"], orderby=["wr_int"])
        assert [row["wr_title"] for row in rows] == ["d1", "d2", "d3"]
        ids = pd.Series([row["wr_thingid"] for row in rows])
        batch = client.batch.new()
        batch.dataframe.update("wr_thing", pd.DataFrame({"wr_thingid": ids, "wr_memo": ["x", "y", "z"]}), "wr_thingid")
        batch.dataframe.delete("wr_thing", ids[:1], use_bulk_delete=False)
        assert not batch.execute().has_errors
        rows = client.records.list("wr_thing", filter="wr_int ge 901", select=["wr_memo"], orderby=["wr_int"])
        assert [row["wr_memo"] for row in rows] == ["y", "z"]

    def test_tables_are_made_in_batches(self, client):
        batch = client.batch.new()
        batch.tables.create("wr_Batched", {"wr_A": "string"})
        assert not batch.execute().has_errors
        batch = client.batch.new()
        batch.tables.add_columns("wr_Batched", {"wr_B": "int"})
        batch.tables.create_lookup_field("wr_batched", "wr_OwnerAccountId", "account")
        result = batch.execute()
        assert not result.has_errors, [(r.status_code, r.error_message) for r in result.failed]
        batch = client.batch.new()
        batch.tables.remove_columns("wr_Batched", "wr_B")
        batch.tables.get_relationship("account_wr_batched_wr_OwnerAccountId")
        batch.tables.delete("wr_Batched")
        assert not batch.execute().has_errors
        assert client.tables.get("wr_Batched") is None


@pytest.fixture
def titled(client, thing):
    return client.records.create("wr_thing", {"wr_title": "with a file"})


class TestFiles:
    @pytest.mark.parametrize("mode", ["small", "chunk", None])
    def test_a_file_comes_back_as_it_went(self, client, place, titled, tmp_path, mode):
        content = hashlib.sha256(b"seed").digest() * 200_000
        # The header of a small file is ASCII only.
        path = tmp_path / ("contract ü.pdf" if mode == "chunk" else "contract.pdf")
        path.write_bytes(content)
        client.files.upload("wr_thing", titled, "wr_File", str(path), mode=mode, mime_type="application/pdf")
        headers = {"Authorization": f"Bearer {place.ready['token']}"}
        url = f"{place.url}/api/data/v9.2/wr_things({titled})/wr_file/$value"
        answer = requests.get(url, headers=headers)
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(content).digest()

    def test_a_file_needs_its_row(self, client, titled, tmp_path):
        path = tmp_path / "small.txt"
        path.write_text("hello")
        with pytest.raises(HttpError):
            client.files.upload("wr_thing", "11111111-1111-1111-1111-111111111111", "wr_File", str(path))
        with pytest.raises(FileNotFoundError):
            client.files.upload("wr_thing", titled, "wr_File", str(tmp_path / "missing.txt"))


@pytest.fixture(scope="module")
def sold(client):
    """Accounts with contacts, for queries of other languages."""
    accounts = client.records.create(
        "account", [{"name": f"Sold {n}", "numberofemployees": n, "address1_city": "Bath"} for n in range(1, 8)]
    )
    contacts = [
        {"lastname": f"Buyer {n}", "parentcustomerid_account@odata.bind": f"/accounts({accounts[n % 2]})"}
        for n in range(4)
    ]
    client.records.create("contact", contacts)
    return accounts


class TestSql:
    def test_select_where_order(self, client, sold):
        rows = client.query.sql(
            "SELECT name, numberofemployees FROM account WHERE address1_city = 'Bath' AND numberofemployees > 5 ORDER BY name DESC"
        )
        assert [(row["name"], row["numberofemployees"]) for row in rows] == [("Sold 7", 7), ("Sold 6", 6)]

    def test_top_and_joins(self, client, sold):
        rows = client.query.sql(
            "SELECT TOP 3 c.lastname, a.name FROM contact c INNER JOIN account a ON c.parentcustomerid = a.accountid "
            "WHERE a.name = 'Sold 1' ORDER BY c.lastname"
        )
        assert [row["lastname"] for row in rows] == ["Buyer 0", "Buyer 2"]

    def test_aggregates(self, client, sold):
        rows = client.query.sql("SELECT COUNT(accountid) AS n, MAX(numberofemployees) AS m FROM account WHERE address1_city = 'Bath'")
        assert (rows[0]["n"], rows[0]["m"]) == (7, 7)

    def test_frames(self, client, sold):
        frame = client.dataframe.sql("SELECT name FROM account WHERE name LIKE 'Sold %'")
        assert sorted(frame["name"]) == [f"Sold {n}" for n in range(1, 8)]

    def test_bad_sql_is_refused(self, client):
        with pytest.raises(ValidationError):
            client.query.sql("SELECT * FROM account")
        for bad in ("SELECT nosuch FROM account", "SELECT name FROM account WHERE name = numberofemployees + 1"):
            with pytest.raises(HttpError) as refused:
                client.query.sql(bad)
            assert refused.value.status_code == 400, bad

    def test_in_a_batch(self, client, sold):
        batch = client.batch.new()
        batch.query.sql("SELECT name FROM account WHERE name = 'Sold 3'")
        result = batch.execute()
        assert [row["name"] for row in result.responses[0].data["value"]] == ["Sold 3"]


class TestFetchXml:
    def test_filters_and_pages(self, client, sold):
        xml = """<fetch count="3"><entity name="account"><attribute name="name"/><order attribute="name"/>
            <filter><condition attribute="address1_city" operator="eq" value="Bath"/></filter></entity></fetch>"""
        pages = list(client.query.fetchxml(xml).execute_pages())
        assert [len(page.records) for page in pages] == [3, 3, 1]
        assert [record["name"] for page in pages for record in page.records] == [f"Sold {n}" for n in range(1, 8)]

    def test_links_and_aggregates(self, client, sold):
        xml = """<fetch><entity name="contact"><attribute name="lastname"/><order attribute="lastname"/>
            <link-entity name="account" from="accountid" to="parentcustomerid" alias="a"><attribute name="name"/>
            <filter><condition attribute="name" operator="eq" value="Sold 2"/></filter></link-entity></entity></fetch>"""
        rows = client.query.fetchxml(xml).execute().records
        assert [(row["lastname"], row["a.name"]) for row in rows] == [("Buyer 1", "Sold 2"), ("Buyer 3", "Sold 2")]
        xml = """<fetch aggregate="true"><entity name="account"><attribute name="accountid" aggregate="count" alias="n"/>
            <attribute name="numberofemployees" aggregate="sum" alias="s"/>
            <filter><condition attribute="address1_city" operator="eq" value="Bath"/></filter></entity></fetch>"""
        row = client.query.fetchxml(xml).execute().first()
        assert (row["n"], row["s"]) == (7, 28)

    def test_bad_fetchxml_is_refused(self, client):
        for bad in (
            '<fetch><entity name="account"><attribute name="nosuch"/></entity></fetch>',
            '<fetch><entity name="account"><filter><condition attribute="name" operator="nosuch"/></filter></entity></fetch>',
        ):
            with pytest.raises(HttpError) as refused:
                client.query.fetchxml(bad).execute()
            assert refused.value.status_code == 400, bad
