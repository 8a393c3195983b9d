//! Requests made to break a parser: nested, long and wide texts of every language the service reads,
//! drawn from grammars. None may crash the process, hang, or meet a server error.
//!
//! The ordinary run draws a few hundred; `FLOWGATE_BOMBS=2000` draws as many as it says. The draw is the
//! same on every run, and a failure names its number.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::support::{World, send, world};

const BOMBS: usize = 400;
/// The longest that one may take; a debug build on a busy machine is slow.
const TIME_MAX: Duration = Duration::from_secs(30);

/// SplitMix64: the same requests on every run.
struct Draw(u64);

impl Draw {
    fn number(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 33) as usize % below
    }

    fn one_of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.number(from.len())]
    }

    /// How often something is repeated: a little, past the limits, or far past them.
    fn times(&mut self) -> usize {
        [3, 40, 120, 700, 5_000, 60_000][self.number(6)] + self.number(7)
    }
}

/// Something inside something inside something, sometimes left open, sometimes of mixed kinds.
fn nested(draw: &mut Draw, shells: &[(&str, &str)], core: &str) -> String {
    let levels = draw.times();
    let mixes = draw.number(2) == 0;
    let first = draw.number(shells.len());
    let chosen: Vec<usize> = (0..levels).map(|_| if mixes { draw.number(shells.len()) } else { first }).collect();
    let mut text: String = chosen.iter().map(|shell| shells[*shell].0).collect();
    text.push_str(core);
    if draw.number(4) > 0 {
        text.extend(chosen.iter().rev().map(|shell| shells[*shell].1));
    }
    text
}

/// The same thing very often.
fn repeated(draw: &mut Draw, item: &str, joint: &str) -> String {
    vec![item; draw.times()].join(joint)
}

fn filter(draw: &mut Draw) -> String {
    let shells = [
        ("(", ")"),
        ("not ", ""),
        ("not (", ")"),
        ("account_parent_account/any(a:", ")"),
        ("contact_customer_accounts/all(c:(", "))"),
        ("name eq 'x' or (", ")"),
        ("(name eq 'x') and not (", ")"),
    ];
    let term = draw.one_of(&["name eq 'a'", "revenue gt 5", "name eq", "contains(name,'%[a-z]%')", "x/y/z eq 1"]);
    match draw.number(6) {
        0 => repeated(draw, term, " or "),
        1 => repeated(draw, term, " and "),
        2 => format!("name eq '{}'", "''".repeat(draw.times())),
        3 => format!("{} eq 1", repeated(draw, "parentaccountid", "/")),
        4 => {
            let list = repeated(draw, "\"a\"", ",");
            format!("Microsoft.Dynamics.CRM.In(PropertyName='name',PropertyValues=[{list}])")
        }
        _ => nested(draw, &shells, term),
    }
}

fn expand(draw: &mut Draw) -> String {
    let shells = [
        ("parentaccountid($expand=", ")"),
        ("account_parent_account($select=name;$expand=", ")"),
        ("primarycontactid($filter=((name eq 'a'));$expand=", ")"),
    ];
    match draw.number(3) {
        0 => repeated(draw, "parentaccountid", ","),
        _ => nested(draw, &shells, "parentaccountid"),
    }
}

fn apply(draw: &mut Draw) -> String {
    match draw.number(4) {
        0 => repeated(draw, "filter(name eq 'a')", "/"),
        1 => format!("filter({})", filter(draw)),
        2 => format!("groupby(({}))", repeated(draw, "name", ",")),
        _ => nested(draw, &[("groupby(", ")"), ("aggregate(", ")"), ("filter(", ")")], "name"),
    }
}

fn fetch(draw: &mut Draw) -> String {
    let shells = [
        ("<link-entity name='account' from='accountid' to='parentaccountid'>", "</link-entity>"),
        ("<filter type='or'>", "</filter>"),
        ("<filter><!-- </filter></filter> -->", "</filter>"),
        ("<filter><![CDATA[</filter></filter>]]>", "</filter>"),
        ("<filter><?pi </filter>?>", "</filter>"),
        ("<filter hint='</filter>'>", "</filter>"),
        (
            "<filter><link-entity name='account' from='accountid' to='parentaccountid' link-type='any'>",
            "</link-entity></filter>",
        ),
        ("<a:b xmlns:a='u'>", "</a:b>"),
    ];
    let inner = match draw.number(6) {
        0 => repeated(draw, "<attribute name='name'/>", ""),
        1 => {
            format!("<filter>{}</filter>", repeated(draw, "<condition attribute='name' operator='eq' value='a'/>", ""))
        }
        2 => format!(
            "<filter><condition attribute='name' operator='in'>{}</condition></filter>",
            repeated(draw, "<value>a</value>", "")
        ),
        3 => format!("<attribute name='name' {}/>", repeated(draw, "a='1'", " ")),
        _ => nested(draw, &shells, "<condition attribute='name' operator='null'/>"),
    };
    match draw.number(8) {
        0 => format!("<!DOCTYPE x [<!ENTITY a \"&a;&a;\">]><fetch><entity name='account'>{inner}</entity></fetch>"),
        _ => format!("<fetch><entity name='account'>{inner}</entity></fetch>"),
    }
}

