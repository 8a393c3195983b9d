//! A service endpoint as its row describes it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use crate::error::{ApiError, Code};
use crate::query::parse_xml;
use crate::storage::{Database, ValueRef};

/// `contract` of a webhook, `authtype` of its kinds, `messageformat` of JSON.
const WEBHOOK: i64 = 8;
const KEY: i64 = 4;
const HEADER: i64 = 5;
const QUERY: i64 = 6;
const JSON: i64 = 2;

#[derive(Debug)]
pub(super) enum Authentication {
    None,
    Headers(Vec<(String, String)>),
    /// A query string, encoded.
    Query(String),
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) contract: i64,
    pub(super) is_webhook: bool,
    pub(super) is_json: bool,
    pub(super) authentication: Authentication,
}

impl Endpoint {
    pub(super) fn load(database: &Database, id: Uuid) -> Result<Endpoint, ApiError> {
        let table = database.schema.by_logical("serviceendpoint").ok_or_else(|| ApiError::not_here("endpoints"))?;
        let row = database.get(table.id, &id).ok_or_else(|| crate::address::does_not_exist(table, id))?;
        let text = |name: &str| match table.ordinal(name).and_then(|ordinal| row.get(ordinal)) {
            Some(ValueRef::Text(text)) => text.to_owned(),
            _ => String::new(),
        };
        let contract = row.int(table.ordinal("contract")).unwrap_or(0);
        let value = text("authvalue");
        let authentication = match row.int(table.ordinal("authtype")) {
            Some(KEY) => Authentication::Query(format!("code={}", encoded(&value))),
            Some(HEADER) => Authentication::Headers(settings(&value, Code::WebhookHeaders)?),
            Some(QUERY) => {
                let pairs = settings(&value, Code::WebhookQuery)?;
                let pairs: Vec<String> =
                    pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
                Authentication::Query(pairs.join("&"))
            }
            _ => Authentication::None,
        };
        let address = if contract == WEBHOOK { text("url") } else { text("namespaceaddress") };
        let url = if address.is_empty() { text("url") } else { address };
        let is_json = row.int(table.ordinal("messageformat")).is_none_or(|format| format == JSON);
        Ok(Endpoint { name: text("name"), url, contract, is_webhook: contract == WEBHOOK, is_json, authentication })
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `<settings><setting name="k" value="v"/></settings>`.
fn settings(xml: &str, code: Code) -> Result<Vec<(String, String)>, ApiError> {
    let invalid = || {
        ApiError::new(
            code,
            "The webhook call failed because of invalid settings in authValue: names and values are needed.",
        )
    };
    let document = parse_xml(xml).map_err(|_| invalid())?;
    let mut found = Vec::new();
    for node in document.descendants().filter(|node| node.has_tag_name("setting")) {
        let (Some(name), Some(value)) = (node.attribute("name"), node.attribute("value")) else {
            return Err(invalid());
        };
        found.push((name.to_owned(), value.to_owned()));
    }
    if found.is_empty() { Err(invalid()) } else { Ok(found) }
}
