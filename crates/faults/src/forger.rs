//! An intermediary that answers in the service's place: one HTTP exchange at a time, some of them forged.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is said in the service's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    Empty200,
    Accepted,
    NoContent,
    /// An error, and a status that says it is none.
    ErrorWith200,
    /// A page for people that does not say that it is one.
    Page,
    /// Well-formed JSON without anything in it.
    EmptyCollection,
    /// The service's own answer to the write before, or to the read before.
    OlderAnswer,
    /// What was sent, sent back.
    Echo,
}

/// Which requests are lied about, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forgery {
    pub(crate) lie: Lie,
    /// The service gets the request all the same; only its answer is replaced.
    pub(crate) passes_on: bool,
    /// Reads instead of writes.
    pub(crate) is_of_reads: bool,
    /// One in so many.
    pub(crate) one_in: u64,
}

/// What the forger has seen.
#[derive(Default)]
pub(crate) struct Forger {
    forgery: Mutex<Option<Forgery>>,
    exchanges: AtomicU64,
    older: Mutex<Option<Vec<u8>>>,
}

struct Message {
    head: String,
    whole: Vec<u8>,
}

/// The longest request that is read.
const REQUEST_BYTES_MAX: usize = 64 << 20;

impl Forger {
    pub(crate) fn set(&self, forgery: Option<Forgery>) {
        *self.forgery.lock().unwrap_or_else(PoisonError::into_inner) = forgery;
        *self.older.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.exchanges.store(0, Ordering::SeqCst);
    }

    pub(crate) fn forgery(&self) -> Option<Forgery> {
        *self.forgery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays one exchange of a connection and says whether it was forged; `None` when the connection is over.
    pub(crate) async fn exchange(
        &self,
        client: &mut TcpStream,
        service: std::net::SocketAddr,
        forgery: Forgery,
    ) -> Option<bool> {
        let request = read_request(client).await?;
        let is_concerned = is_concerned(&request.head, forgery.is_of_reads);
        let is_turn =
            is_concerned && self.exchanges.fetch_add(1, Ordering::SeqCst) % forgery.one_in == forgery.one_in - 1;
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lie = is_turn.then(|| lie(forgery.lie, &request, older)).flatten();
        let told = match (&lie, forgery.passes_on) {
            (Some(_), false) => None,
            _ => Some(ask(service, &request).await?),
        };
        if let Some(told) = told.as_ref().filter(|_| is_concerned) {
            *self.older.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.clone());
        }
        client.write_all(lie.as_ref().or(told.as_ref())?).await.ok()?;
        client.shutdown().await.ok()?;
        Some(lie.is_some())
    }
}

/// Requests for rows: the rest (sign-in, definitions) is not what this is about.
fn is_concerned(head: &str, is_of_reads: bool) -> bool {
    let line = head.lines().next().unwrap_or_default();
    let is_of_rows = line.contains("/api/data/v9.2/accounts") || line.contains("/$batch");
    is_of_rows && line.starts_with("GET ") == is_of_reads
}

fn lie(lie: Lie, request: &Message, older: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let json = "content-type: application/json\r\n";
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let mut answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len())
                .into_bytes();
        answer.extend_from_slice(body);
        answer
    };
    Some(match lie {
        Lie::Empty200 => answer("200 OK", "", b""),
        Lie::Accepted => answer("202 Accepted", "", b""),
        Lie::NoContent => "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n".into(),
        Lie::ErrorWith200 => {
            answer("200 OK", json, br#"{"error":{"code":"0x80040216","message":"An unexpected error occurred."}}"#)
        }
        Lie::Page => answer("200 OK", "", b"<!doctype html><title>Signed out</title>"),
        Lie::EmptyCollection => answer("200 OK", json, br#"{"value":[]}"#),
        Lie::OlderAnswer => older?,
        Lie::Echo => {
            let body = &request.whole[request.head.len()..];
            answer("200 OK", json, body)
        }
    })
}

/// Asks the service, on a connection of its own that ends with the answer.
async fn ask(service: std::net::SocketAddr, request: &Message) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(service).await.ok()?;
    let lines: Vec<&str> = request.head.trim_end().split("\r\n").collect();
    let mut head = lines
        .iter()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .copied()
        .collect::<Vec<_>>()
        .join("\r\n");
    head.push_str("\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&request.whole[request.head.len()..]).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    (!answer.is_empty()).then_some(answer)
}

async fn read_request(client: &mut TcpStream) -> Option<Message> {
    let mut whole = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = client.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        whole.extend_from_slice(&buffer[..length]);
        let Some(end) = whole.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(whole[..end + 4].to_vec()).ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let wanted = head.len() + length.unwrap_or(0);
        if wanted > REQUEST_BYTES_MAX {
            return None;
        }
        while whole.len() < wanted {
            let length = client.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            whole.extend_from_slice(&buffer[..length]);
        }
        return Some(Message { head, whole });
    }
}
