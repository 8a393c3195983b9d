//! What lies between the binary and the service: connections that a relay breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::forger::{Forger, Forgery};

/// What the relay does to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trouble {
    None,
    /// Every second connection ends when its first answer should come.
    CloseEverySecond,
    /// Every answer comes twice.
    AnswerTwice,
    /// Every second answer stops after a few bytes, and so does the connection.
    CutAnswers,
}

impl Trouble {
    fn from_byte(byte: u8) -> Self {
        let all = [Self::None, Self::CloseEverySecond, Self::AnswerTwice, Self::CutAnswers];
        all.into_iter().find(|trouble| *trouble as u8 == byte).unwrap_or(Self::None)
    }
}

#[derive(Default)]
struct Shared {
    trouble: AtomicU8,
    connections: AtomicU64,
    answers: AtomicU64,
    hits: AtomicU64,
    forger: Forger,
}

/// A relay on a port of its own.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

/// Of one read from the service.
const BUFFER_BYTES: usize = 64 * 1024;
/// What is left of an answer that is cut: not even its headers.
const CUT_BYTES: usize = 100;

impl Relay {
    pub(crate) fn start(runtime: &Runtime, service: SocketAddr) -> Result<Self> {
        let listener = runtime.block_on(TcpListener::bind((service.ip(), 0)))?;
        let relay = Self { address: listener.local_addr()?, shared: Arc::default() };
        let shared = Arc::clone(&relay.shared);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, service, Arc::clone(&shared)));
            }
        });
        Ok(relay)
    }

    pub(crate) fn set(&self, trouble: Trouble) {
        self.shared.trouble.store(trouble as u8, Ordering::SeqCst);
        self.shared.hits.store(0, Ordering::SeqCst);
    }

    /// Lets an intermediary answer some requests.
    pub(crate) fn forge(&self, forgery: Option<Forgery>) {
        self.shared.forger.set(forgery);
        if forgery.is_some() {
            self.shared.hits.store(0, Ordering::SeqCst);
        }
    }

    /// How often there was trouble since it was set.
    pub(crate) fn hits(&self) -> u64 {
        self.shared.hits.load(Ordering::SeqCst)
    }
}

/// Relays one connection. Whatever fails ends it, as on any network.
async fn serve(mut client: TcpStream, service: SocketAddr, shared: Arc<Shared>) -> Option<()> {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    if let Some(forgery) = shared.forger.forgery() {
        let was_forged = shared.forger.exchange(&mut client, service, forgery).await?;
        shared.hits.fetch_add(u64::from(was_forged), Ordering::SeqCst);
        return None;
    }
    let mut service = TcpStream::connect(service).await.ok()?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_service, mut to_service) = service.split();
    let requests = tokio::io::copy(&mut from_client, &mut to_service);
    let answers = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let length = from_service.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            let bytes = &buffer[..length];
            let is_odd = shared.answers.fetch_add(1, Ordering::SeqCst) % 2 == 1;
            let trouble = Trouble::from_byte(shared.trouble.load(Ordering::SeqCst));
            let has_hit = match trouble {
                Trouble::None => false,
                Trouble::CloseEverySecond => number % 2 == 1,
                Trouble::AnswerTwice => true,
                Trouble::CutAnswers => is_odd,
            };
            shared.hits.fetch_add(u64::from(has_hit), Ordering::SeqCst);
            match trouble {
                Trouble::CloseEverySecond if has_hit => return None,
                Trouble::CutAnswers if has_hit => {
                    to_client.write_all(&bytes[..length.min(CUT_BYTES)]).await.ok()?;
                    return None;
                }
                Trouble::AnswerTwice => to_client.write_all(bytes).await.ok()?,
                _ => {}
            }
            to_client.write_all(bytes).await.ok()?;
        }
    };
    tokio::select! {
        _ = requests => None,
        ended = answers => ended,
    }
}
