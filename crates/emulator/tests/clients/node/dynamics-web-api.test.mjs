// npm `dynamics-web-api`: every function it offers, or the refusal that says what is not there.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { DynamicsWebApi } from "dynamics-web-api";
import { control, organization, skip, token, url } from "./service.mjs";

const api = new DynamicsWebApi({
  serverUrl: url,
  onTokenRefresh: () => token(),
  dataApi: { version: "9.2" },
});

const label = (text) => ({
  "@odata.type": "Microsoft.Dynamics.CRM.Label",
  LocalizedLabels: [{ "@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", Label: text, LanguageCode: 1033 }],
});

const string = (SchemaName, more = {}) => ({
  "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata",
  SchemaName, DisplayName: label(SchemaName), MaxLength: 100, FormatName: { Value: "Text" }, ...more,
});

/** Asserts that a call is refused with this status, and returns the client's error. */
async function refused(promise, status) {
  try {
    await promise;
  } catch (error) {
    assert.equal(error.status, status, error.message);
    return error;
  }
  assert.fail("it was not refused");
}

before(() => control("reset", {}));

describe("rows", () => {
  test("create, retrieve, update, delete", async () => {
    const id = await api.create({ collection: "accounts", data: { name: "one", numberofemployees: 3 } });
    assert.match(id, /^[0-9a-f-]{36}$/);
    const row = await api.retrieve({ collection: "accounts", key: id, select: ["name", "numberofemployees"] });
    assert.deepEqual([row.name, row.numberofemployees, row.accountid], ["one", 3, id]);
    assert.equal(await api.update({ collection: "accounts", key: id, data: { name: "two" } }), true);
    await api.updateSingleProperty({ collection: "accounts", key: id, fieldValuePair: { fax: "5" } });
    const changed = await api.retrieve({ collection: "accounts", key: id, select: ["name", "fax"] });
    assert.deepEqual([changed.name, changed.fax], ["two", "5"]);
    await api.deleteRecord({ collection: "accounts", key: id, property: "fax" });
    assert.equal((await api.retrieve({ collection: "accounts", key: id, select: ["fax"] })).fax, null);
    await api.deleteRecord({ collection: "accounts", key: id });
    const error = await refused(api.retrieve({ collection: "accounts", key: id }), 404);
    assert.equal(error.code.toLowerCase(), "0x80040217");
  });

  test("representation, selection and annotations", async () => {
    const row = await api.create({
      collection: "accounts", data: { name: "shown", industrycode: 1 }, returnRepresentation: true,
      select: ["name", "industrycode"], includeAnnotations: "*",
    });
    assert.equal(row.industrycode_Formatted ?? row["industrycode@OData.Community.Display.V1.FormattedValue"], "Accounting");
    const updated = await api.update({
      collection: "accounts", key: row.accountid, data: { name: "again" }, returnRepresentation: true, select: ["name"],
    });
    assert.equal(updated.name, "again");
  });

  test("preconditions", async () => {
    const id = await api.create({ collection: "accounts", data: { name: "guarded" } });
    const row = await api.retrieve({ collection: "accounts", key: id, select: ["name"] });
    const etag = row["@odata.etag"];
    // 304 has no body.
    assert.equal(await api.retrieve({ collection: "accounts", key: id, select: ["name"], ifnonematch: etag }), undefined);
    await api.update({ collection: "accounts", key: id, data: { name: "newer" }, ifmatch: etag });
    // The client answers a failed precondition with false.
    assert.equal(await api.update({ collection: "accounts", key: id, data: { name: "lost" }, ifmatch: etag }), false);
    assert.equal(await api.deleteRecord({ collection: "accounts", key: id, ifmatch: etag }), false);
    assert.equal((await api.retrieve({ collection: "accounts", key: id, select: ["name"] })).name, "newer");
  });

  test("upsert, and its two refusals", async () => {
    const key = "11111111-1111-4111-8111-111111111111";
    assert.equal(await api.upsert({ collection: "accounts", key, data: { name: "up" } }), key);
    const row = await api.upsert({
      collection: "accounts", key, data: { name: "upper" }, returnRepresentation: true, select: ["name"],
    });
    assert.equal(row.name, "upper");
    assert.equal(await api.upsert({ collection: "accounts", key, data: { name: "no" }, ifnonematch: "*" }), null);
    const missing = "22222222-2222-4222-8222-222222222222";
    assert.equal(await api.upsert({ collection: "accounts", key: missing, data: { name: "no" }, ifmatch: "*" }), null);
  });

  test("impersonation and duplicate detection", async () => {
    const who = await api.callFunction("WhoAmI");
    const id = await api.create({ collection: "accounts", data: { name: "as" }, impersonate: who.UserId });
    const row = await api.retrieve({ collection: "accounts", key: id, select: ["_createdonbehalfby_value"] });
    assert.equal(row._createdonbehalfby_value, who.UserId);
    await refused(
      api.create({ collection: "accounts", data: { name: "as" }, impersonateAAD: "33333333-3333-4333-8333-333333333333" }),
      403,
    );
    await api.create({ collection: "accounts", data: { name: "as" }, duplicateDetection: true });
  });

  test("bad input is refused with the service's code", async () => {
    const long = await refused(api.create({ collection: "accounts", data: { name: "x".repeat(161) } }), 400);
    assert.equal(long.code.toLowerCase(), "0x80044331");
    await refused(api.create({ collection: "accounts", data: { nosuch: 1 } }), 400);
    await refused(api.create({ collection: "nosuches", data: { name: "x" } }), 404);
    await assert.rejects(async () => api.retrieve({ collection: "accounts", key: "not a guid" }));
  });
});

