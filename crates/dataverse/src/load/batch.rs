//! `$batch`: many requests in one body, and the answer to each (dossier section 15). Pure.

use bytes::Bytes;
use flowgate_http::Answer;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use uuid::Uuid;

use crate::earned::Expected;

/// One request of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) method: Method,
    /// Relative to the API's address.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// JSON, or empty.
    pub(crate) body: Vec<u8>,
    /// What a success looks like.
    pub(crate) expected: Expected,
}

/// A batch's body and its content type.
pub(crate) fn encode(parts: &[Part], address: impl Fn(&str) -> String) -> (Bytes, String) {
    let boundary = format!("batch_{}", Uuid::new_v4().simple());
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.body.len() + 400).sum());
    for part in parts {
        let mut line = |text: &str| {
            body.extend_from_slice(text.as_bytes());
            body.extend_from_slice(b"\r\n");
        };
        line(&format!("--{boundary}"));
        line("Content-Type: application/http");
        line("Content-Transfer-Encoding: binary");
        line("");
        line(&format!("{} {} HTTP/1.1", part.method, address(&part.path)));
        line("Accept: application/json");
        if !part.body.is_empty() {
            line("Content-Type: application/json; type=entry");
        }
        for (name, value) in &part.headers {
            line(&format!("{name}: {}", value.to_str().unwrap_or_default()));
        }
        line("");
        body.extend_from_slice(&part.body);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (body.into(), format!("multipart/mixed; boundary=\"{boundary}\""))
}

/// The answers of a batch in the order of its parts. `None` if the body is not such an answer.
///
/// A server may answer fewer parts than were sent: those after a failure were not run.
pub(crate) fn decode(content_type: &str, body: &[u8]) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    decode_into(content_type, body, &mut answers, 0)?;
    Some(answers)
}

/// A change set's answers are nested one level deep.
const DEPTH_MAX: usize = 2;

fn decode_into(content_type: &str, body: &[u8], answers: &mut Vec<Answer>, depth: usize) -> Option<()> {
    let boundary = boundary_of(content_type)?;
    for part in split_parts(body, boundary.as_bytes()) {
        let (headers, content) = split_headers(part)?;
        let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("multipart/mixed") {
            if depth + 1 >= DEPTH_MAX {
                return None;
            }
            decode_into(kind, content, answers, depth + 1)?;
        } else {
            answers.push(read_answer(content)?);
        }
    }
    Some(())
}

fn boundary_of(content_type: &str) -> Option<String> {
    let parameters = content_type.strip_prefix("multipart/mixed")?;
    let value = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

/// The pieces between the boundary lines.
fn split_parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut started = None;
    let mut position = 0;
    while position < body.len() {
        let end = body[position..].iter().position(|byte| *byte == b'\n').map_or(body.len(), |at| position + at + 1);
        let line = trim_end(&body[position..end]);
        let delimiter = line.strip_prefix(b"--").and_then(|rest| rest.strip_prefix(boundary));
        if let Some(rest) = delimiter.filter(|rest| rest.is_empty() || *rest == b"--") {
            if let Some(start) = started {
                parts.push(trim_line_end(&body[start..position]));
            }
            started = rest.is_empty().then_some(end);
        }
        position = end;
    }
    parts
}

fn trim_end(line: &[u8]) -> &[u8] {
    let length = line.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |at| at + 1);
    &line[..length]
}

/// Without the one line end that belongs to the boundary after it.
fn trim_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}

