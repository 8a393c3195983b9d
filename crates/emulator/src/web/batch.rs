//! `$batch`: many requests in one, with change sets.
//!
//! Promise: parts run in order; a change set is one transaction, its content ids known inside it
//! alone; without continue-on-error the first failure ends the batch and gives its status; the
//! parts before it stay done. Operations, headers and the depth of nesting are counted while a body is
//! read. A body is as strict as the service's: where the last line does not end, parts with content cannot
//! be read, and an operation of a change set needs its Content-ID. Left out: the JSON form of batches.

use std::collections::{HashMap, HashSet};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use uuid::Uuid;

use super::{Access, Answer, Call, Preferences, Request, answer_one};
use crate::error::{ApiError, Code};
use crate::profile::{Message, Work};
use crate::schema::TableId;
use crate::storage::Database;
use crate::write::unknown_content_id;

/// Operations one batch may hold, change sets counted through.
const OPERATIONS_MAX: usize = 1000;
/// Headers of a part, and of the request inside it.
const HEADERS_MAX: usize = 100;
/// The longest address of a part's request.
const ADDRESS_BYTES_MAX: usize = 65_536;
/// All answers together; a batch of queries multiplies what one may answer.
const ANSWER_BYTES_MAX: usize = 512 << 20;

#[derive(Debug)]
struct Part {
    content_id: Option<String>,
    request: Request,
    /// Whether the end of the batch keeps its content from being read.
    is_cut: bool,
}

#[derive(Debug)]
enum Item {
    Single(Box<Part>),
    ChangeSet(Vec<Part>),
}

pub(super) fn answer(call: &Call<'_>, access: &mut Access<'_>, request: &Request) -> Answer {
    match parse(call, request) {
        Ok(items) => run(call, access, request, items),
        Err(error) => Answer::error(&error, false),
    }
}

fn malformed(what: &str) -> ApiError {
    ApiError::bad_request(format!("The batch request is malformed: {what}."))
}

/// The boundary of a multipart content type.
fn boundary(content_type: &str) -> Option<String> {
    if !content_type.trim_start().to_ascii_lowercase().starts_with("multipart/mixed") {
        return None;
    }
    let parameter =
        content_type.split(';').map(str::trim).find(|part| part.to_ascii_lowercase().starts_with("boundary="))?;
    let value = parameter.split_once('=')?.1.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

fn parse(call: &Call<'_>, request: &Request) -> Result<Vec<Item>, ApiError> {
    if request.method != Method::POST {
        return Err(super::route::method_not_allowed(request));
    }
    let content_type = request.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    let boundary =
        boundary(content_type).ok_or_else(|| malformed("its content type is not multipart/mixed with a boundary"))?;
    let mut reading = Reading { outer: request, operations: 0, is_cut: false };
    let (found, rest) = sections(&request.body, &boundary)?;
    // Two bytes must follow the closing boundary: CRLF, or two line ends of another kind.
    reading.is_cut = call.settings.strict_batch_end && rest.len() < 2;
    found.into_iter().map(|section| reading.item(call, section)).collect()
}

/// What is known of a batch while its sections are read.
struct Reading<'a> {
    outer: &'a Request,
    operations: usize,
    is_cut: bool,
}

impl Reading<'_> {
    fn item(&mut self, call: &Call<'_>, section: &[u8]) -> Result<Item, ApiError> {
        let (headers, body) = split_headers(section)?;
        let Some(inner) = boundary(&header(&headers, "content-type").unwrap_or_default()) else {
            return self.part(&headers, body).map(|part| Item::Single(Box::new(part)));
        };
        let mut parts = Vec::new();
        for section in sections(body, &inner)?.0 {
            let (headers, body) = split_headers(section)?;
            let part = self.part(&headers, body)?;
            if part.request.method == Method::GET {
                return Err(malformed("a change set holds a GET request"));
            }
            if part.content_id.is_none() && call.settings.content_id_required {
                let message = "The header with name 'Content-ID' is missing in an operation of the change set; every operation of a change set needs a Content-ID.";
                return Err(ApiError::new(Code::UnsupportedQuery, message));
            }
            parts.push(part);
        }
        Ok(Item::ChangeSet(parts))
    }

    fn part(&mut self, headers: &Headers, body: &[u8]) -> Result<Part, ApiError> {
        self.operations += 1;
        if self.operations > OPERATIONS_MAX {
            return Err(malformed(&format!("it holds too many operations; at most {OPERATIONS_MAX} are allowed")));
        }
        let mut part = part(headers, body, self.outer)?;
        part.is_cut = self.is_cut && !part.request.body.is_empty();
        Ok(part)
    }
}

