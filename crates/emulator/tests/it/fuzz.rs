//! Random requests: none may panic, hang, or meet a server error.

use std::time::Duration;

use reqwest::Method;

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
    "sql=select",
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
        let kind = if path == "$batch" { "multipart/mixed; boundary=b" } else { "application/json" };
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
