//! Request headers and what they ask for.
//!
//! Promise: `If-None-Match: null` is no condition; preferences may be repeated or joined; what
//! was honoured is told in `Preference-Applied`. Left out: `Authorization`.

use http::HeaderMap;
use uuid::Uuid;

use super::Answer;
use crate::error::{ApiError, Code};
use crate::query::{Annotations, PAGE_ROWS_MAX};
use crate::settings::Settings;
use crate::write::under_status;

/// What `Prefer` asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preferences {
    pub(crate) representation: bool,
    pub(crate) annotations: Annotations,
    annotation_list: Option<String>,
    pub(crate) page_size: Option<usize>,
    pub(crate) track_changes: bool,
    pub(crate) continue_on_error: bool,
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Preferences {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut preferences = Preferences::default();
        for value in headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()) {
            for item in split_list(value) {
                preferences.add(item.trim());
            }
        }
        preferences
    }

    fn add(&mut self, item: &str) {
        let (name, value) = item.split_once('=').unwrap_or((item, ""));
        match name.trim() {
            "return" => self.representation = value.trim() == "representation",
            "odata.include-annotations" => {
                self.annotations = Annotations::parse(value.trim());
                self.annotation_list = Some(value.trim().to_owned());
            }
            "odata.maxpagesize" => {
                let size = value.trim().parse::<usize>().ok().filter(|size| *size > 0);
                self.page_size = size.map(|size| size.min(PAGE_ROWS_MAX));
            }
            "odata.track-changes" => self.track_changes = true,
            "odata.continue-on-error" => self.continue_on_error = true,
            _ => {}
        }
    }

    /// Tells what a read honoured.
    pub(crate) fn applied(&self, answer: &mut Answer) {
        let mut applied = Vec::new();
        if self.representation {
            applied.push("return=representation".to_owned());
        }
        if let Some(list) = &self.annotation_list {
            applied.push(format!("odata.include-annotations={list}"));
        }
        if let Some(size) = self.page_size {
            applied.push(format!("odata.maxpagesize={size}"));
        }
        if self.track_changes {
            applied.push("odata.track-changes".to_owned());
        }
        if !applied.is_empty() {
            answer.set("preference-applied", &applied.join(","));
        }
    }
}

/// Splits at commas outside double quotes.
fn split_list(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A condition on the row a request addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preconditions {
    pub(super) if_match: Option<Match>,
    pub(super) if_none_match: Option<Match>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Any,
    Version(u64),
    /// A value that is an ETag of nothing.
    Nothing,
}

impl Match {
    pub(super) fn holds(self, version: u64) -> bool {
        match self {
            Match::Any => true,
            Match::Version(wanted) => wanted == version,
            Match::Nothing => false,
        }
    }
}

impl Preconditions {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        Preconditions {
            if_match: header(headers, "if-match").and_then(parse_match),
            if_none_match: header(headers, "if-none-match").and_then(parse_match),
        }
    }

    /// Versions can be compared only where the table allows it.
    pub(super) fn check_table(self, table: &crate::schema::Table) -> Result<(), ApiError> {
        let compares =
            [self.if_match, self.if_none_match].iter().flatten().any(|found| matches!(found, Match::Version(_)));
        if compares && !table.optimistic {
            let message = format!("Optimistic concurrency isn't enabled for entity type {}.", table.logical);
            return Err(ApiError::new(Code::OptimisticConcurrencyNotEnabled, message));
        }
        Ok(())
    }
}

fn parse_match(text: &str) -> Option<Match> {
    let text = text.trim();
    if text == "*" {
        return Some(Match::Any);
    }
    if text.eq_ignore_ascii_case("null") || text.is_empty() {
        return None;
    }
    let number = text.trim_start_matches("W/").trim_matches('"').parse();
    Some(number.map_or(Match::Nothing, Match::Version))
}

/// What the `MSCRM.*` headers of a write ask for.
pub(super) struct WriteWishes {
    pub(super) detect_duplicates: bool,
    pub(super) bypass_plugins: bool,
    pub(super) bypass_async: bool,
    pub(super) bypass_steps: Vec<Uuid>,
}

impl WriteWishes {
    pub(super) fn read(headers: &HeaderMap, settings: &Settings) -> Result<Self, ApiError> {
        let is = |name: &str, wanted: &str| {
            header(headers, name).is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
        };
        let logic = header(headers, "mscrm.bypassbusinesslogicexecution").unwrap_or_default();
        if logic.split(',').any(|part| !matches!(part.trim(), "" | "CustomSync" | "CustomAsync")) {
            return Err(ApiError::bad_request(format!("Invalid value '{logic}' for BypassBusinessLogicExecution.")));
        }
        let asks = !logic.is_empty()
            || is("mscrm.bypasscustompluginexecution", "true")
            || headers.contains_key("mscrm.bypassbusinesslogicexecutionstepids");
        if asks && !settings.bypass_allowed {
            let message = "Principal user is missing prvBypassCustomBusinessLogic privilege.";
            let error = ApiError::new(Code::PrivilegeDenied, message);
            return Err(under_status(error, settings.bypass_refused_status));
        }
        let steps = header(headers, "mscrm.bypassbusinesslogicexecutionstepids").unwrap_or_default();
        // Unknown ids do no harm; too many do.
        let bypass_steps: Vec<Uuid> = steps.split(',').filter_map(|id| Uuid::parse_str(id.trim()).ok()).collect();
        if bypass_steps.len() > settings.bypass_step_ids_max {
            let limit = settings.bypass_step_ids_max;
            return Err(ApiError::bad_request(format!("At most {limit} step ids can be bypassed in one request.")));
        }
        let bypass_plugins = logic.contains("CustomSync") || is("mscrm.bypasscustompluginexecution", "true");
        Ok(WriteWishes {
            detect_duplicates: is("mscrm.suppressduplicatedetection", "false"),
            bypass_plugins,
            bypass_async: logic.contains("CustomAsync"),
            bypass_steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_text_null_is_no_etag() {
        assert_eq!(parse_match("null"), None);
        assert_eq!(parse_match("*"), Some(Match::Any));
        assert_eq!(parse_match("W/\"12\""), Some(Match::Version(12)));
        assert_eq!(parse_match("\"abc\""), Some(Match::Nothing));
    }

    #[test]
    fn preferences_may_be_joined_and_repeated() {
        let mut headers = HeaderMap::new();
        headers.append("prefer", HeaderValue::from_static("odata.include-annotations=\"a,b\",odata.maxpagesize=9000"));
        headers.append("prefer", HeaderValue::from_static("odata.track-changes"));
        let preferences = Preferences::read(&headers);
        assert_eq!(preferences.page_size, Some(5000));
        assert_eq!(preferences.annotation_list.as_deref(), Some("\"a,b\""));
        assert!(preferences.track_changes);
    }
}