fn operations(item: &Item) -> usize {
    match item {
        Item::Single(_) => 1,
        Item::ChangeSet(parts) => parts.len(),
    }
}

/// The pieces between boundary lines, and what follows the closing boundary itself.
fn sections<'a>(body: &'a [u8], boundary: &str) -> Result<(Vec<&'a [u8]>, &'a [u8]), ApiError> {
    let delimiter = format!("--{boundary}");
    let (mut found, mut start) = (Vec::new(), None);
    let mut at = 0;
    while at < body.len() {
        let end = body[at..].iter().position(|byte| *byte == b'\n').map_or(body.len(), |length| at + length + 1);
        let line = body[at..end].trim_ascii_end();
        let closes = line.strip_prefix(delimiter.as_bytes());
        if closes.is_some_and(|rest| rest.is_empty() || rest == b"--") {
            if let Some(start) = start {
                found.push(strip_line_end(&body[start..at]));
            }
            start = Some(end);
            if closes == Some(b"--".as_slice()) {
                return Ok((found, &body[at + line.len()..]));
            }
            if found.len() > OPERATIONS_MAX {
                return Err(malformed(&format!("it holds too many operations; at most {OPERATIONS_MAX} are allowed")));
            }
        }
        at = end;
    }
    Err(malformed("its closing boundary is missing"))
}

/// The line end before a boundary belongs to the boundary.
fn strip_line_end(section: &[u8]) -> &[u8] {
    let section = section.strip_suffix(b"\n").unwrap_or(section);
    section.strip_suffix(b"\r").unwrap_or(section)
}

type Headers = Vec<(String, String)>;

fn header(headers: &Headers, name: &str) -> Option<String> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
}

/// Header lines up to an empty one, and what follows.
fn split_headers(section: &[u8]) -> Result<(Headers, &[u8]), ApiError> {
    let mut headers = Vec::new();
    let mut rest = section;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        let line = std::str::from_utf8(line.trim_ascii()).map_err(|_| malformed("a header is not text"))?;
        rest = after;
        if line.is_empty() {
            return Ok((headers, rest));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header has no colon"))?;
        if headers.len() == HEADERS_MAX {
            return Err(malformed("a part has too many headers"));
        }
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn part(headers: &Headers, body: &[u8], outer: &Request) -> Result<Part, ApiError> {
    let kind = header(headers, "content-type").unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/http") {
        return Err(malformed("a part is not of type application/http"));
    }
    let body = body.trim_ascii_start();
    let end = body.iter().position(|byte| *byte == b'\n').unwrap_or(body.len());
    let line = std::str::from_utf8(body[..end].trim_ascii()).map_err(|_| malformed("a request line is not text"))?;
    let (method, url) = method_and_url(line).ok_or_else(|| malformed("a request line names no method and address"))?;
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| malformed("a request line has an unknown method"))?;
    let (inner, content) = split_headers(body.get(end + 1..).unwrap_or_default())?;
    let mut map = HeaderMap::new();
    for (name, value) in &inner {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            map.append(name, value);
        }
    }
    for name in ["consistency"] {
        if let (false, Some(value)) = (map.contains_key(name), outer.headers.get(name)) {
            map.insert(name, value.clone());
        }
    }
    if url.len() > ADDRESS_BYTES_MAX {
        return Err(malformed("an address is too long"));
    }
    let (path, query) = split_url(url);
    // The content is a piece of the whole body: it is shared, not copied.
    let request = Request { method, path, query, headers: map, body: outer.body.slice_ref(content) };
    Ok(Part { content_id: header(headers, "content-id"), request, is_cut: false })
}

/// What stands between the first and the last blank is the address: clients leave blanks in it.
fn method_and_url(line: &str) -> Option<(&str, &str)> {
    let (method, rest) = line.split_once(' ')?;
    let (url, version) = rest.rsplit_once(' ').unwrap_or((rest, ""));
    let url = if version.starts_with("HTTP/") { url } else { rest };
    Some((method, url.trim())).filter(|(_, url)| !url.is_empty())
}

/// Path below the service root, and query.
fn split_url(url: &str) -> (String, String) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let below = match path.find("/api/data/v") {
        Some(start) => {
            let rest = &path[start + "/api/data/v".len()..];
            rest.find('/').map_or("", |slash| &rest[slash + 1..])
        }
        None => path.trim_start_matches('/'),
    };
    (below.to_owned(), query.to_owned())
}

struct Output {
    boundary: String,
    body: Vec<u8>,
}

