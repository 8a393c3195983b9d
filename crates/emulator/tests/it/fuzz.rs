//! Random requests: none may panic, hang, or meet a server error.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{World, world};

/// Requests in all, over the parallel tasks.
const REQUESTS: usize = 50_000;
const TASKS: usize = 8;

const PATHS: &[&str] = &[
    "accounts",
    "contacts",
    "incidents",
    "wr_orders",
    "tasks",
    "nonsense",
    "",
    "$metadata",
    "WhoAmI",
    "accounts/$count",
    "accounts(00000000-0000-4000-8000-000000000001)",
    "accounts(accountnumber='x')",
    "wr_orders(wr_ordernumber='a''b')",
    "wr_orders(wr_ordernumber='SO-1')/wr_AccountId",
    "wr_orders(wr_ordernumber='SO-1')/wr_AccountId/$ref",
    "accounts(00000000-0000-4000-8000-000000000001)/wr_account_wr_order",
    "accounts(",
    "accounts)",
    "accounts('",
    "(((",
    "%ZZ",
    "accounts(00000000-0000-4000-8000-000000000001)/name/$value",
    "accounts/Microsoft.Dynamics.CRM.CreateMultiple",
    "wr_orders/Microsoft.Dynamics.CRM.UpsertMultiple",
    "wr_orders/Microsoft.Dynamics.CRM.UpdateMultiple",
    "accounts/Microsoft.Dynamics.CRM.Other",
    "EntityDefinitions",
    "EntityDefinitions(LogicalName='account')/Attributes",
    "EntityDefinitions(LogicalName='account')/Keys",
    "CloseIncident",
    "Merge",
    "BulkDelete",
    "$batch",
    "RetrieveTotalRecordCount(EntityNames=['account'])",
    "RetrieveTotalRecordCount(",
    "RelationshipDefinitions",
    "RelationshipDefinitions(SchemaName='wr_account_wr_order')",
    "EntityDefinitions(LogicalName='wr_order')",
    "EntityDefinitions(LogicalName='wr_order')/Attributes(LogicalName='wr_fuzz')",
    "EntityDefinitions(LogicalName='wr_order')/Attributes",
    "GlobalOptionSetDefinitions",
    "InsertOptionValue",
    "InsertStatusValue",
    "OrderOption",
    "PublishXml",
    "RetrieveMetadataChanges(Query=@q,ClientVersionStamp=@s,DeletedMetadataFilters=@d)",
    "ExecuteCosmosSqlQuery(QueryText=@t,EntityLogicalName=@e)",
    "InitializeFileBlocksUpload",
    "UploadBlock",
    "CommitFileBlocksUpload",
    "DownloadBlock",
    "wr_orders(wr_ordernumber='SO-1')/wr_document",
    "wr_orders(wr_ordernumber='SO-1')/wr_document/$value",
    "wr_orders(wr_ordernumber='SO-1')/wr_photo",
    "emails",
    "activitypointers",
    "teams(00000000-0000-4000-8000-000000000001)/teammembership_association/$ref",
    "queueitems(00000000-0000-4000-8000-000000000001)/Microsoft.Dynamics.CRM.PickFromQueue",
    "RouteTo",
];