describe("queries", () => {
  before(async () => {
    const Targets = Array.from({ length: 12 }, (_, n) => ({
      "@odata.type": "Microsoft.Dynamics.CRM.contact", lastname: `Reader ${String(n).padStart(2, "0")}`,
      numberofchildren: n,
    }));
    const made = await api.callAction({
      collection: "contacts", actionName: "Microsoft.Dynamics.CRM.CreateMultiple", action: { Targets },
    });
    assert.equal(made.Ids.length, 12);
  });

  test("filter, order, count, pages", async () => {
    const first = await api.retrieveMultiple({
      collection: "contacts", select: ["lastname"], filter: "startswith(lastname,'Reader')", orderBy: ["lastname desc"],
      maxPageSize: 5, count: true,
    });
    assert.equal(first.oDataCount ?? first["@odata.count"], 12);
    assert.deepEqual(first.value.map((row) => row.lastname).slice(0, 2), ["Reader 11", "Reader 10"]);
    const second = await api.retrieveMultiple({ collection: "contacts", maxPageSize: 5 }, first.oDataNextLink);
    assert.deepEqual(second.value.map((row) => row.lastname)[0], "Reader 06");
    const all = await api.retrieveAll({
      collection: "contacts", select: ["lastname"], filter: "startswith(lastname,'Reader')", maxPageSize: 5,
    });
    assert.equal(all.value.length, 12);
    const top = await api.retrieveMultiple({ collection: "contacts", select: ["lastname"], top: 3 });
    assert.equal(top.value.length, 3);
  });

  test("counts", async () => {
    assert.equal(await api.count({ collection: "contacts", filter: "numberofchildren ge 10" }), 2);
    assert.equal(await api.countAll({ collection: "contacts", filter: "numberofchildren lt 3", select: ["lastname"] }), 3);
  });

  test("apply", async () => {
    const sum = await api.retrieveMultiple({
      collection: "contacts", apply: "filter(startswith(lastname,'Reader'))/aggregate(numberofchildren with sum as s)",
    });
    assert.equal(sum.value[0].s, 66);
  });

  test("expand", async () => {
    const account = await api.create({ collection: "accounts", data: { name: "parent" } });
    await api.create({
      collection: "contacts", data: { lastname: "child", "parentcustomerid_account@odata.bind": `/accounts(${account})` },
    });
    const row = await api.retrieve({
      collection: "accounts", key: account, select: ["name"],
      expand: [{ property: "contact_customer_accounts", select: ["lastname"], filter: "statecode eq 0", top: 2, orderBy: ["lastname"] }],
    });
    assert.deepEqual(row.contact_customer_accounts.map((child) => child.lastname), ["child"]);
    const child = await api.retrieve({
      collection: "accounts", key: account, navigationProperty: "contact_customer_accounts", select: ["lastname"],
    });
    assert.equal(child.value[0].lastname, "child");
  });

  test("changes are tracked", async () => {
    const first = await api.retrieveMultiple({ collection: "accounts", select: ["name"], trackChanges: true });
    const link = first.oDataDeltaLink ?? first["@odata.deltaLink"];
    const id = await api.create({ collection: "accounts", data: { name: "tracked" } });
    const delta = await api.retrieveMultiple({ collection: "accounts" }, link);
    assert.deepEqual(delta.value.map((row) => row.accountid), [id]);
  });

  test("FetchXML, its pages and its aggregates", async () => {
    const fetchXml = `<fetch count="5"><entity name="contact"><attribute name="lastname"/><order attribute="lastname"/>
      <filter><condition attribute="lastname" operator="like" value="Reader%"/></filter></entity></fetch>`;
    const page = await api.fetch({ collection: "contacts", fetchXml, includeAnnotations: "*" });
    assert.equal(page.value.length, 5);
    const next = await api.fetch({
      collection: "contacts", fetchXml, pageNumber: page.PagingInfo.nextPage, pagingCookie: page.PagingInfo.cookie,
    });
    assert.equal(next.value[0].lastname, "Reader 05");
    assert.equal((await api.fetchAll({ collection: "contacts", fetchXml, includeAnnotations: "*" })).value.length, 12);
    const sum = await api.fetch({
      collection: "contacts",
      fetchXml: `<fetch aggregate="true"><entity name="contact"><attribute name="numberofchildren" aggregate="max" alias="m"/></entity></fetch>`,
    });
    assert.equal(sum.value[0].m, 11);
    await refused(api.fetch({ collection: "contacts", fetchXml: `<fetch><entity name="contact"><attribute name="nosuch"/></entity></fetch>` }), 400);
  });
});