fn split_headers(part: &[u8]) -> Option<(HeaderMap, &[u8])> {
    let mut headers = HeaderMap::new();
    let mut position = 0;
    loop {
        let end = position + part.get(position..)?.iter().position(|byte| *byte == b'\n')? + 1;
        let line = trim_end(&part[position..end]);
        position = end;
        if line.is_empty() {
            return Some((headers, &part[position..]));
        }
        let text = std::str::from_utf8(line).ok()?;
        let (name, value) = text.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
}

fn read_answer(content: &[u8]) -> Option<Answer> {
    let end = content.iter().position(|byte| *byte == b'\n')? + 1;
    let line = std::str::from_utf8(trim_end(&content[..end])).ok()?;
    let status = line.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let rest = &content[end..];
    // An answer without a body may end with its headers.
    let (headers, body) = split_headers(rest).or_else(|| {
        let mut padded = rest.to_vec();
        padded.extend_from_slice(b"\r\n\r\n");
        split_headers(&padded).map(|(headers, _)| (headers, &rest[rest.len()..]))
    })?;
    Some(Answer { status, headers, body: Bytes::copy_from_slice(trim_line_end(body)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/mixed; boundary=batchresponse_1";

    fn statuses(body: &str) -> Option<Vec<u16>> {
        let body = body.replace('\n', "\r\n");
        Some(decode(KIND, body.as_bytes())?.iter().map(|answer| answer.status.as_u16()).collect())
    }

    #[test]
    fn answers_come_in_order_with_their_headers_and_bodies() {
        let body = "--batchresponse_1\nContent-Type: application/http\nContent-Transfer-Encoding: binary\n\n\
                    HTTP/1.1 204 No Content\nOData-EntityId: https://x/accounts(1)\n\n\n\
                    --batchresponse_1\nContent-Type: application/http\n\n\
                    HTTP/1.1 400 Bad Request\nREQ_ID: r1\nContent-Type: application/json\n\n{\"error\":{}}\n\
                    --batchresponse_1--\n"
            .replace('\n', "\r\n");
        let answers = decode(KIND, body.as_bytes()).unwrap();
        assert_eq!(answers[0].header("odata-entityid"), Some("https://x/accounts(1)"));
        assert_eq!(answers[1].header("req_id"), Some("r1"));
        assert_eq!(answers[1].body.as_ref(), b"{\"error\":{}}");
    }

    #[test]
    fn a_failed_change_set_may_stand_alone_or_nested() {
        let nested = "--batchresponse_1\nContent-Type: multipart/mixed; boundary=changesetresponse_2\n\n\
                      --changesetresponse_2\nContent-Type: application/http\n\nHTTP/1.1 400 Bad Request\n\n{}\n\
                      --changesetresponse_2--\n\n--batchresponse_1--\n";
        assert_eq!(statuses(nested), Some(vec![400]));
        let alone = "--batchresponse_1\nContent-Type: application/http\n\nHTTP/1.1 400 Bad Request\n\n{}\n--batchresponse_1--\n";
        assert_eq!(statuses(alone), Some(vec![400]));
    }

    #[test]
    fn an_answer_may_end_with_its_headers() {
        let body =
            "--batchresponse_1\nContent-Type: application/http\n\nHTTP/1.1 204 No Content\nx: y\n--batchresponse_1--\n";
        assert_eq!(statuses(body), Some(vec![204]));
    }

    #[test]
    fn what_is_no_batch_answer_is_none() {
        assert!(decode("application/json", b"{}").is_none());
        assert_eq!(
            statuses("--batchresponse_1\nContent-Type: application/http\n\nnonsense\n--batchresponse_1--\n"),
            None
        );
    }

    #[test]
    fn parts_are_written_with_crlf_and_their_own_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("if-match", HeaderValue::from_static("*"));
        let part = Part {
            method: Method::PATCH,
            path: "accounts(1)".to_owned(),
            headers,
            body: b"{}".to_vec(),
            expected: Expected::Anything,
        };
        let (body, kind) = encode(&[part], |path| format!("/api/data/v9.2/{path}"));
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("\r\n\r\nPATCH /api/data/v9.2/accounts(1) HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("\r\nif-match: *\r\n\r\n{}\r\n--batch_") && text.ends_with("--\r\n"), "{text}");
        assert!(kind.starts_with("multipart/mixed; boundary=\"batch_"));
    }
}