const QUERIES: &[&str] = &[
    "",
    "$select=name",
    "$select=",
    "$filter=name eq 'a'",
    "$filter=((((",
    "$filter=name eq 'a",
    "$filter=not not name ne null",
    "$filter=contains(name,'%25[')",
    "$filter=statecode eq 0 and (createdon gt 2020-01-01T00:00:00Z or revenue le 5.5)",
    "$filter=Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[\"a\",\"b\"])",
    "$filter=Microsoft.Dynamics.CRM.LastXMonths(PropertyName='createdon',PropertyValue=99999)",
    "$filter=Microsoft.Dynamics.CRM.Between(PropertyName='name',PropertyValues=[",
    "$filter=wr_account_wr_order/any(o:o/wr_qty gt 1)",
    "$orderby=name desc,createdon",
    "$orderby=",
    "$top=3",
    "$top=-1",
    "$top=99999999999999999999",
    "$count=true",
    "$skip=1",
    "$expand=wr_account_wr_order($select=wr_name;$top=2)",
    "$expand=wr_AccountId($select=name",
    "$expand=,,,",
    "$apply=groupby((statecode),aggregate($count as n))",
    "$apply=aggregate(revenue with sum as s)",
    "$apply=(",
    "$skiptoken=x",
    "$skiptoken=%3Ccookie%20pagenumber%3D%22-1%22%20pagingcookie%3D%22%22%20%2F%3E",
    "$deltatoken=1!x",
    "$deltatoken=9999999999!01/01/2020 00:00:00",
    "fetchXml=<fetch/>",
    "fetchXml=<fetch count='2' page='2'><entity name='account'><attribute name='name'/><order attribute='name'/></entity></fetch>",
    "fetchXml=<fetch distinct='true'><entity name='wr_order'><all-attributes/><link-entity name='account' from='accountid' to='wr_accountid' link-type='outer' alias='a'><attribute name='name'/></link-entity></entity></fetch>",
    "fetchXml=<fetch aggregate='true'><entity name='account'><attribute name='revenue' alias='s' aggregate='sum'/><attribute name='createdon' alias='d' groupby='true' dategrouping='week'/></entity></fetch>",
    "fetchXml=<fetch><entity name='account'><filter type='or'><condition attribute='createdon' operator='last-x-fiscal-periods' value='3'/><link-entity name='contact' from='parentcustomerid' to='accountid' link-type='not any'/></filter></entity></fetch>",
    "sql=select",
    "sql=SELECT TOP 3 name AS n, accountid FROM account WHERE name LIKE 'a%25' OR (revenue > 5 AND createdon < DATEADD(day,-1,GETUTCDATE())) ORDER BY n",
    "sql=SELECT a.name, COUNT(*) AS k FROM wr_order o LEFT JOIN account a ON o.wr_accountid = a.accountid GROUP BY a.name",
    "sessiontoken=00000000-0000-4000-8000-000000000001",
    "x-ms-file-name=a.bin",
    "@q={\"Criteria\":{\"Conditions\":[{\"PropertyName\":\"LogicalName\",\"ConditionOperator\":\"Equals\",\"Value\":\"account\"}]}}&@s='1!x'&@d='All'",
    "@t='select c.props.name as n from c where c.props.x in (1,2) order by c.props.n'&@e='wr_order'",
    "$filter=Microsoft.Dynamics.CRM.Under(PropertyName='accountid',PropertyValue='00000000-0000-4000-8000-000000000001')",
    "$filter=Microsoft.Dynamics.CRM.InFiscalPeriodAndYear(PropertyName='createdon',PropertyValues=[\"2\",\"2024\"])",
    "$filter=wr_account_wr_order/any(o:o/wr_AccountId/wr_account_wr_order/all(p:p/wr_qty eq 1))",
    "@p=1&$filter=name eq @p",
    "$filter=name eq @missing",
    "%",
    "&&&==",
];

const BODIES: &[&str] = &[
    "",
    "{}",
    "[]",
    "null",
    "{",
    "{\"name\":\"a\"}",
    "{\"name\":null,\"revenue\":1e400}",
    "{\"revenue\":1.123456789012345678901234567890}",
    "{\"revenue\":\"x\",\"name\":5}",
    "{\"wr_AccountId@odata.bind\":\"$1\"}",
    "{\"wr_AccountId@odata.bind\":\"/accounts(\"}",
    "{\"Targets\":[]}",
    "{\"Targets\":[{\"@odata.type\":\"Microsoft.Dynamics.CRM.wr_order\",\"@odata.id\":\"wr_orders(wr_ordernumber='SO-1')\",\"wr_qty\":3}]}",
    "{\"Targets\":[{\"@odata.type\":\"Microsoft.Dynamics.CRM.account\",\"name\":\"b\"}]}",
    "{\"Targets\":{}}",
    "{\"Targets\":[1]}",
    "{\"wr_account_wr_order\":[{\"wr_name\":\"x\"}],\"name\":\"deep\"}",
    "{\"primarycontactid\":{\"lastname\":\"x\"}}",
    "{\"statecode\":1}",
    "{\"wr_amount\":-1e-400}",
    "{\"statuscode\":99999999999999999999}",
    "{\"name\":\"\\u0000\"}",
    "{\"accountid\":\"x\"}",
    "--b\r\n\r\n--b--\r\n",
    "{\"Status\":5,\"IncidentResolution\":{\"incidentid\":{}}}",
    "{\"QuerySet\":[{\"EntityName\":\"account\",\"Criteria\":{\"Conditions\":[{}]}}]}",
    "{\"Target\":{},\"Subordinate\":{}}",
    "{\"SchemaName\":\"wr_X\",\"KeyAttributes\":[\"name\"]}",
    "{\"@odata.type\":\"Microsoft.Dynamics.CRM.StringAttributeMetadata\",\"SchemaName\":\"wr_Fuzz\",\"MaxLength\":20}",
    "{\"@odata.type\":\"Microsoft.Dynamics.CRM.EntityMetadata\",\"LogicalName\":\"wr_order\",\"HasNotes\":true}",
    "{\"OptionSetName\":\"wr_fuzz\",\"Name\":\"wr_fuzz\",\"Value\":5,\"Values\":[5],\"Options\":[{\"Value\":5}]}",
    "{\"EntityLogicalName\":\"wr_order\",\"AttributeLogicalName\":\"statuscode\",\"StateCode\":1,\"Value\":9}",
    "{\"ParameterXml\":\"<importexportxml><entities><entity>account</entity></entities></importexportxml>\"}",
    "{\"Target\":{\"@odata.type\":\"Microsoft.Dynamics.CRM.wr_order\",\"wr_orderid\":\"00000000-0000-4000-8000-000000000001\"},\"FileAttributeName\":\"wr_document\",\"FileName\":\"a\"}",
    "{\"FileContinuationToken\":\"00000000-0000-4000-8000-000000000001\",\"BlockId\":\"AAAA\",\"BlockData\":\"AAAA\",\"BlockList\":[\"AAAA\"]}",
    "{\"wr_photo\":\"AAAA\"}",
    "{\"subject\":\"s\",\"email_activity_parties\":[{\"participationtypemask\":2}]}",
    "{\"@odata.id\":\"systemusers(00000000-0000-4000-8000-000000000001)\"}",
    "{\"overriddencreatedon\":\"9999-12-31T23:59:59-14:00\"}",
];