describe("links between rows", () => {
  test("one to many and single values", async () => {
    const account = await api.create({ collection: "accounts", data: { name: "linked" } });
    const contact = await api.create({ collection: "contacts", data: { lastname: "linked" } });
    const primary = async () =>
      (await api.retrieve({ collection: "accounts", key: account, select: ["_primarycontactid_value"] }))._primarycontactid_value;
    await api.associateSingleValued({
      collection: "accounts", primaryKey: account, navigationProperty: "primarycontactid", relatedCollection: "contacts",
      relatedKey: contact,
    });
    assert.equal(await primary(), contact);
    await api.disassociateSingleValued({ collection: "accounts", primaryKey: account, navigationProperty: "primarycontactid" });
    assert.equal(await primary(), null);
    const parent = async () =>
      (await api.retrieve({ collection: "contacts", key: contact, select: ["_parentcustomerid_value"] }))._parentcustomerid_value;
    const link = { collection: "accounts", primaryKey: account, relationshipName: "contact_customer_accounts", relatedKey: contact };
    await api.associate({ ...link, relatedCollection: "contacts" });
    assert.equal(await parent(), account);
    await api.disassociate(link);
    assert.equal(await parent(), null);
  });
});

describe("batches", () => {
  test("several requests travel as one", async () => {
    api.startBatch();
    api.create({ collection: "accounts", data: { name: "batched 1" }, inChangeSet: false });
    api.create({ collection: "accounts", data: { name: "batched 2" }, inChangeSet: false });
    api.retrieveMultiple({ collection: "accounts", select: ["name"], filter: "startswith(name,'batched')", orderBy: ["name"] });
    const [first, second, list] = await api.executeBatch();
    assert.match(first, /^[0-9a-f-]{36}$/);
    assert.notEqual(first, second);
    assert.deepEqual(list.value.map((row) => row.name), ["batched 1", "batched 2"]);
  });

  test("a change set refers to its own rows, and is all or nothing", async () => {
    api.startBatch();
    api.create({ collection: "accounts", data: { name: "parent" }, contentId: "1" });
    api.create({ collection: "contacts", data: { lastname: "child of batch", "parentcustomerid_account@odata.bind": "$1" } });
    await api.executeBatch();
    const child = await api.retrieveMultiple({
      collection: "contacts", filter: "lastname eq 'child of batch'", expand: [{ property: "parentcustomerid_account", select: ["name"] }],
    });
    assert.equal(child.value[0].parentcustomerid_account.name, "parent");

    api.startBatch();
    api.create({ collection: "accounts", data: { name: "atomic" } });
    api.create({ collection: "accounts", data: { name: "x".repeat(161) } });
    await assert.rejects(api.executeBatch());
    assert.equal(await api.count({ collection: "accounts", filter: "name eq 'atomic'" }), 0);
  });

  test("errors among others", async () => {
    api.startBatch();
    api.create({ collection: "accounts", data: { name: "x".repeat(161) }, inChangeSet: false });
    api.create({ collection: "accounts", data: { name: "goes on" }, inChangeSet: false });
    const [error, id] = await api.executeBatch({ continueOnError: true });
    assert.deepEqual([error.status, error.error.code.toLowerCase()], [400, "0x80044331"]);
    assert.match(id, /^[0-9a-f-]{36}$/);
    assert.equal(await api.count({ collection: "accounts", filter: "name eq 'goes on'" }), 1);
  });
});

