//! Whether a success was earned: by its status and form, by the ids it names, and by the marks of the service.
//!
//! A proxy, a cache or a page for people can say 200 or 204 in the service's place. A row counts as written only when
//! the answer is what its message is answered with; everything else has an unknown end, and the destination is asked.
//!
//! Marks are headers that an intermediary does not make up. No two environments need send the same with each message,
//! so they are learnt: from the first answer of each kind that its form proves, or, where the form proves little (an
//! empty 204), that carries a mark at all. Answers that carry none where reads do are looked up; when a few of a kind
//! turned out true and none false, the kind is taken to have no marks.
//!
//! Promised: no request more while the answers are what they should be.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use flowgate_core::{Code, ConnectorError, ErrorKind};
use flowgate_http::Answer;
use http::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use crate::fault::is_html;

/// How the client names its request; a service that repeats the name says which request it answers.
pub(crate) const REQUEST_NAME: &str = "x-ms-client-request-id";

/// What a call must be answered with to count.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// Whatever comes: for those who study the service.
    Anything,
    /// JSON of this environment, about this set where one is named.
    Json {
        set: Option<String>,
    },
    /// The row of this id, of this set.
    Created {
        set: String,
        id: Uuid,
    },
    Updated {
        set: String,
        id: Uuid,
    },
    Deleted,
    /// An action that answers nothing.
    Acted,
    /// CreateMultiple of these ids.
    CreatedMultiple {
        ids: Vec<Uuid>,
    },
    /// UpdateMultiple of these ids: nothing, or the ids again.
    UpdatedMultiple {
        ids: Vec<Uuid>,
    },
    /// A multipart answer; its parts are looked at one by one.
    Batch,
}

/// The kinds of messages that are learnt apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Create,
    Update,
    Delete,
    Action,
    CreateMultiple,
    UpdateMultiple,
    Batch,
}

const KINDS: usize = Kind::Batch as usize + 1;

/// Headers that only the service sends.
type Marks = u8;
const VERSION: Marks = 1;
const REQUEST_ID: Marks = 2;
const REQUEST_NAMED: Marks = 4;
const ROW_NAMED: Marks = 8;

/// So many unmarked answers of a kind must have proved true before their form alone is believed.
const CONFIRMED_MIN: u32 = 3;

/// So many request ids are remembered, to know an answer that comes a second time.
const REQUEST_IDS_MAX: usize = 256;

/// What is known of one kind.
#[derive(Debug, Default, Clone, Copy)]
struct Lesson {
    /// What its answers carry; `None` before the first that could be believed.
    marks: Option<Marks>,
    unmarked: u32,
    confirmed: u32,
    was_refuted: bool,
}

#[derive(Debug, Default)]
struct Memory {
    /// What contexts of this environment begin with, up to `/$metadata`.
    base: Option<String>,
    lessons: [Lesson; KINDS],
    request_ids: VecDeque<u64>,
}

/// What this connection has learnt of its service's answers.
#[derive(Debug, Default)]
pub(crate) struct Earned {
    memory: Mutex<Memory>,
}

#[derive(Deserialize)]
struct Context<'a> {
    #[serde(borrow, rename = "@odata.context")]
    context: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct IdList {
    #[serde(rename = "Ids")]
    ids: Vec<Uuid>,
}

impl Expected {
    fn kind(&self) -> Option<Kind> {
        match self {
            Self::Anything => None,
            Self::Json { .. } => Some(Kind::Read),
            Self::Created { .. } => Some(Kind::Create),
            Self::Updated { .. } => Some(Kind::Update),
            Self::Deleted => Some(Kind::Delete),
            Self::Acted => Some(Kind::Action),
            Self::CreatedMultiple { .. } => Some(Kind::CreateMultiple),
            Self::UpdatedMultiple { .. } => Some(Kind::UpdateMultiple),
            Self::Batch => Some(Kind::Batch),
        }
    }

