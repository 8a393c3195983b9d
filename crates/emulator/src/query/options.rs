//! The query string: system options, parameter aliases, and options without a `$`.
//!
//! Promise: an option the service does not offer is refused by name. Left out: what their values
//! mean.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use uuid::Uuid;

use crate::error::{ApiError, Code};

#[derive(Clone, Debug, Default)]
pub(crate) struct QueryOptions {
    pub(crate) select: Option<String>,
    pub(crate) filter: Option<String>,
    pub(crate) order_by: Option<String>,
    pub(crate) top: Option<u64>,
    pub(crate) expand: Option<String>,
    pub(crate) count: bool,
    pub(crate) apply: Option<String>,
    pub(crate) skip_token: Option<String>,
    pub(crate) delta_token: Option<String>,
    pub(crate) fetch_xml: Option<String>,
    pub(crate) sql: Option<String>,
    /// The table of views and the view whose query is asked for.
    pub(crate) view: Option<(&'static str, Uuid)>,
    pub(crate) partition: Option<String>,
    /// `$id` of a disassociate request.
    pub(crate) id: Option<String>,
    /// Parameter aliases, with their `@`.
    pub(crate) aliases: HashMap<String, String>,
    /// Options of other kinds, by name.
    pub(crate) other: HashMap<String, String>,
}

/// Splits and decodes a query string. `+` stays a plus, as in the product.
pub(crate) fn decode_pairs(query: &str) -> Vec<(String, String)> {
    // A raw `+` is a space, as in a form: a plus is written `%2B` (13.3).
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => (decode(name), decode(value)),
            None => (decode(pair), String::new()),
        })
        .collect()
}

impl QueryOptions {
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut options = QueryOptions::default();
        for (name, value) in decode_pairs(query) {
            match name.as_str() {
                "$select" => options.select = Some(value),
                "$filter" => options.filter = Some(value),
                "$orderby" => options.order_by = Some(value),
                "$top" => options.top = Some(parse_count(&name, &value)?),
                "$expand" => options.expand = Some(value),
                "$count" => options.count = value.eq_ignore_ascii_case("true"),
                "$apply" => options.apply = Some(value),
                "$skiptoken" => options.skip_token = Some(value),
                "$deltatoken" => options.delta_token = Some(value),
                "$id" => options.id = Some(value),
                "fetchXml" => options.fetch_xml = Some(value),
                "sql" => options.sql = Some(value),
                "partitionId" => options.partition = Some(value.trim_matches('\'').to_owned()),
                "savedQuery" => options.view = Some(("savedquery", parse_id(&name, &value)?)),
                "userQuery" => options.view = Some(("userquery", parse_id(&name, &value)?)),
                _ if name.starts_with('$') => return Err(unsupported(&name)),
                _ if name.starts_with('@') => {
                    options.aliases.insert(name, value);
                }
                _ => {
                    options.other.insert(name, value);
                }
            }
        }
        Ok(options)
    }
}

fn parse_count(name: &str, value: &str) -> Result<u64, ApiError> {
    value.parse().map_err(|_| {
        ApiError::bad_request(format!("Invalid value '{value}' for {name} query option found. The {name} query option requires a non-negative integer value."))
    })
}

fn parse_id(name: &str, value: &str) -> Result<Uuid, ApiError> {
    let message = || ApiError::bad_request(format!("The value '{value}' of {name} is not the id of a view."));
    Uuid::parse_str(value.trim_matches('\'')).map_err(|_| message())
}

fn unsupported(name: &str) -> ApiError {
    ApiError::new(Code::UnsupportedQuery, format!("The query parameter {name} is not supported"))
}