describe("functions and actions", () => {
  test("unbound and bound", async () => {
    assert.equal((await api.callFunction("WhoAmI")).OrganizationId, organization);
    const count = await api.callFunction({
      functionName: "RetrieveTotalRecordCount", parameters: { EntityNames: ["contact"] },
    });
    assert.deepEqual(count.EntityRecordCountCollection.Keys, ["contact"]);
    const account = await api.create({ collection: "accounts", data: { name: "complainant" } });
    const incident = await api.create({
      collection: "incidents", data: { title: "case", "customerid_account@odata.bind": `/accounts(${account})` },
    });
    await api.callAction({
      actionName: "CloseIncident",
      action: {
        IncidentResolution: { "@odata.type": "Microsoft.Dynamics.CRM.incidentresolution", subject: "done", "incidentid@odata.bind": `/incidents(${incident})` },
        Status: 5,
      },
    });
    assert.equal((await api.retrieve({ collection: "incidents", key: incident, select: ["statecode"] })).statecode, 1);
  });

  test("what does not exist is refused by name", async () => {
    const error = await refused(api.callAction({ actionName: "WinOpportunity", action: {} }), 501);
    assert.match(error.message, /WinOpportunity/);
    await refused(api.search("x"), 501);
    await refused(api.suggest("xyz"), 501);
    await refused(api.autocomplete("xyz"), 501);
    await refused(api.getBackgroundOperationStatus("11111111-1111-4111-8111-111111111111"), 404);
    await refused(api.cancelBackgroundOperation("11111111-1111-4111-8111-111111111111"), 404);
  });
});

describe("definitions", () => {
  test("tables and columns", async () => {
    const id = await api.createEntity({
      data: {
        "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata", SchemaName: "wr_Tool", OwnershipType: "UserOwned",
        HasActivities: false, HasNotes: false, IsActivity: false, DisplayName: label("Tool"), DisplayCollectionName: label("Tools"),
        Attributes: [string("wr_Name", { IsPrimaryName: true })],
      },
    });
    const table = await api.retrieveEntity({ key: id, select: ["LogicalName", "EntitySetName"], expand: [{ property: "Attributes", select: ["LogicalName"] }] });
    assert.deepEqual([table.LogicalName, table.EntitySetName], ["wr_tool", "wr_tools"]);
    assert.ok(table.Attributes.some((column) => column.LogicalName === "wr_name"));
    const byName = await api.retrieveEntity({ key: "LogicalName='wr_tool'" });
    byName.DisplayName = label("Implement");
    await api.updateEntity({ data: byName, mergeLabels: true });
    const renamed = await api.retrieveEntity({ key: id, select: ["DisplayName"] });
    assert.equal(renamed.DisplayName.UserLocalizedLabel.Label, "Implement");

    const column = await api.createAttribute({ entityKey: "LogicalName='wr_tool'", data: string("wr_Code") });
    const read = await api.retrieveAttribute({
      entityKey: "LogicalName='wr_tool'", attributeKey: "LogicalName='wr_code'", castType: "Microsoft.Dynamics.CRM.StringAttributeMetadata",
    });
    assert.equal(read.MaxLength, 100);
    read.MaxLength = 9;
    await api.updateAttribute({
      entityKey: id, data: read, castType: "Microsoft.Dynamics.CRM.StringAttributeMetadata", mergeLabels: true,
    });
    const strings = await api.retrieveAttributes({
      entityKey: id, castType: "Microsoft.Dynamics.CRM.StringAttributeMetadata", select: ["LogicalName", "MaxLength"],
    });
    assert.equal(strings.value.find((item) => item.LogicalName === "wr_code").MaxLength, 9);
    await refused(api.create({ collection: "wr_tools", data: { wr_code: "0123456789" } }), 400);
    assert.ok(column ?? read.MetadataId);
    const tables = await api.retrieveEntities({ select: ["LogicalName"], filter: "IsCustomEntity eq true" });
    assert.ok(tables.value.some((item) => item.LogicalName === "wr_tool"));
  });

  test("alternate keys address rows", async () => {
    const key = { SchemaName: "wr_CodeKey", KeyAttributes: ["wr_code"], DisplayName: label("Code") };
    // The client has no function for keys, and lowers the names of collections.
    const headers = { Authorization: `Bearer ${await token()}`, "Content-Type": "application/json" };
    const path = "/api/data/v9.2/EntityDefinitions(LogicalName='wr_tool')/Keys";
    assert.equal((await fetch(url + path, { method: "POST", headers, body: JSON.stringify(key) })).status, 204);
    await skip(10);
    await api.upsert({ collection: "wr_tools", key: "wr_code='A-1'", data: { wr_name: "by key" } });
    assert.equal((await api.retrieve({ collection: "wr_tools", key: "wr_code='A-1'", select: ["wr_name"] })).wr_name, "by key");
  });

  test("relationships", async () => {
    const id = await api.createRelationship({
      data: {
        "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata", SchemaName: "wr_account_wr_tool",
        ReferencedEntity: "account", ReferencedAttribute: "accountid", ReferencingEntity: "wr_tool",
        CascadeConfiguration: { Delete: "RemoveLink" },
        Lookup: { "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata", SchemaName: "wr_AccountId", DisplayName: label("Account") },
      },
    });
    const read = await api.retrieveRelationship({ key: id, castType: "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata" });
    assert.equal(read.ReferencingEntityNavigationPropertyName, "wr_AccountId");
    read.CascadeConfiguration.Delete = "Restrict";
    await api.updateRelationship({ data: read, castType: "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata" });
    const account = await api.create({ collection: "accounts", data: { name: "owner" } });
    await api.create({ collection: "wr_tools", data: { wr_name: "hammer", "wr_AccountId@odata.bind": `/accounts(${account})` } });
    await refused(api.deleteRecord({ collection: "accounts", key: account }), 405);
    const all = await api.retrieveRelationships({
      castType: "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata", select: ["SchemaName"], filter: "ReferencingEntity eq 'wr_tool'",
    });
    assert.ok(all.value.some((item) => item.SchemaName === "wr_account_wr_tool"));
    await api.deleteRelationship({ key: id });
    await api.deleteRecord({ collection: "accounts", key: account });
  });

  test("global choices", async () => {
    const option = (Value, text) => ({ Value, Label: label(text) });
    const id = await api.createGlobalOptionSet({
      data: {
        "@odata.type": "Microsoft.Dynamics.CRM.OptionSetMetadata", Name: "wr_region", DisplayName: label("Region"),
        IsGlobal: true, OptionSetType: "Picklist", Options: [option(1, "North"), option(2, "South")],
      },
    });
    const read = await api.retrieveGlobalOptionSet({ key: id, castType: "Microsoft.Dynamics.CRM.OptionSetMetadata" });
    assert.deepEqual(read.Options.map((item) => item.Value), [1, 2]);
    read.DisplayName = label("Area");
    await api.updateGlobalOptionSet({ data: read, mergeLabels: true });
    const named = await api.retrieveGlobalOptionSet({ key: "Name='wr_region'" });
    assert.equal(named.DisplayName.UserLocalizedLabel.Label, "Area");
    assert.ok((await api.retrieveGlobalOptionSets({ select: ["Name"] })).value.some((item) => item.Name === "wr_region"));
    await api.deleteGlobalOptionSet({ key: id });
    await refused(api.retrieveGlobalOptionSet({ key: id }), 404);
  });

  test("the metadata document", async () => {
    const document = await api.retrieveCsdlMetadata({ addAnnotations: true });
    assert.match(document, /<EntitySet Name="accounts"/);
  });
});