    /// Whether a part of a batch is the answer to its request. The batch around it carries the marks.
    pub(crate) fn fits_part(&self, answer: &Answer) -> bool {
        self.form(answer, None).is_ok()
    }

    /// Whether the answer has the form of the message; true inside if the form proves that the service made it.
    fn form(&self, answer: &Answer, base: Option<&str>) -> Result<bool, String> {
        if let Some(error) = error_of(answer) {
            return Err(error);
        }
        match self {
            Self::Anything => Ok(true),
            Self::Json { set } => read_form(answer, base, set.as_deref()).map(|()| true),
            Self::Created { set, id } => {
                has_status(answer, &[StatusCode::NO_CONTENT, StatusCode::CREATED])?;
                match named_row(answer, set, *id) {
                    Some(true) => Ok(true),
                    Some(false) => Err("it names another row".to_owned()),
                    None => Err("it does not name the row".to_owned()),
                }
            }
            Self::Updated { set, id } => {
                has_status(answer, &[StatusCode::NO_CONTENT])?;
                match named_row(answer, set, *id) {
                    Some(false) => Err("it names another row".to_owned()),
                    named => Ok(named.is_some()),
                }
            }
            Self::Deleted | Self::Acted => has_status(answer, &[StatusCode::NO_CONTENT]).map(|()| false),
            Self::CreatedMultiple { ids } => has_ids(answer, ids).map(|()| true),
            Self::UpdatedMultiple { .. } if answer.status == StatusCode::NO_CONTENT => Ok(false),
            Self::UpdatedMultiple { ids } => has_ids(answer, ids).map(|()| true),
            Self::Batch => {
                has_status(answer, &[StatusCode::OK])?;
                let kind = answer.header("content-type").unwrap_or_default();
                if kind.starts_with("multipart/mixed") { Ok(true) } else { Err("it is no batch".to_owned()) }
            }
        }
    }
}

impl Earned {
    /// Learns from the first answer of the session, which was found to be one.
    pub(crate) fn meet(&self, answer: &Answer, request_name: &str) {
        let context = serde_json::from_slice::<Context<'_>>(&answer.body).ok().and_then(|body| body.context);
        let base = context.as_deref().and_then(|context| context.split_once("/$metadata"));
        let mut memory = self.memory();
        memory.base = base.map(|(base, _)| base.to_owned());
        memory.lessons[Kind::Read as usize].marks = Some(marks_of(answer, request_name) & !ROW_NAMED);
    }

    /// Whether a success may be believed; otherwise the error that says why not.
    pub(crate) fn judge(&self, expected: &Expected, answer: &Answer, request_name: &str) -> Result<(), ConnectorError> {
        let Some(kind) = expected.kind() else { return Ok(()) };
        let mut memory = self.memory();
        let judged = expected.form(answer, memory.base.as_deref()).and_then(|is_proof| {
            memory.refuse_other_requests(answer, request_name)?;
            memory.judge_marks(kind, is_proof, marks_of(answer, request_name))
        });
        judged.map_err(|reason| {
            let message = format!("an answer (status {}) is not the service's to this request: {reason}", answer.status);
            ConnectorError::new(ErrorKind::Transient, Code::UNEARNED_ANSWER, message)
                .hint("a proxy, a gateway or a cache between here and the environment does that; what such an answer says is not believed")
        })
    }