impl Output {
    /// An answer whose boundary begins with what stands before a `#`; the rest tells it from its like.
    fn new(prefix: &str) -> Self {
        let id = Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(prefix.as_bytes()));
        let name = prefix.split_once('#').map_or(prefix, |(name, _)| name);
        Output { boundary: format!("{name}_{id}"), body: Vec::new() }
    }

    fn push(&mut self, part: &Answer, content_id: Option<&str>) {
        let out = &mut self.body;
        out.extend_from_slice(
            format!("--{}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n", self.boundary)
                .as_bytes(),
        );
        if let Some(content_id) = content_id {
            out.extend_from_slice(format!("Content-ID: {content_id}\r\n").as_bytes());
        }
        let reason = part.status.canonical_reason().unwrap_or("Unknown");
        out.extend_from_slice(format!("\r\nHTTP/1.1 {} {reason}\r\n", part.status.as_u16()).as_bytes());
        for (name, value) in &part.headers {
            let name = canonical(name.as_str());
            out.extend_from_slice(format!("{name}: {}\r\n", value.to_str().unwrap_or_default()).as_bytes());
        }
        out.extend_from_slice(b"OData-Version: 4.0\r\n");
        if part.status.is_client_error() || part.status.is_server_error() {
            out.extend_from_slice(
                format!("REQ_ID: {}\r\n", Uuid::from_u128(xxhash_rust::xxh3::xxh3_128(&part.body))).as_bytes(),
            );
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part.body);
        out.extend_from_slice(b"\r\n");
    }

    fn push_nested(&mut self, mut inner: Output) {
        inner.close();
        let head = format!("--{}\r\nContent-Type: multipart/mixed; boundary={}\r\n\r\n", self.boundary, inner.boundary);
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(&inner.body);
    }

    fn close(&mut self) {
        self.body.extend_from_slice(format!("--{}--\r\n", self.boundary).as_bytes());
    }
}

/// The spelling clients see in examples; header names do not depend on case.
fn canonical(name: &str) -> String {
    match name {
        "odata-entityid" => "OData-EntityId".to_owned(),
        "content-type" => "Content-Type".to_owned(),
        "location" => "Location".to_owned(),
        "etag" => "ETag".to_owned(),
        "preference-applied" => "Preference-Applied".to_owned(),
        other => other.to_owned(),
    }
}

fn run(call: &Call<'_>, access: &mut Access<'_>, request: &Request, items: Vec<Item>) -> Answer {
    let keeps_going = Preferences::read(&request.headers).continue_on_error;
    let mut output = Output::new("batchresponse");
    let mut status = StatusCode::OK;
    let mut work = Work { message: Message::Batch, ..Work::default() };
    let mut entitlement = 0;
    for (index, item) in items.into_iter().enumerate() {
        work.rows += operations(&item) as u64;
        let failed = match item {
            Item::Single(part) => {
                let answer = if output.body.len() > ANSWER_BYTES_MAX {
                    Answer::error(
                        &ApiError::new(Code::DataEngineQueryThrottling, "The answer to the batch is too large."),
                        false,
                    )
                } else {
                    run_single(call, access, &part)
                };
                entitlement += answer.entitlement;
                work.extra_ms += answer.work.extra_ms;
                output.push(&answer, part.content_id.as_deref());
                is_failure(answer.status).then_some(answer.status)
            }
            Item::ChangeSet(parts) => {
                entitlement += parts.len() as u64;
                run_change_set(call, access, &parts, index, &mut output)
            }
        };
        if let (Some(failed), false) = (failed, keeps_going) {
            status = failed;
            break;
        }
    }
    output.close();
    let mut answer = Answer::new(status);
    answer.set("content-type", &format!("multipart/mixed; boundary={}", output.boundary));
    answer.body = output.body;
    answer.work = work;
    answer.entitlement = entitlement;
    answer
}

fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn run_single(call: &Call<'_>, access: &mut Access<'_>, part: &Part) -> Answer {
    // A reference outside its change set has nothing to refer to.
    if let Some(reference) = path_reference(&part.request.path) {
        return Answer::error(&unknown_content_id(reference), false);
    }
    // In a part of its own `$n` names nothing either: an empty change set says so.
    match answer_part(call, access, part, &part.request) {
        Ok(answer) => answer,
        Err(error) => Answer::error(&error, Preferences::read(&part.request.headers).annotations.errors),
    }
}

/// Answers the request of a part, which may be the part's own with another path.
fn answer_part(call: &Call<'_>, access: &mut Access<'_>, part: &Part, request: &Request) -> Result<Answer, ApiError> {
    if part.is_cut {
        let set = request.path.split(['(', '/']).next().unwrap_or_default();
        return Err(ApiError::payload(set, "System.ArgumentException: Stream was not readable."));
    }
    let mut answer = answer_one(call, access, request)?;
    if !answer.headers.contains_key("preference-applied") {
        Preferences::read(&request.headers).applied(&mut answer);
    }
    Ok(answer)
}