describe("files", () => {
  test("a file comes back as it went", async () => {
    await api.createAttribute({
      entityKey: "LogicalName='wr_tool'",
      data: { "@odata.type": "Microsoft.Dynamics.CRM.FileAttributeMetadata", SchemaName: "wr_Manual", DisplayName: label("Manual"), MaxSizeInKB: 32768 },
    });
    const id = await api.create({ collection: "wr_tools", data: { wr_name: "with a manual" } });
    const data = Buffer.alloc(5_000_000, "manual ");
    await api.uploadFile({ collection: "wr_tools", key: id, property: "wr_manual", fileName: "manual.txt", data });
    const back = await api.downloadFile({ collection: "wr_tools", key: id, property: "wr_manual" });
    assert.equal(back.fileName, "manual.txt");
    assert.equal(back.fileSize, data.length);
    assert.ok(Buffer.from(back.data).equals(data));
    await api.deleteRecord({ collection: "wr_tools", key: id, property: "wr_manual" });
  });
});

describe("limits and sign-in", () => {
  test("a 429 carries when to come back", async () => {
    await control("faults", [{ match: { op: "Create", times: 1 }, do: { limit: "time", retry_after: 7 } }]);
    const error = await refused(api.create({ collection: "accounts", data: { name: "limited" } }), 429);
    assert.equal(error.code.toLowerCase(), "0x80072321");
    await control("faults", []);
  });

  test("a wrong secret gets no token, a wrong token no answer", async () => {
    await assert.rejects(token("wrong"), /AADSTS7000215/);
    const stranger = new DynamicsWebApi({ serverUrl: url, onTokenRefresh: () => "nonsense", dataApi: { version: "9.2" } });
    await refused(stranger.callFunction("WhoAmI"), 401);
  });
});
