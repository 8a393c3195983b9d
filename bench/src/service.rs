//! The simulated service: web servers with the emulator's limits and costs, and what befalls them.
//!
//! The law is the emulator's ([`flowgate_emulator::model`]), profile `realistic`; nothing of it is
//! known to the client. Times are simulated seconds. Left out: HTTP and rows.

use std::collections::VecDeque;

use flowgate_emulator::model::{LimitKind, Limits, Message, Profile, ProfileName, Random, Remaining, Work};
use uuid::Uuid;

use crate::Error;

/// The application user that all requests belong to.
const USER: Uuid = Uuid::nil();

/// The largest affinity cookie number; a server that was removed is never given its number again.
type ServerId = u16;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    limits: Limits,
    /// How much slower than the profile it works.
    pub(crate) slow: f64,
    pub(crate) is_up: bool,
    /// Milliseconds that running requests will be charged.
    pending_ms: f64,
    /// What interactive calls took, by when they ended; the last window counts.
    interactive: VecDeque<(f64, f64)>,
    interactive_ms: f64,
    /// Rises with each restart, so that requests that were cut are not charged.
    life: u32,
}

/// A request that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    pub(crate) server: ServerId,
    pub(crate) ends_s: f64,
    pub(crate) busy_ms: f64,
    is_single: bool,
    life: u32,
    remaining: Remaining,
}

/// What the client sees of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) kind: AnswerKind,
    pub(crate) duration_s: f64,
    pub(crate) server: Option<u16>,
    pub(crate) remaining_s: Option<f64>,
    pub(crate) remaining_requests: Option<f64>,
    pub(crate) hint: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AnswerKind {
    Done,
    Refused {
        kind: LimitKind,
        retry_after_s: f64,
    },
    /// Nobody was there: not run.
    Unavailable,
    /// The server went away while it ran. As in the emulator its rows are there; nobody was told.
    Cut,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) servers: Vec<Server>,
    profile: Profile,
    pub(crate) random: Random,
    limit_draws: Random,
    draws_limits: bool,
    next_id: ServerId,
    pub(crate) has_headers: bool,
    /// The limits as headers tell them, in true ones.
    pub(crate) told_limits: f64,
    /// Spread of the cost of rows from request to request.
    pub(crate) row_sigma: f64,
    /// Interactive calls are charged and never refused: the oracle's world, in which batches get
    /// exactly what physics leaves them.
    pub(crate) spares_interactive: bool,
}

impl Service {
    pub(crate) fn new(servers: u16, seed: u64, draws_limits: bool) -> Result<Self, Error> {
        let profile = Profile::named(ProfileName::Realistic).map_err(Error::Profile)?;
        let random = Random::new(seed);
        let limit_draws = Random::new(seed ^ 0x0011_4175);
        let mut service = Self {
            servers: Vec::new(),
            profile,
            random,
            limit_draws,
            draws_limits,
            next_id: 0,
            has_headers: true,
            told_limits: 1.0,
            row_sigma: 0.0,
            spares_interactive: false,
        };
        for _ in 0..servers {
            service.add_server();
        }
        Ok(service)
    }

    /// Another server, with limits drawn from 0.5, 1 and 1.5 times the documented ones.
    pub(crate) fn add_server(&mut self) {
        // Drawn apart, so that a server has the same limits whatever was sent before it came.
        let drawn = [0.5, 1.0, 1.5][self.limit_draws.below(3) as usize];
        let factor = if self.draws_limits { drawn } else { 1.0 };
        let mut server = Server {
            id: self.next_id,
            limits: Limits::new(self.profile.limits.clone()),
            slow: 1.0,
            is_up: true,
            pending_ms: 0.0,
            interactive: VecDeque::new(),
            interactive_ms: 0.0,
            life: 0,
        };
        server.scale_limits(factor);
        self.servers.push(server);
        self.next_id += 1;
    }

    /// Takes servers away, the newest first; what runs there still ends.
    pub(crate) fn remove_servers(&mut self, left: usize) {
        self.servers.truncate(left);
    }

    pub(crate) fn scale_limits(&mut self, factor: f64) {
        for server in &mut self.servers {
            server.scale_limits(factor);
        }
    }

    pub(crate) fn stop_server(&mut self, index: usize) {
        let Some(server) = self.servers.get_mut(index) else { return };
        server.is_up = false;
        server.life += 1;
        server.pending_ms = 0.0;
    }

    /// The server is back and has forgotten everything.
    pub(crate) fn start_server(&mut self, index: usize) {
        let settings = self.profile.limits.clone();
        let Some(server) = self.servers.get_mut(index) else { return };
        let scaled = server.limits.settings.clone();
        server.limits = Limits::new(settings);
        server.limits.settings = scaled;
        server.interactive.clear();
        server.interactive_ms = 0.0;
        server.is_up = true;
    }

    pub(crate) fn server(&mut self, id: ServerId) -> Option<&mut Server> {
        self.servers.iter_mut().find(|server| server.id == id)
    }