    /// What the destination showed of writes whose answers carried no mark: they were true, or one was not.
    pub(crate) fn looked_up(&self, expected: &Expected, was_true: bool) {
        let Some(kind) = expected.kind() else { return };
        let mut memory = self.memory();
        let lesson = &mut memory.lessons[kind as usize];
        if lesson.confirmed >= lesson.unmarked {
            return;
        }
        lesson.confirmed += 1;
        lesson.was_refuted |= !was_true;
        if lesson.confirmed >= CONFIRMED_MIN && !lesson.was_refuted && lesson.marks.is_none() {
            lesson.marks = Some(0);
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn refuse_other_requests(&mut self, answer: &Answer, request_name: &str) -> Result<(), String> {
        let other = || Err("it is the answer to another request".to_owned());
        if let Some(named) = answer.header(REQUEST_NAME) {
            return if named.eq_ignore_ascii_case(request_name) { Ok(()) } else { other() };
        }
        let Some(id) = request_id(answer) else { return Ok(()) };
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if self.request_ids.contains(&hash) {
            return other();
        }
        if self.request_ids.len() >= REQUEST_IDS_MAX {
            self.request_ids.pop_front();
        }
        self.request_ids.push_back(hash);
        Ok(())
    }

    fn judge_marks(&mut self, kind: Kind, is_proof: bool, marks: Marks) -> Result<(), String> {
        let are_reads_marked = self.lessons[Kind::Read as usize].marks.is_some_and(|marks| marks != 0);
        let lesson = &mut self.lessons[kind as usize];
        match lesson.marks {
            Some(0) => Ok(()),
            // Where the form is proof, one mark of those that there should be is enough.
            Some(needed) if (is_proof && marks & needed != 0) || marks & needed == needed => Ok(()),
            Some(_) => Err("it lacks marks that the service's answers carry".to_owned()),
            None if is_proof || marks != 0 || !are_reads_marked => {
                lesson.marks = Some(marks);
                Ok(())
            }
            None => {
                lesson.unmarked += 1;
                Err("it carries no mark of the service".to_owned())
            }
        }
    }
}

fn request_id(answer: &Answer) -> Option<&str> {
    answer.header("x-ms-service-request-id").or_else(|| answer.header("req_id"))
}

fn marks_of(answer: &Answer, request_name: &str) -> Marks {
    let mark = |is_there: bool, mark: Marks| if is_there { mark } else { 0 };
    mark(answer.headers.contains_key("odata-version"), VERSION)
        | mark(request_id(answer).is_some(), REQUEST_ID)
        | mark(answer.header(REQUEST_NAME).is_some_and(|name| name.eq_ignore_ascii_case(request_name)), REQUEST_NAMED)
        | mark(answer.headers.contains_key("odata-entityid"), ROW_NAMED)
}

fn has_status(answer: &Answer, wanted: &[StatusCode]) -> Result<(), String> {
    if wanted.contains(&answer.status) { Ok(()) } else { Err("its status is not that of the message".to_owned()) }
}

/// Whether `OData-EntityId` names this row; `None` without it.
fn named_row(answer: &Answer, set: &str, id: Uuid) -> Option<bool> {
    let named = answer.header("odata-entityid")?;
    Some(named.to_ascii_lowercase().ends_with(&format!("/{}({id})", set.to_ascii_lowercase())))
}

/// The ids of a bulk answer are those that were sent, whatever their order.
fn has_ids(answer: &Answer, sent: &[Uuid]) -> Result<(), String> {
    has_status(answer, &[StatusCode::OK])?;
    let IdList { mut ids } =
        serde_json::from_slice(&answer.body).map_err(|_| "it does not list the rows".to_owned())?;
    let mut sent = sent.to_vec();
    ids.sort_unstable();
    sent.sort_unstable();
    if ids == sent { Ok(()) } else { Err("it lists other rows than were sent".to_owned()) }
}

/// A page for people, and an error that calls itself a success.
fn error_of(answer: &Answer) -> Option<String> {
    if is_html(answer) {
        return Some("it is a web page".to_owned());
    }
    let body = answer.body.trim_ascii_start();
    let holds_error = body.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"error\""));
    holds_error.then(|| "it holds an error".to_owned())
}

