//! Who loads: Flowgate's policy, the oracle, or a tool with fixed settings.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;
use flowgate_dataverse::budget::{
    AnswerFacts, Cost, Ended, Grant, Policy, PolicySettings, Throttled, ThrottledBy, Verdict,
};
use flowgate_dataverse::cost::{CostModel, ErrorRate, Message, batch_rows};
use flowgate_emulator::model::{LimitKind, Work};

use crate::service::{Answer, AnswerKind, Server, Service, create, read, single};

/// A request to send. What belongs to its answer is the client's own.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) cookie: Option<u16>,
    pub(crate) work: Work,
    /// Rows to load among those of the work.
    pub(crate) rows: u64,
    pub(crate) grant: Option<Grant>,
}

impl Outgoing {
    fn load(cookie: Option<u16>, work: Work) -> Self {
        Self { cookie, work, rows: work.rows, grant: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Next {
    Send(Outgoing),
    At(f64),
    AfterCompletion,
}

pub(crate) trait Client {
    /// The next batch. Only the oracle looks into the service.
    fn batch(&mut self, now_s: f64, service: &mut Service) -> Next;

    fn interactive(&mut self, now_s: f64, service: &mut Service) -> Next;

    fn sent(&mut self, ticket: u64, outgoing: Outgoing);

    fn answered(&mut self, now_s: f64, ticket: u64, answer: &Answer);

    /// Whether it lets callers wait until there is room; otherwise each waits for its own `Retry-After`.
    fn holds_callers(&self) -> bool {
        true
    }
}

/// Flowgate: the real policy and the real model of costs.
pub(crate) struct Paced {
    policy: Policy,
    model: CostModel,
    under_way: HashMap<u64, (Grant, Work)>,
    interactive_busy: Duration,
    is_interactive_waiting: bool,
    /// Reads that are due to find out which rows of requests that were cut are there.
    probes: usize,
}

/// Ids in one address, and what the loader expects such a read to take.
const PROBED_ROWS: usize = 279;
const PROBE_BUSY: Duration = Duration::from_millis(50);

impl Paced {
    pub(crate) fn new(seed: u64) -> Self {
        let policy = Policy::new(&PolicySettings { users: 1, daily: None, seed });
        let model = Message::CreateMultiple.first_model();
        Self {
            policy,
            model,
            under_way: HashMap::new(),
            interactive_busy: Duration::from_millis(40),
            is_interactive_waiting: false,
            probes: 0,
        }
    }

    fn ask(&mut self, now_s: f64, class: Class, busy: Duration, work: Work, rows: u64) -> Next {
        let cost = Cost { busy, entitlement: work.rows };
        match self.policy.ask(at(now_s), class, cost) {
            Verdict::Admitted(grant) => {
                let cookie = grant.cookie.as_ref().and_then(|cookie| cookie.parse().ok());
                let (work, rows) = if grant.is_trial { (single(), 0) } else { (work, rows) };
                Next::Send(Outgoing { cookie, work, rows, grant: Some(grant) })
            }
            Verdict::NotBefore(moment) => Next::At(moment.0.as_secs_f64()),
            Verdict::AfterCompletion | Verdict::DailyBudgetUsed { .. } => Next::AfterCompletion,
        }
    }
}

fn at(now_s: f64) -> Elapsed {
    Elapsed(Duration::from_secs_f64(now_s))
}

impl Client for Paced {
    fn batch(&mut self, now_s: f64, _service: &mut Service) -> Next {
        if self.probes > 0 {
            let next = self.ask(now_s, Class::Batch, PROBE_BUSY, read(PROBED_ROWS), 0);
            if matches!(&next, Next::Send(outgoing) if outgoing.work.message == read(1).message) {
                self.probes -= 1;
            }
            return next;
        }
        let rows = batch_rows(&self.model, ErrorRate::default().get());
        let busy = Duration::from_secs_f64(self.model.seconds(rows as f64));
        self.ask(now_s, Class::Batch, busy, create(rows), rows as u64)
    }

    fn interactive(&mut self, now_s: f64, _service: &mut Service) -> Next {
        let next = self.ask(now_s, Class::Interactive, self.interactive_busy, single(), 1);
        let is_served = matches!(&next, Next::Send(outgoing) if outgoing.rows > 0);
        match (is_served, self.is_interactive_waiting) {
            (true, true) => self.policy.stop_waiting(Class::Interactive),
            (false, false) => self.policy.start_waiting(Class::Interactive),
            (true, false) | (false, true) => {}
        }
        self.is_interactive_waiting = !is_served;
        next
    }

    fn sent(&mut self, ticket: u64, outgoing: Outgoing) {
        if let Some(grant) = outgoing.grant {
            self.under_way.insert(ticket, (grant, outgoing.work));
        }
    }

    fn answered(&mut self, now_s: f64, ticket: u64, answer: &Answer) {
        let Some((grant, work)) = self.under_way.remove(&ticket) else { return };
        let ended = ended(answer);
        let busy = self.policy.complete(at(now_s), &grant, &ended);
        let (is_create, is_probe) = (work.message == create(1).message, work.message == read(1).message);
        match answer.kind {
            AnswerKind::Done if is_create => self.model.observe(work.rows as f64, busy.as_secs_f64()),
            // A write is never guessed: the destination is asked which of its rows are there.
            AnswerKind::Cut if is_create => self.probes += (work.rows as usize).div_ceil(PROBED_ROWS),
            AnswerKind::Cut | AnswerKind::Unavailable | AnswerKind::Refused { .. } if is_probe => self.probes += 1,
            _ => {}
        }
    }
}

fn ended(answer: &Answer) -> Ended {
    let facts = AnswerFacts {
        duration: Duration::from_secs_f64(answer.duration_s),
        cookie: answer.server.map(|server| Arc::from(server.to_string())),
        remaining_seconds: answer.remaining_s,
        remaining_requests: answer.remaining_requests,
        parallel_hint: Some(answer.hint),
    };
    match answer.kind {
        AnswerKind::Done => Ended::Answered(facts),
        AnswerKind::Unavailable | AnswerKind::Cut => Ended::Unavailable(facts),
        AnswerKind::Refused { kind, retry_after_s } => {
            let kind = match kind {
                LimitKind::Requests => ThrottledBy::Requests,
                LimitKind::ExecutionTime => ThrottledBy::ExecutionTime,
                LimitKind::Concurrency => ThrottledBy::Concurrency,
            };
            Ended::Throttled(facts, Throttled { kind, retry_after: Some(Duration::from_secs_f64(retry_after_s)) })
        }
    }
}

/// Knows the service's own counters and sends whenever they leave room. Its interactive callers are
/// never refused and never wait, and what they take is taken off: it is what physics allows.
pub(crate) struct Oracle {
    pub(crate) rows: usize,
}

/// A server that runs more at once than this slows down, and charges more for the same.
const ORACLE_PARALLEL: u32 = 16;

impl Client for Oracle {
    fn batch(&mut self, now_s: f64, service: &mut Service) -> Next {
        let rows = self.rows;
        let fits = |server: &mut Server| {
            let cost_ms = (30.0 + 10.0 * rows as f64) * server.slow;
            let left_ms = server.left_ms(now_s) - server.interactive_ms(now_s);
            server.running() < ORACLE_PARALLEL && left_ms >= cost_ms
        };
        match service.servers.iter_mut().position(fits) {
            Some(index) => Next::Send(Outgoing::load(Some(service.servers[index].id), create(rows))),
            None => Next::At(now_s + 0.05),
        }
    }

    fn interactive(&mut self, now_s: f64, service: &mut Service) -> Next {
        let open = service.servers.iter_mut().filter(|server| server.is_up);
        let share = |server: &mut Server| (server.interactive_ms(now_s) / server.limit_ms(), server.id);
        match open.map(share).min_by(|one, other| one.0.total_cmp(&other.0)) {
            Some((_, id)) => Next::Send(Outgoing::load(Some(id), single())),
            None => Next::At(now_s + 0.05),
        }
    }

    fn sent(&mut self, _ticket: u64, _outgoing: Outgoing) {}

    fn answered(&mut self, _now_s: f64, _ticket: u64, _answer: &Answer) {}
}

/// A tool with so many threads and so many rows to a request; each thread waits when it is told to.
/// Callers beside it are its own affair: they send at once, and wait when they are refused.
pub(crate) struct Fixed {
    threads: u32,
    work: Work,
    busy: u32,
    /// Threads that wait, until when.
    asleep: Vec<f64>,
    /// Requests of its threads; all others are callers'.
    under_way: HashSet<u64>,
    is_batch: bool,
}

impl Fixed {
    pub(crate) fn new(threads: u32, work: Work) -> Self {
        Self { threads, work, busy: 0, asleep: Vec::new(), under_way: HashSet::new(), is_batch: false }
    }
}

impl Client for Fixed {
    fn batch(&mut self, now_s: f64, _service: &mut Service) -> Next {
        self.is_batch = true;
        self.asleep.retain(|until_s| *until_s > now_s);
        if self.busy + (self.asleep.len() as u32) < self.threads {
            self.busy += 1;
            return Next::Send(Outgoing::load(None, self.work));
        }
        self.asleep.iter().copied().reduce(f64::min).map_or(Next::AfterCompletion, Next::At)
    }

    fn interactive(&mut self, _now_s: f64, _service: &mut Service) -> Next {
        self.is_batch = false;
        Next::Send(Outgoing::load(None, single()))
    }

    fn sent(&mut self, ticket: u64, _outgoing: Outgoing) {
        if self.is_batch {
            self.under_way.insert(ticket);
        }
    }

    fn answered(&mut self, now_s: f64, ticket: u64, answer: &Answer) {
        if !self.under_way.remove(&ticket) {
            return;
        }
        self.busy = self.busy.saturating_sub(1);
        match answer.kind {
            AnswerKind::Done => {}
            AnswerKind::Refused { retry_after_s, .. } => self.asleep.push(now_s + retry_after_s),
            AnswerKind::Unavailable | AnswerKind::Cut => self.asleep.push(now_s + 1.0),
        }
    }

    fn holds_callers(&self) -> bool {
        false
    }
}
