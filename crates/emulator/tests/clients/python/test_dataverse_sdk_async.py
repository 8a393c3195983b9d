"""Microsoft's Python SDK, its asynchronous client: the same service, one connection pool."""

import asyncio

import pytest
from azure.identity.aio import ClientSecretCredential
from PowerPlatform.Dataverse.aio.async_client import AsyncDataverseClient
from PowerPlatform.Dataverse.core.errors import HttpError
from PowerPlatform.Dataverse.models.filters import col
from PowerPlatform.Dataverse.models.upsert import UpsertItem


def run(place, work):
    async def main():
        credential = ClientSecretCredential(
            place.ready["tenant"], place.ready["client_id"], place.ready["client_secret"],
            authority=place.url, disable_instance_discovery=True,
        )
        async with credential, AsyncDataverseClient(place.url, credential) as client:
            return await work(client)

    return asyncio.run(main())


def test_rows_queries_and_batches(place):
    async def work(client):
        one = await client.records.create("account", {"name": "async one"})
        many = await client.records.create("account", [{"name": f"async {n}"} for n in range(2, 6)])
        await client.records.update("account", one, {"fax": "1"})
        await client.records.update("account", many, {"fax": "2"})
        assert (await client.records.retrieve("account", one, select=["fax"]))["fax"] == "1"
        pages = [
            [record["name"] for record in page.records]
            async for page in client.records.list_pages(
                "account", filter="startswith(name,'async')", orderby=["name"], page_size=2
            )
        ]
        assert pages == [["async 2", "async 3"], ["async 4", "async 5"], ["async one"]]
        found = await client.query.builder("account").select("name").where(col("fax") == "2").execute()
        assert len(found.records) == 4
        batch = client.batch.new()
        batch.records.create("account", {"name": "async batched"})
        batch.records.delete("account", one)
        result = await batch.execute()
        assert [response.status_code for response in result.responses] == [204, 204]
        assert await client.records.retrieve("account", one) is None
        with pytest.raises(HttpError) as refused:
            await client.records.create("account", {"name": "x" * 161})
        assert refused.value.status_code == 400

    run(place, work)


def test_tables_and_keys(place):
    async def work(client):
        table = await client.tables.create("wr_Async", {"wr_Code": "string", "wr_Int": "int"})
        assert table.entity_set_name == "wr_asyncs"
        await client.tables.create_alternate_key("wr_async", "wr_AsyncKey", ["wr_code"])
        place.skip(10)
        await client.records.upsert("wr_async", [UpsertItem({"wr_code": "A"}, {"wr_int": 1})])
        await client.records.upsert(
            "wr_async", [UpsertItem({"wr_code": "A"}, {"wr_int": 2}), UpsertItem({"wr_code": "B"}, {"wr_int": 3})]
        )
        rows = await client.records.list("wr_async", select=["wr_int"], orderby=["wr_code"])
        assert [row["wr_int"] for row in rows] == [2, 3]
        await client.tables.update_column("wr_async", "wr_int", {"max_value": 5})
        with pytest.raises(HttpError):
            await client.records.create("wr_async", {"wr_int": 6})
        await client.tables.delete("wr_async")
        assert await client.tables.get("wr_async") is None

    run(place, work)


def test_many_at_once(place):
    async def work(client):
        await client.records.create("contact", {"lastname": "first"})
        names = [f"parallel {n}" for n in range(40)]
        ids = await asyncio.gather(*(client.records.create("contact", {"lastname": name}) for name in names))
        rows = await asyncio.gather(*(client.records.retrieve("contact", i, select=["lastname"]) for i in ids))
        assert [row["lastname"] for row in rows] == names

    run(place, work)