fn read_form(answer: &Answer, base: Option<&str>, set: Option<&str>) -> Result<(), String> {
    has_status(answer, &[StatusCode::OK])?;
    let body = answer.body.trim_ascii();
    if !(body.starts_with(b"{") && body.ends_with(b"}")) {
        return Err("it is not JSON, or cut off".to_owned());
    }
    let Some(context) = context_of(body)? else {
        return if base.is_some() { Err("it does not say what it is about".to_owned()) } else { Ok(()) };
    };
    let Some((start, about)) = context.split_once("/$metadata#") else {
        return Err("it does not say what it is about".to_owned());
    };
    if base.is_some_and(|base| !base.eq_ignore_ascii_case(start)) {
        return Err("it is another environment's".to_owned());
    }
    match set {
        Some(set) if !is_about(about, set) => Err(format!("it is not about `{set}`")),
        _ => Ok(()),
    }
}

/// The context stands first wherever the service writes it; elsewhere the whole answer is read.
fn context_of(body: &[u8]) -> Result<Option<Cow<'_, str>>, String> {
    const FIRST: &[u8] = b"{\"@odata.context\":\"";
    if let Some(rest) = body.strip_prefix(FIRST) {
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        if let Some(end) = end.filter(|end| rest[*end] == b'"') {
            return Ok(std::str::from_utf8(&rest[..end]).ok().map(Cow::Borrowed));
        }
    }
    let read: Context<'_> = serde_json::from_slice(body).map_err(|_| "it is not JSON, or cut off".to_owned())?;
    Ok(read.context)
}