/// `$1` or `$1/...` at the start of a path.
fn path_reference(path: &str) -> Option<&str> {
    let rest = path.strip_prefix('$')?;
    let end = rest.find('/').unwrap_or(rest.len());
    let id = &rest[..end];
    (!matches!(id, "metadata" | "batch")).then_some(id)
}

/// Runs a change set; returns its status if it failed.
fn run_change_set(
    call: &Call<'_>,
    access: &mut Access<'_>,
    parts: &[Part],
    index: usize,
    output: &mut Output,
) -> Option<StatusCode> {
    let mut inner = Output::new(&format!("changesetresponse#{index}"));
    let mut failed: Option<(Answer, Option<String>)> = None;
    let done = access.write(|database| {
        let mut known: HashMap<String, (TableId, Uuid)> = HashMap::new();
        let mut used = HashSet::new();
        for part in parts {
            if part.content_id.as_ref().is_some_and(|id| !used.insert(id.clone())) {
                let error = malformed("a Content-ID is used twice");
                failed = Some((Answer::error(&error, false), part.content_id.clone()));
                return Err(error);
            }
            match run_in_set(call, database, part, &known) {
                Ok((answer, row)) => {
                    if let (Some(id), Some(row)) = (&part.content_id, row) {
                        known.insert(id.clone(), row);
                    }
                    inner.push(&answer, part.content_id.as_deref());
                }
                Err(error) => {
                    let annotations = Preferences::read(&part.request.headers).annotations.errors;
                    failed = Some((Answer::error(&error, annotations), part.content_id.clone()));
                    return Err(error);
                }
            }
        }
        Ok(())
    });
    if done.is_ok() {
        output.push_nested(inner);
        return None;
    }
    let (answer, content_id) = failed?;
    if call.settings.nested_change_set_error {
        let mut only = Output::new(&format!("changesetresponse#{index}"));
        only.push(&answer, content_id.as_deref());
        output.push_nested(only);
    } else {
        output.push(&answer, content_id.as_deref());
    }
    Some(answer.status)
}

type Made = Option<(TableId, Uuid)>;

fn run_in_set(
    call: &Call<'_>,
    database: &mut Database,
    part: &Part,
    known: &HashMap<String, (TableId, Uuid)>,
) -> Result<(Answer, Made), ApiError> {
    let mut request = part.request.clone();
    if let Some(id) = path_reference(&request.path) {
        let (table, row) = known.get(id).copied().ok_or_else(|| unknown_content_id(id))?;
        let rest = &request.path[1 + id.len()..];
        request.path = format!("{}({row}){rest}", database.schema.table(table).set_name);
    }
    let mut access = Access::Held { database, content_ids: known };
    let answer = answer_part(call, &mut access, part, &request)?;
    // The row a later part may refer to is the one this part's answer names.
    let link = answer.headers.get("odata-entityid").and_then(|value| value.to_str().ok());
    let made = link.and_then(|link| {
        let schema = database.schema.clone();
        match crate::address::parse_reference(&schema, link) {
            Ok(crate::address::Reference::Row(table, address)) => {
                address.find(database, &table).map(|id| (table.id, id))
            }
            _ => None,
        }
    });
    Ok((answer, made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_may_be_quoted() {
        assert_eq!(boundary("multipart/mixed; boundary=\"b 1\"").as_deref(), Some("b 1"));
        assert_eq!(boundary("multipart/mixed;charset=x;Boundary=b").as_deref(), Some("b"));
        assert_eq!(boundary("application/json"), None);
    }

    #[test]
    fn sections_lie_between_boundary_lines() {
        let body = b"preamble\r\n--b\r\none\r\n\r\n--b\r\ntwo\r\n--b--\r\n";
        assert_eq!(sections(body, "b").unwrap(), (vec![b"one\r\n".as_slice(), b"two"], b"\r\n".as_slice()));
        assert_eq!(sections(b"--b\none\n--b--", "b").unwrap(), (vec![b"one".as_slice()], b"".as_slice()));
        assert_eq!(sections(b"--b\none\n--b--\n", "b").unwrap().1, b"\n");
        assert!(sections(b"--b\r\none\r\n", "b").is_err());
        let many = format!("{}--b--\r\n", "--b\r\n".repeat(1_000_000));
        assert!(sections(many.as_bytes(), "b").unwrap_err().message.contains("too many operations"));
    }
}
