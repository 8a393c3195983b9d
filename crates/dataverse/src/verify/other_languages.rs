//! Probes of queries by FetchXML and `?sql=`. An environment without them is not at fault.

use futures::FutureExt;
use http::{HeaderMap, Method};
use serde_json::json;
use uuid::Uuid;

use super::lab::Lab;
use super::probe::{NoAnswer, Probing, Seen, unobservable};
use super::queries::batch;
use super::reply::Reply;
use crate::earned::Expected;
use crate::load::batch::{Part, decode, encode as encode_batch};
use crate::query::encode;

const NOT_IMPLEMENTED: u16 = 501;
const TOO_MANY_LINKS: u32 = 0x8004_430D;
const TOO_MANY_CONDITIONS: u32 = 0x8004_430C;

pub(super) fn sql_top_allowed<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let select = |top: &str| {
            let text = format!("SELECT {top}{} FROM {}", lab.column("name"), lab.table);
            format!("{}?sql={}", lab.set, encode(&text))
        };
        let plain = lab.get_with(&select(""), &[("prefer", "odata.maxpagesize=1")]).await?;
        if !plain.is_success() {
            return unobservable(format!("`?sql=` is not offered: {}", plain.words()));
        }
        Ok(lab.get(&select("TOP 1 ")).await?.is_taken())
    }
    .boxed()
}

/// Asks inside a batch: an address of its own could not carry the longest of these queries.
async fn fetch(lab: &Lab<'_>, inner: &str) -> Result<Reply, NoAnswer> {
    let text = format!("<fetch top=\"1\"><entity name=\"{}\">{inner}</entity></fetch>", lab.table);
    let path = format!("{}?fetchXml={}", lab.set, encode(&text));
    let mut headers = HeaderMap::new();
    headers.insert("consistency", http::HeaderValue::from_static("Strong"));
    let part = Part { method: Method::GET, path, headers, body: Vec::new(), expected: Expected::Anything };
    let (body, kind) = encode_batch(&[part], |path| lab.dataverse.client.part_address(path));
    let reply = batch(lab, &kind, body).await?;
    let answers = decode(reply.header("content-type").unwrap_or_default(), reply.text.as_bytes());
    let Some(answer) = answers.as_ref().and_then(|answers| answers.first()) else {
        return unobservable(format!("a batch has no answer to its part: {}", reply.words()));
    };
    let reply = Reply::of(answer);
    if reply.status == NOT_IMPLEMENTED {
        return unobservable("FetchXML is not offered");
    }
    Ok(reply)
}

fn link(lab: &Lab<'_>, alias: &str, inner: &str) -> String {
    let (id, column) = (lab.id_column(), lab.column("parent"));
    let names = format!("name=\"{}\" from=\"{id}\" to=\"{column}\" alias=\"{alias}\"", lab.table);
    format!("<link-entity {names} link-type=\"outer\">{inner}</link-entity>")
}

/// A column of a joined row is named by the join's alias and a point.
pub(super) fn fetch_alias_with_point<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = lab.column("name");
        let bind = format!("/{}", lab.row_path(lab.create(&json!({ name.as_str(): "parent" })).await?));
        let mark = Uuid::new_v4().to_string();
        let body = json!({ name.as_str(): mark, format!("{}@odata.bind", lab.column("parent")): bind });
        lab.create(&body).await?;
        let filter = format!("<filter><condition attribute=\"{name}\" operator=\"eq\" value=\"{mark}\"/></filter>");
        let joined = link(lab, "up", &format!("<attribute name=\"{name}\"/>"));
        let reply = fetch(lab, &format!("{filter}{joined}")).await?.required("a query by FetchXML")?;
        let row = reply.rows().first().cloned().unwrap_or_default();
        let has = |separator: &str| row.get(format!("up{separator}{name}")).is_some();
        Ok(match (has("."), has("_x002e_")) {
            (true, _) => Seen::new(true, "alias, point, column"),
            (_, true) => Seen::new(false, "alias, `_x002e_`, column"),
            _ => Seen::strange("the joined column has another name"),
        })
    }
    .boxed()
}

/// As many as are taken, then one more.
async fn is_bound(lab: &Lab<'_>, most: String, one_more: String, code: u32) -> Result<Seen, NoAnswer> {
    let most = fetch(lab, &most).await?;
    if !most.is_success() {
        return Ok(Seen::new(false, format!("less than that: {}", most.words())));
    }
    let reply = fetch(lab, &one_more).await?;
    Ok(Seen::new(reply.code == Some(code), reply.words()))
}

pub(super) fn fetch_links_max<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let links = |count: usize| (0..count).map(|number| link(lab, &format!("l{number}"), "")).collect::<String>();
        is_bound(lab, links(15), links(16), TOO_MANY_LINKS).await
    }
    .boxed()
}

pub(super) fn fetch_conditions_max<'a>(lab: &'a Lab<'a>) -> Probing<'a> {
    async {
        let name = lab.column("name");
        let filter = |count: usize| {
            let condition = format!("<condition attribute=\"{name}\" operator=\"null\"/>");
            format!("<filter type=\"or\">{}</filter>", condition.repeat(count))
        };
        is_bound(lab, filter(500), filter(501), TOO_MANY_CONDITIONS).await
    }
    .boxed()
}