    /// Sends a request: it runs, or is answered at once.
    pub(crate) fn send(&mut self, now_s: f64, cookie: Option<u16>, work: Work) -> Result<Running, Answer> {
        let id = self.route(cookie);
        let (noise, uneven) = (self.random.normal(), self.random.normal());
        let round_trip_s = self.profile.round_trip_ms / 1_000.0;
        let hint = self.hint();
        let spread = if work.rows > 1 { self.row_sigma } else { 0.0 };
        let uneven = (spread * uneven - spread * spread / 2.0).exp();
        let (profile, spares, is_single) =
            (self.profile.clone(), self.spares_interactive, work.message == Message::Single);
        let answer = |kind, server| Answer {
            kind,
            duration_s: round_trip_s,
            server,
            remaining_s: None,
            remaining_requests: None,
            hint,
        };
        let server = match self.server(id) {
            Some(server) if server.is_up => server,
            _ => return Err(answer(AnswerKind::Unavailable, None)),
        };
        // A user of their own, whose counters refuse nobody; what they take is looked at beside.
        let user = if spares && is_single { (Uuid::max(), 0) } else { (USER, 0) };
        let remaining = server.limits.admit(user, now_s).map_err(|refusal| {
            let retry_after_s = refusal.retry_after_s as f64;
            answer(AnswerKind::Refused { kind: refusal.kind, retry_after_s }, Some(id))
        })?;
        let running = server.limits.running_on(0);
        let busy_ms = profile.service_ms(work, running, noise) * server.slow * uneven;
        server.pending_ms += if is_single { 0.0 } else { busy_ms };
        let ends_s = now_s + busy_ms / 1_000.0 + round_trip_s;
        Ok(Running { server: id, ends_s, busy_ms, is_single, life: server.life, remaining })
    }

    /// A request that [`Self::send`] let run is over.
    pub(crate) fn finish(&mut self, now_s: f64, sent_s: f64, running: &Running) -> Answer {
        let (hint, has_headers, spares) = (self.hint(), self.has_headers, self.spares_interactive);
        let told_limits = self.told_limits;
        let (mut kind, mut told_more_s) = (AnswerKind::Done, 0.0);
        if let Some(server) = self.server(running.server) {
            told_more_s = (told_limits - 1.0) * server.limit_ms() / 1_000.0;
            if server.life == running.life {
                let user = if spares && running.is_single { (Uuid::max(), 0) } else { (USER, 0) };
                server.limits.finish(user, now_s, running.busy_ms);
                if running.is_single {
                    server.interactive.push_back((now_s, running.busy_ms));
                    server.interactive_ms += running.busy_ms;
                } else {
                    server.pending_ms = (server.pending_ms - running.busy_ms).max(0.0);
                }
            } else {
                kind = AnswerKind::Cut;
            }
        }
        let is_told = has_headers && kind == AnswerKind::Done;
        Answer {
            kind,
            duration_s: now_s - sent_s,
            server: (kind == AnswerKind::Done).then_some(running.server),
            remaining_s: is_told.then_some((running.remaining.execution_s + told_more_s).max(0.0)),
            remaining_requests: is_told.then_some(f64::from(running.remaining.requests)),
            hint,
        }
    }

    /// The server of the cookie if there is one, or any that works.
    fn route(&mut self, cookie: Option<u16>) -> ServerId {
        if let Some(server) = cookie.and_then(|id| self.server(id)) {
            return server.id;
        }
        let working: Vec<ServerId> =
            self.servers.iter().filter(|server| server.is_up).map(|server| server.id).collect();
        let any = self.random.below(working.len() as u64) as usize;
        working.get(any).or(self.servers.first().map(|server| &server.id)).copied().unwrap_or_default()
    }

    fn hint(&self) -> u32 {
        self.servers.len() as u32 * u32::from(self.profile.dop_hint_per_server)
    }
}

impl Server {
    fn scale_limits(&mut self, factor: f64) {
        let settings = &mut self.limits.settings;
        settings.requests = settings.requests.map(|limit| (f64::from(limit) * factor) as u32);
        settings.execution_ms = settings.execution_ms.map(|limit| limit * factor);
        settings.concurrent = settings.concurrent.map(|limit| (f64::from(limit) * factor) as u32);
    }

    /// Milliseconds that a request may still take without reaching the limit, knowing everything.
    pub(crate) fn left_ms(&mut self, now_s: f64) -> f64 {
        let (requests, busy_ms, is_blocked) = self.limits.used((USER, 0), now_s);
        let limit = self.limit_ms();
        let has_requests = self.limits.settings.requests.is_none_or(|limit| requests + 10 < limit as usize);
        let has_place = self.limits.settings.concurrent.is_none_or(|limit| self.running() + 2 < limit);
        if !self.is_up || is_blocked || !has_requests || !has_place { 0.0 } else { limit - busy_ms - self.pending_ms }
    }

    /// Milliseconds of the last window that interactive calls took.
    pub(crate) fn interactive_ms(&mut self, now_s: f64) -> f64 {
        while let Some((_, busy_ms)) = self.interactive.pop_front_if(|(at_s, _)| *at_s <= now_s - 300.0) {
            self.interactive_ms -= busy_ms;
        }
        self.interactive_ms
    }

    pub(crate) fn limit_ms(&self) -> f64 {
        self.limits.settings.execution_ms.unwrap_or(f64::MAX)
    }

    pub(crate) fn running(&self) -> u32 {
        self.limits.running_on(0)
    }
}

/// A create of so many rows by CreateMultiple.
pub(crate) fn create(rows: usize) -> Work {
    Work { message: Message::CreateMultiple, rows: rows as u64, extra_ms: 0.0 }
}

/// What a person does: one row.
pub(crate) fn single() -> Work {
    Work { message: Message::Single, rows: 1, extra_ms: 0.0 }
}

/// A read of so many rows.
pub(crate) fn read(rows: usize) -> Work {
    Work { message: Message::Read, rows: rows as u64, extra_ms: 0.0 }
}

/// Single-row messages in a `$batch`.
pub(crate) fn parts(rows: usize) -> Work {
    Work { message: Message::Batch, rows: rows as u64, extra_ms: 0.0 }
}