fn sql(draw: &mut Draw) -> String {
    let shells = [("(", ")"), ("(name = 'a' OR ", ")"), ("NOT (", ")")];
    let dates = [("DATEADD(day,1,", ")"), ("DATEADD(day,", ",GETUTCDATE())"), ("DATEADD(year,-", ",'2020-01-01')")];
    let condition = match draw.number(4) {
        0 => repeated(draw, "name = 'a'", " OR "),
        1 => format!("createdon > {}", nested(draw, &dates, "GETUTCDATE()")),
        2 => format!("name IN ({})", repeated(draw, "'a'", ",")),
        _ => nested(draw, &shells, "name = 'a'"),
    };
    let from = match draw.number(3) {
        0 => {
            let count = draw.times().min(3_000);
            let joins =
                (1..count).map(|n| format!(" JOIN account a{n} ON a{n}.accountid = a{}.parentaccountid", n - 1));
            format!("account a0{}", joins.collect::<String>())
        }
        _ => "account a0".to_owned(),
    };
    format!("SELECT a0.name FROM {from} WHERE {condition}")
}

fn cosmos(draw: &mut Draw) -> String {
    let shells = [("(", ")"), ("NOT ", ""), ("c.a = 1 OR (", ")")];
    let calls = [("LOWER(", ")"), ("CONTAINS(c.a,", ")"), ("UPPER(LOWER(", "))")];
    match draw.number(3) {
        0 => format!("SELECT c.a FROM c WHERE {}", repeated(draw, "c.a = 1", " OR ")),
        1 => format!("SELECT c.a FROM c WHERE c.a = {}", nested(draw, &calls, "c.b")),
        _ => format!("SELECT c.a FROM c WHERE {}", nested(draw, &shells, "c.a = 1")),
    }
}

fn body(draw: &mut Draw) -> String {
    let shells = [
        ("{\"name\":", "}"),
        ("[", "]"),
        ("{\"account_parent_account\":[", "]}"),
        ("{\"primarycontactid\":", "}"),
        ("{\"unknown\":[{\"x\":", "}]}"),
        ("{\"Targets\":[", "]}"),
        ("{\"@odata.type\":\"x\",\"Filters\":[", "]}"),
    ];
    match draw.number(6) {
        0 => format!(
            "{{\"revenue\":{}}}",
            draw.one_of(&["1e2147483647", "0e2147483647", "1e-2147483648", "-0.0e999999999"])
        ),
        1 => format!("{{\"revenue\":1{}}}", "0".repeat(draw.times())),
        2 => format!("{{{}}}", repeated(draw, "\"name\":\"a\"", ",")),
        3 => format!("{{\"name\":\"{}\"}}", "\\u0041".repeat(draw.times())),
        _ => nested(draw, &shells, "{\"name\":\"a\"}"),
    }
}

fn batch(draw: &mut Draw) -> String {
    let part = |request: &str, body: &str| {
        format!(
            "Content-Type: application/http\r\nContent-ID: 1\r\n\r\n{request} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{body}\r\n"
        )
    };
    match draw.number(6) {
        0 => format!("{}--b--\r\n", "--b\r\n".repeat(draw.times() * 10)),
        1 => nested(draw, &[("--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n", "--b--\r\n")], ""),
        2 => format!("--b\r\n{}--b--\r\n", part("POST $batch", "")),
        3 => format!("--b\r\n{}\r\n{}--b--\r\n", repeated(draw, "X-A: b", "\r\n"), part("GET accounts", "")),
        4 => format!("--b\r\n{}--b--\r\n", part(&format!("GET accounts?$filter={}", filter(draw)), "")),
        _ => format!("--b\r\n{}--b--\r\n", part("POST accounts", &body(draw))),
    }
}

fn metadata_query(draw: &mut Draw) -> String {
    let shells = [("{\"Filters\":[", "]}"), ("{\"FilterOperator\":\"Or\",\"Filters\":[{},", "]}")];
    let criteria = nested(draw, &shells, "{\"Conditions\":[]}");
    format!("{{\"Query\":{{\"Criteria\":{criteria}}}}}")
}