const METHODS: &[&str] = &["GET", "GET", "POST", "PATCH", "DELETE", "PUT"];
const PREFER: &[&str] = &[
    "",
    "odata.maxpagesize=2",
    "odata.track-changes",
    "return=representation",
    "odata.include-annotations=\"*\"",
    "odata.maxpagesize=0,,=",
];
const IF_MATCH: &[&str] = &["", "", "*", "W/\"1\"", "null", "x"];

/// SplitMix64: the same requests on every run.
struct Rng(u64);

impl Rng {
    fn next_u32(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) as u32
    }
}

/// A text, sometimes with bytes cut out or doubled.
fn mutated(rng: &mut Rng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..rng.next_u32() % 6 {
        if !rng.next_u32().is_multiple_of(4) || characters.is_empty() {
            continue;
        }
        let at = rng.next_u32() as usize % characters.len();
        if rng.next_u32().is_multiple_of(2) {
            characters.remove(at);
        } else {
            characters.insert(at, characters[at]);
        }
    }
    characters.into_iter().collect()
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.next_u32() as usize % from.len()]
}

async fn bombard(world: &World, task: usize) {
    let mut rng = Rng(task as u64);
    for _ in 0..REQUESTS / TASKS {
        let (method, path, query, body) =
            (pick(&mut rng, METHODS), pick(&mut rng, PATHS), pick(&mut rng, QUERIES), pick(&mut rng, BODIES));
        let target = format!("{}?{}", mutated(&mut rng, path), mutated(&mut rng, query));
        let kind = match path {
            "$batch" => "multipart/mixed; boundary=b",
            _ if path.ends_with("wr_document") => "application/octet-stream",
            _ => "application/json",
        };
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = world
            .request(method, &target)
            .header("content-type", kind)
            .header("prefer", pick(&mut rng, PREFER))
            .header("if-match", pick(&mut rng, IF_MATCH))
            .timeout(Duration::from_secs(20))
            .body(mutated(&mut rng, body));
        let described = format!("{request:?} {body}");
        let response = request.send().await.unwrap_or_else(|error| panic!("{error:?}: {described}"));
        let status = response.status().as_u16();
        assert!(status < 500 || status == 501, "{status}: {described}");
        response.bytes().await.unwrap_or_else(|error| panic!("{error:?}: {described}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_breaks_the_service() {
    let world = std::sync::Arc::new(world().await);
    world.order_table().await;
    for (kind, name) in [("File", "wr_Document"), ("Image", "wr_Photo")] {
        let column = json!({ "@odata.type": format!("Microsoft.Dynamics.CRM.{kind}AttributeMetadata"), "SchemaName": name, "MaxSizeInKB": 100 });
        world.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
    }
    world.post("wr_orders", &json!({ "wr_name": "SO-1", "wr_ordernumber": "SO-1" })).await.expect(204);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move { bombard(&world, task).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("no request fails");
    }
    world.get("WhoAmI").await.expect(200);
}