fn is_about(about: &str, set: &str) -> bool {
    let rest = about.get(..set.len()).filter(|start| start.eq_ignore_ascii_case(set)).map(|_| &about[set.len()..]);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['(', '/', '?']))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    const NAME: &str = "11111111-0000-4000-8000-000000000001";
    const VERSION_MARK: (&str, &str) = ("odata-version", "4.0");

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: map, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// A connection whose first answer carried a version and said where it is.
    fn met() -> Earned {
        let earned = Earned::default();
        let context = r#"{"@odata.context":"https://x/api/data/v9.2/$metadata#Microsoft.Dynamics.CRM.WhoAmIResponse"}"#;
        earned.meet(&answer(200, &[VERSION_MARK], context), NAME);
        earned
    }

    fn is_earned(earned: &Earned, expected: &Expected, answer: &Answer) -> bool {
        earned.judge(expected, answer, NAME).is_ok()
    }

    fn ids(count: u128) -> Vec<Uuid> {
        (1..=count).map(Uuid::from_u128).collect()
    }

    #[test]
    fn each_message_takes_its_own_status_and_form_and_no_other() {
        let row = || ("set".to_owned(), Uuid::from_u128(7));
        let named = format!("https://x/api/data/v9.2/SET({})", Uuid::from_u128(7));
        let list = serde_json::json!({ "Ids": [Uuid::from_u128(2), Uuid::from_u128(1)] }).to_string();
        let page = r#"{"@odata.context":"https://x/api/data/v9.2/$metadata#set(a,b)","value":[]}"#;
        let entity = ("odata-entityid", named.as_str());
        let multipart = ("content-type", "multipart/mixed; boundary=b");
        let answers = [
            answer(204, &[VERSION_MARK], ""),
            answer(204, &[VERSION_MARK, entity], ""),
            answer(200, &[VERSION_MARK], &list),
            answer(200, &[VERSION_MARK, multipart], "--b--"),
            answer(200, &[VERSION_MARK], page),
            answer(200, &[VERSION_MARK], ""),
            answer(202, &[VERSION_MARK, entity], ""),
            answer(200, &[VERSION_MARK], r#"{"error":{"code":"0x80040216"}}"#),
            answer(200, &[VERSION_MARK], "<html>signed out</html>"),
            answer(200, &[VERSION_MARK, ("content-type", "text/html")], page),
        ];
        let table: &[(Expected, &[usize])] = &[
            (Expected::Json { set: Some("set".to_owned()) }, &[4]),
            (Expected::Created { set: row().0, id: row().1 }, &[1]),
            (Expected::Updated { set: row().0, id: row().1 }, &[0, 1]),
            (Expected::Deleted, &[0, 1]),
            (Expected::Acted, &[0, 1]),
            (Expected::CreatedMultiple { ids: ids(2) }, &[2]),
            (Expected::UpdatedMultiple { ids: ids(2) }, &[0, 1, 2]),
            (Expected::Batch, &[3]),
        ];
        for (expected, earned) in table {
            for (at, answer) in answers.iter().enumerate() {
                assert_eq!(is_earned(&met(), expected, answer), earned.contains(&at), "{expected:?}, answer {at}");
            }
        }
    }

    #[test]
    fn other_rows_other_tables_and_other_environments_are_none_of_ours() {
        let set = Some("accounts".to_owned());
        for (context, is_ours) in [
            ("https://x/api/data/v9.2/$metadata#accounts(name)", true),
            ("https://x/api/data/v9.2/$metadata#accounts/$delta", true),
            ("https://x/api/data/v9.2/$metadata#accountsplus", false),
            ("https://x/api/data/v9.2/$metadata#contacts", false),
            ("https://y/api/data/v9.2/$metadata#accounts", false),
            ("accounts", false),
        ] {
            for body in [
                serde_json::json!({ "@odata.context": context, "value": [] }).to_string(),
                format!("{{\"value\": [], \"@odata.context\": \"{context}\"}}"),
            ] {
                let page = answer(200, &[VERSION_MARK], &body);
                assert_eq!(is_earned(&met(), &Expected::Json { set: set.clone() }, &page), is_ours, "{body}");
                let cut = answer(200, &[VERSION_MARK], &body[..body.len() - 1]);
                assert!(!is_earned(&met(), &Expected::Json { set: set.clone() }, &cut));
            }
        }
        let list = |ids: &[Uuid]| answer(200, &[VERSION_MARK], &serde_json::json!({ "Ids": ids }).to_string());
        let expected = Expected::CreatedMultiple { ids: ids(3) };
        assert!(is_earned(&met(), &expected, &list(&ids(3))));
        assert!(!is_earned(&met(), &expected, &list(&ids(2))));
        assert!(!is_earned(&met(), &expected, &list(&[Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(2)])));
    }

    #[test]
    fn an_empty_success_needs_a_mark_where_reads_have_one() {
        let earned = met();
        let (bare, marked) = (answer(204, &[], ""), answer(204, &[VERSION_MARK, ("req_id", "a")], ""));
        assert!(!is_earned(&earned, &Expected::Deleted, &bare));
        assert!(is_earned(&earned, &Expected::Deleted, &marked));
        assert!(
            !is_earned(&earned, &Expected::Deleted, &answer(204, &[VERSION_MARK], "")),
            "the request id was learnt"
        );
        // An environment without marks is taken as it is.
        let earned = Earned::default();
        earned.meet(&answer(200, &[], "{}"), NAME);
        assert!(is_earned(&earned, &Expected::Deleted, &bare));
    }

    #[test]
    fn a_kind_without_marks_is_believed_once_a_few_were_true_and_never_after_one_was_false() {
        let bare = answer(204, &[], "");
        for was_true in [true, false] {
            let earned = met();
            for turn in 0..CONFIRMED_MIN {
                assert!(!is_earned(&earned, &Expected::Deleted, &bare));
                earned.looked_up(&Expected::Deleted, was_true || turn > 0);
            }
            assert_eq!(is_earned(&earned, &Expected::Deleted, &bare), was_true);
        }
    }

    #[test]
    fn an_answer_to_another_request_is_known_by_its_name_or_by_coming_twice() {
        let earned = met();
        let named = |name: &str| answer(204, &[VERSION_MARK, (REQUEST_NAME, name)], "");
        assert!(is_earned(&earned, &Expected::Deleted, &named(NAME)));
        assert!(!is_earned(&earned, &Expected::Deleted, &named("22222222-0000-4000-8000-000000000002")));
        let earned = met();
        let numbered = answer(204, &[VERSION_MARK, ("x-ms-service-request-id", "a")], "");
        assert!(is_earned(&earned, &Expected::Deleted, &numbered));
        assert!(!is_earned(&earned, &Expected::Deleted, &numbered));
    }
}