fn bulk_delete(draw: &mut Draw) -> String {
    let links = [
        ("{\"Filters\":[", "]}"),
        (
            "{\"LinkToEntityName\":\"account\",\"LinkToAttributeName\":\"accountid\",\"LinkFromAttributeName\":\"parentaccountid\",\"LinkEntities\":[",
            "]}",
        ),
    ];
    let inner = nested(draw, &links, "{}");
    match draw.number(2) {
        0 => {
            format!("{{\"QuerySet\":[{{\"EntityName\":\"account\",\"Criteria\":{inner},\"LinkEntities\":[{inner}]}}]}}")
        }
        _ => json!({ "QuerySet": [{ "@odata.type": "Microsoft.Dynamics.CRM.FetchExpression", "Query": fetch(draw) }] })
            .to_string(),
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A query as the address of a request, or of a part of a batch, which may be longer.
async fn ask(world: &World, draw: &mut Draw, path: &str, option: &str, value: &str) -> u16 {
    if draw.number(3) > 0 {
        let part =
            format!("GET {path}?{option}={}", if draw.number(2) == 0 { value.to_owned() } else { encoded(value) });
        let content = format!("--b\r\nContent-Type: application/http\r\n\r\n{part} HTTP/1.1\r\n\r\n\r\n--b--\r\n");
        return post(world, "$batch", "multipart/mixed; boundary=b", content).await;
    }
    let request = world.request(Method::GET, &format!("{path}?{option}={}", encoded(value))).timeout(TIME_MAX);
    // A library may refuse to send what is too long; then nothing was tried.
    match request.send().await {
        Ok(answer) => answer.status().as_u16(),
        Err(error) if error.is_builder() => 0,
        Err(error) => panic!("{error:?}"),
    }
}

async fn post(world: &World, path: &str, kind: &str, content: String) -> u16 {
    let request = world.request(Method::POST, path).header("content-type", kind).timeout(TIME_MAX).body(content);
    request.send().await.unwrap_or_else(|error| panic!("{path}: {error:?}")).status().as_u16()
}

/// One bomb; returns what it was and how it was answered.
async fn throw(world: &World, draw: &mut Draw) -> (&'static str, u16) {
    let json = "application/json";
    match draw.number(16) {
        0 | 1 => ("filter", {
            let text = filter(draw);
            ask(world, draw, "accounts", "$filter", &text).await
        }),
        2 | 3 => ("expand", {
            let text = expand(draw);
            ask(world, draw, "accounts", "$expand", &text).await
        }),
        4 => ("apply", {
            let text = apply(draw);
            ask(world, draw, "accounts", "$apply", &text).await
        }),
        5 | 6 => ("fetch", {
            let text = fetch(draw);
            ask(world, draw, "accounts", "fetchXml", &text).await
        }),
        7 => ("sql", {
            let text = sql(draw);
            ask(world, draw, "accounts", "sql", &text).await
        }),
        8 => ("cosmos", {
            let text = format!("'{}'&@e='account'", cosmos(draw).replace('\'', "''"));
            ask(world, draw, "ExecuteCosmosSqlQuery(QueryText=@t,EntityLogicalName=@e)", "@t", &text).await
        }),
        9 | 10 => ("body", {
            let text = body(draw);
            post(world, "accounts", json, text).await
        }),
        11 => ("targets", {
            let text = body(draw);
            post(world, "accounts/Microsoft.Dynamics.CRM.CreateMultiple", json, text).await
        }),
        12 | 13 => ("batch", {
            let text = batch(draw);
            post(world, "$batch", "multipart/mixed; boundary=b", text).await
        }),
        14 => ("metadata", {
            let text = metadata_query(draw);
            post(world, "RetrieveMetadataChanges", json, text).await
        }),
        _ => ("bulk delete", {
            let text = bulk_delete(draw);
            post(world, "BulkDelete", json, text).await
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_is_deep_or_long_enough_to_break_the_service() {
    let world = world().await;
    // A circle of rows, so that what follows lookups never comes to an end by itself.
    let ids: Vec<String> =
        vec!["00000000-0000-4000-8000-00000000000a".into(), "00000000-0000-4000-8000-00000000000b".into()];
    for id in &ids {
        world.post("accounts", &json!({ "accountid": id, "name": "circle" })).await.expect(204);
    }
    for (id, parent) in [(&ids[0], &ids[1]), (&ids[1], &ids[0])] {
        let bind = json!({ "parentaccountid@odata.bind": format!("accounts({parent})") });
        world.patch(&format!("accounts({id})"), &[], &bind).await.expect(204);
    }
    let bombs = std::env::var("FLOWGATE_BOMBS").map_or(BOMBS, |text| text.parse().expect("a number"));
    let mut seen = std::collections::BTreeMap::<(&str, u16), usize>::new();
    for number in 0..bombs {
        let started = Instant::now();
        let (kind, status) = throw(&world, &mut Draw(number as u64 * 7_919 + 1)).await;
        let took = started.elapsed();
        assert!(status < 500 || status == 501, "bomb {number}, {kind}: {status}");
        assert!(took < TIME_MAX, "bomb {number}, {kind}: {took:?}");
        *seen.entry((kind, status)).or_default() += 1;
    }
    world.get("WhoAmI").await.expect(200);
    eprintln!("{bombs} bombs: {seen:?}");
}

/// The bombs that were found from outside, as they were found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_once_overflowed_the_stack_is_refused() {
    let world = world().await;
    let in_batch = |address: String| {
        format!("--b\r\nContent-Type: application/http\r\n\r\nGET {address} HTTP/1.1\r\n\r\n\r\n--b--\r\n")
    };
    let expands = "parentaccountid($expand=".repeat(1_000) + "parentaccountid" + &")".repeat(1_000);
    let ors = vec!["a eq 1"; 60_000].join(" or ");
    let fetch = "<filter><!-- </filter> -->".repeat(2_000) + &"</filter>".repeat(2_000);
    let fetch = format!("<fetch><entity name='account'>{fetch}</entity></fetch>");
    for address in
        [format!("accounts?$expand={expands}"), format!("accounts?$filter={ors}"), format!("accounts?fetchXml={fetch}")]
    {
        let refused = post(&world, "$batch", "multipart/mixed; boundary=b", in_batch(address)).await;
        assert_eq!(refused, 400);
    }
    // As short as an address may be.
    world.get(&format!("accounts?$expand={}", &expands[..24 * 700])).await.expect(400);
    let ors = vec!["name eq 'a'"; 1_000].join(" or ");
    world.get(&format!("accounts?$filter={ors}")).await.refused(400, "0x8004430c");
    world.get("WhoAmI").await.expect(200);
}

#[tokio::test]
async fn a_lambda_in_a_lambda_that_multiplies_rows_is_given_up() {
    let world = world().await;
    let parent = world.post("accounts", &json!({ "name": "parent" })).await.expect(204).id();
    let rows: Vec<Json> = (0..200)
        .map(|_| json!({ "@odata.type": "Microsoft.Dynamics.CRM.account", "name": "child", "parentaccountid@odata.bind": format!("accounts({parent})") }))
        .collect();
    world.post("accounts/Microsoft.Dynamics.CRM.CreateMultiple", &json!({ "Targets": rows })).await.expect(200);
    // Every child leads to its parent and from there to every child again.
    let mut filter = "name eq 'nobody'".to_owned();
    for level in 0..8 {
        filter = format!("account_parent_account/any(a{level}:a{level}/parentaccountid/{filter})");
    }
    let filter = filter.replace("parentaccountid/name", "name");
    world.get(&format!("accounts?$filter={filter}")).await.refused(400, "0x80048544");
    world.get(&format!("accounts/$count?$filter={filter}")).await.refused(400, "0x80048544");
    let shallow = "account_parent_account/any(a:a/name eq 'child')";
    let found = world.get(&format!("accounts?$select=name&$filter={shallow}")).await.expect(200).json();
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_headers_and_bodies_have_an_end() {
    let world = world().await;
    let long = "a".repeat(33_000);
    assert_eq!(world.get(&format!("accounts?$select={long}")).await.status.as_u16(), 414);
    world.get(&format!("accounts?$filter=name eq '{}'&$select=name", "a".repeat(30_000))).await.expect(200);
    let in_batch = |length: usize| {
        let address = format!("accounts?$select=name&$filter=name eq '{}'", "a".repeat(length));
        format!("--b\r\nContent-Type: application/http\r\n\r\nGET {address} HTTP/1.1\r\n\r\n\r\n--b--\r\n")
    };
    assert_eq!(post(&world, "$batch", "multipart/mixed; boundary=b", in_batch(60_000)).await, 200);
    assert_eq!(post(&world, "$batch", "multipart/mixed; boundary=b", in_batch(70_000)).await, 400);
    let mut request = world.request(Method::GET, "WhoAmI");
    for number in 0..2_000 {
        request = request.header(format!("x-{number}"), "y");
    }
    assert_eq!(send(request).await.status.as_u16(), 431);
    // A stranger is told so, whatever he sends; what he sends is not kept.
    let stranger = world.client.post(format!("{}/accounts", world.base)).body(vec![b' '; 8 << 20]);
    assert_eq!(send(stranger).await.status.as_u16(), 401);
    let token = world.client.post(&world.emulator.ready().token_url).body(vec![b'a'; 1 << 20]);
    assert_eq!(send(token).await.status.as_u16(), 413);
    let control = world.client.post(format!("{}/__emulator/faults", world.root)).body(vec![b' '; 5 << 20]);
    assert_eq!(send(control).await.status.as_u16(), 413);
}
