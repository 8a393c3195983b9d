//! One simulated run: events in order of time, one client, its interactive callers, and the scenario.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use flowgate_emulator::model::{Message, Random, Work};

use crate::Error;
use crate::client::{Client, Next, Outgoing};
use crate::recorder::{Line, LineClass};
use crate::scenario::{Scenario, Step};
use crate::service::{Answer, AnswerKind, Running, Service, create};

/// Web servers at the start of a run.
const SERVERS: u16 = 4;

/// Interactive calls a second for each server.
const INTERACTIVE_PER_S: f64 = 5.0;

/// A caller who has not been served by then has gone: as long as the client itself holds a call.
const PATIENCE_S: f64 = 900.0;

/// A caller who waited longer noticed it.
const NOTICED_S: f64 = 1.0;

/// What the run showed.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Rows acknowledged in the measured time, and altogether.
    pub rows: u64,
    pub rows_all: u64,
    /// Requests sent and refused by a limit, of all classes.
    pub requests: u64,
    pub refused: u64,
    pub interactive_calls: u64,
    /// Callers that were not served at all.
    pub interactive_lost: u64,
    pub interactive_s: Vec<f64>,
    /// When the rows to load were all acknowledged, if there was an end.
    pub finished_s: Option<f64>,
    /// What a recorder would have written, if the run was recorded.
    pub lines: Vec<Line>,
}

impl Tally {
    /// The share of callers who waited longer than a second.
    pub fn interactive_held(&self) -> f64 {
        let held = self.interactive_s.iter().filter(|wait_s| **wait_s > NOTICED_S).count();
        held as f64 / (self.interactive_s.len() as f64).max(1.0)
    }

    /// The 95th percentile of what interactive callers waited.
    pub fn interactive_p95_s(&self) -> f64 {
        let mut waits = self.interactive_s.clone();
        waits.sort_by(f64::total_cmp);
        waits.get(waits.len() * 95 / 100).copied().unwrap_or(0.0)
    }

    pub fn refused_per_thousand(&self) -> f64 {
        1_000.0 * self.refused as f64 / (self.requests as f64).max(1.0)
    }
}

/// How long a run is and which part of it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from_s: f64,
    pub to_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Step(usize),
    Interactive,
    /// A caller who was refused has waited as told.
    Return {
        since_s: f64,
    },
    Second,
    Done(u64),
    Wake,
}

struct Sent {
    at_s: f64,
    cookie: Option<u16>,
    work: Work,
    running: Result<Running, Answer>,
    purpose: Purpose,
}

#[derive(Clone, Copy)]
enum Purpose {
    Batch { rows: u64 },
    Interactive { since_s: f64 },
    Second,
}

pub(crate) struct World<'a> {
    service: Service,
    client: &'a mut dyn Client,
    steps: Vec<(f64, Step)>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    kinds: HashMap<u64, Event>,
    sent: HashMap<u64, Sent>,
    waiting: VecDeque<f64>,
    next: u64,
    /// The next wake-up: its event and when.
    wake: (u64, f64),
    traffic: Random,
    has_batches: bool,
    has_interactive: bool,
    rows_left: Option<u64>,
    is_recorded: bool,
    second: Second,
    span: Span,
    tally: Tally,
}

/// The other client on the same user: a fixed rate, and it waits when it is told to.
#[derive(Default)]
struct Second {
    per_s: f64,
    closed_until_s: f64,
}

/// What goes on in a run besides the scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) has_batches: bool,
    pub(crate) has_interactive: bool,
    /// Rows to load; without a number there is no end to them.
    pub(crate) rows: Option<u64>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        scenario: Scenario,
        seed: u64,
        span: Span,
        load: Load,
        client: &'a mut dyn Client,
    ) -> Result<Self, Error> {
        let mut service = Service::new(SERVERS, seed, true)?;
        let mut traffic = Random::new(seed ^ 0x5eed);
        let steps = scenario.steps(&mut service, &mut traffic, span.to_s);
        Ok(Self::begin(service, traffic, steps, span, load, client))
    }

    /// The scenario with the limits as they are documented, and its steps for another service.
    pub(crate) fn with_documented_limits(
        scenario: Scenario,
        seed: u64,
        span: Span,
        load: Load,
        client: &'a mut dyn Client,
    ) -> Result<(Self, Vec<(f64, Step)>), Error> {
        let mut service = Service::new(SERVERS, seed, false)?;
        let mut traffic = Random::new(seed ^ 0x5eed);
        let mut steps = scenario.steps(&mut service, &mut traffic, span.to_s);
        steps.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok((Self::begin(service, traffic, steps.clone(), span, load, client), steps))
    }

    /// A service to which nothing happens, with the limits as they are documented.
    pub(crate) fn calm(
        servers: u16,
        seed: u64,
        span: Span,
        load: Load,
        client: &'a mut dyn Client,
    ) -> Result<Self, Error> {
        let service = Service::new(servers, seed, false)?;
        Ok(Self::begin(service, Random::new(seed ^ 0x5eed), Vec::new(), span, load, client))
    }

    fn begin(
        service: Service,
        traffic: Random,
        steps: Vec<(f64, Step)>,
        span: Span,
        load: Load,
        client: &'a mut dyn Client,
    ) -> Self {
        let mut world = Self {
            service,
            client,
            steps,
            events: BinaryHeap::new(),
            kinds: HashMap::new(),
            sent: HashMap::new(),
            waiting: VecDeque::new(),
            next: 0,
            wake: (0, f64::INFINITY),
            traffic,
            has_batches: load.has_batches,
            has_interactive: load.has_interactive,
            rows_left: load.rows,
            is_recorded: false,
            second: Second::default(),
            span,
            tally: Tally::default(),
        };
        for index in 0..world.steps.len() {
            world.at(world.steps[index].0, Event::Step(index));
        }
        if world.has_interactive {
            world.at(0.0, Event::Interactive);
        }
        world.wake_at(0.0);
        world
    }

    /// Interactive calls are charged and never refused.
    pub(crate) fn sparing_interactive(mut self) -> Self {
        self.service.spares_interactive = true;
        self
    }

    /// As if a recorder stood before the service.
    pub(crate) fn recorded(mut self) -> Self {
        self.is_recorded = true;
        self
    }

    pub(crate) fn run(mut self) -> Tally {
        while let Some(Reverse((at_us, number))) = self.events.pop() {
            let now_s = at_us as f64 / 1e6;
            if now_s > self.span.to_s || self.tally.finished_s.is_some() {
                break;
            }
            let Some(event) = self.kinds.remove(&number) else { continue };
            match event {
                Event::Step(index) => self.step(now_s, index),
                Event::Interactive => self.interactive(now_s),
                Event::Return { since_s } => self.waiting.push_back(since_s),
                Event::Second => self.second(now_s),
                Event::Done(ticket) => self.done(now_s, ticket),
                // A later wake-up that an earlier one made needless.
                Event::Wake if number != self.wake.0 => continue,
                Event::Wake => self.wake = (0, f64::INFINITY),
            }
            self.serve_interactive(now_s);
            self.send_batches(now_s);
        }
        self.tally
    }

    fn at(&mut self, at_s: f64, event: Event) {
        self.next += 1;
        self.kinds.insert(self.next, event);
        self.events.push(Reverse(((at_s.max(0.0) * 1e6).ceil() as u64, self.next)));
    }

    fn wake_at(&mut self, at_s: f64) {
        if at_s < self.wake.1 {
            self.at(at_s, Event::Wake);
            self.wake = (self.next, at_s);
        }
    }

    fn step(&mut self, now_s: f64, index: usize) {
        match self.steps[index].1 {
            Step::ScaleLimits(factor) => self.service.scale_limits(factor),
            Step::Slow(index, factor) => {
                if let Some(server) = self.service.servers.get_mut(index) {
                    server.slow = factor;
                }
            }
            Step::Stop(index) => self.service.stop_server(index),
            Step::Start(index) => self.service.start_server(index),
            Step::Servers(count) => {
                self.service.remove_servers(count);
                while self.service.servers.len() < count {
                    self.service.add_server();
                }
            }
            Step::Second(per_s) => {
                self.second.per_s = per_s;
                if per_s > 0.0 {
                    self.at(now_s, Event::Second);
                }
            }
        }
    }

    fn interactive(&mut self, now_s: f64) {
        self.waiting.push_back(now_s);
        if now_s >= self.span.from_s {
            self.tally.interactive_calls += 1;
        }
        let rate = INTERACTIVE_PER_S * self.service.servers.len() as f64;
        let gap_s = -(1.0 - self.traffic.unit()).ln() / rate;
        self.at(now_s + gap_s, Event::Interactive);
    }

    fn second(&mut self, now_s: f64) {
        if self.second.per_s <= 0.0 {
            return;
        }
        if now_s >= self.second.closed_until_s {
            self.send(now_s, None, create(100), Purpose::Second);
        }
        let gap_s = -(1.0 - self.traffic.unit()).ln() / self.second.per_s;
        self.at(now_s + gap_s, Event::Second);
    }

    fn serve_interactive(&mut self, now_s: f64) {
        while let Some(since_s) = self.waiting.front().copied() {
            if now_s - since_s > PATIENCE_S {
                self.waiting.pop_front();
                self.lose(since_s);
                continue;
            }
            match self.client.interactive(now_s, &mut self.service) {
                // Not for the caller, who goes on waiting.
                Next::Send(outgoing) if outgoing.rows == 0 => {
                    self.post(now_s, outgoing, Purpose::Batch { rows: 0 });
                }
                Next::Send(outgoing) => {
                    self.waiting.pop_front();
                    self.post(now_s, outgoing, Purpose::Interactive { since_s });
                }
                Next::At(at_s) => return self.wake_at(at_s),
                Next::AfterCompletion => return,
            }
        }
    }

    fn send_batches(&mut self, now_s: f64) {
        while self.has_batches && self.rows_left != Some(0) {
            match self.client.batch(now_s, &mut self.service) {
                Next::Send(mut outgoing) => {
                    if let Some(left) = self.rows_left.as_mut().filter(|_| outgoing.rows > 0) {
                        outgoing.rows = outgoing.rows.min(*left);
                        outgoing.work.rows = outgoing.rows;
                        *left -= outgoing.rows;
                    }
                    let rows = outgoing.rows;
                    self.post(now_s, outgoing, Purpose::Batch { rows });
                }
                Next::At(at_s) => return self.wake_at(at_s.max(now_s + 0.001)),
                Next::AfterCompletion => return,
            }
        }
    }

    fn post(&mut self, now_s: f64, outgoing: Outgoing, purpose: Purpose) {
        self.tally.requests += 1;
        let ticket = self.send(now_s, outgoing.cookie, outgoing.work, purpose);
        self.client.sent(ticket, outgoing);
    }

    fn send(&mut self, now_s: f64, cookie: Option<u16>, work: Work, purpose: Purpose) -> u64 {
        let running = self.service.send(now_s, cookie, work);
        let ends_s = match &running {
            Ok(running) => running.ends_s,
            Err(answer) => now_s + answer.duration_s,
        };
        self.at(ends_s, Event::Done(self.next + 1));
        let ticket = self.next;
        self.sent.insert(ticket, Sent { at_s: now_s, cookie, work, running, purpose });
        ticket
    }

    fn done(&mut self, now_s: f64, ticket: u64) {
        let Some(sent) = self.sent.remove(&ticket) else { return };
        let answer = match &sent.running {
            Ok(running) => self.service.finish(now_s, sent.at_s, running),
            Err(answer) => *answer,
        };
        if self.is_recorded {
            self.tally.lines.push(line(now_s, &sent, &answer));
        }
        let is_measured = now_s >= self.span.from_s;
        match (sent.purpose, answer.kind) {
            (Purpose::Second, AnswerKind::Refused { retry_after_s, .. }) => {
                self.second.closed_until_s = now_s + retry_after_s;
            }
            (Purpose::Second, _) => {}
            // The rows of a cut request are there, for every client alike; finding out costs ours reads.
            (Purpose::Batch { rows }, AnswerKind::Done | AnswerKind::Cut) => {
                self.tally.rows_all += rows;
                self.tally.rows += if is_measured { rows } else { 0 };
            }
            (Purpose::Batch { rows }, _) => self.rows_left = self.rows_left.map(|left| left + rows),
            (Purpose::Interactive { since_s }, AnswerKind::Done) => {
                if since_s >= self.span.from_s {
                    self.tally.interactive_s.push(now_s - since_s);
                }
            }
            (Purpose::Interactive { since_s }, AnswerKind::Refused { retry_after_s, .. })
                if !self.client.holds_callers() =>
            {
                self.at(now_s + retry_after_s, Event::Return { since_s });
            }
            (Purpose::Interactive { since_s }, _) => self.waiting.push_front(since_s),
        }
        if matches!(answer.kind, AnswerKind::Refused { .. }) && !matches!(sent.purpose, Purpose::Second) {
            self.tally.refused += 1;
        }
        if !matches!(sent.purpose, Purpose::Second) {
            self.client.answered(now_s, ticket, &answer);
        }
        let is_over = !self.sent.values().any(|sent| matches!(sent.purpose, Purpose::Batch { .. }));
        if self.rows_left == Some(0) && is_over {
            self.tally.finished_s = Some(now_s);
        }
    }

    fn lose(&mut self, since_s: f64) {
        if since_s >= self.span.from_s {
            self.tally.interactive_lost += 1;
        }
    }
}

fn line(now_s: f64, sent: &Sent, answer: &Answer) -> Line {
    let (status, busy_ms) = match (answer.kind, &sent.running) {
        (AnswerKind::Done, Ok(running)) => (200, running.busy_ms),
        (AnswerKind::Refused { .. }, _) => (429, 0.0),
        (AnswerKind::Cut, _) => (0, 0.0),
        (AnswerKind::Unavailable | AnswerKind::Done, _) => (503, 0.0),
    };
    let is_write = matches!(sent.work.message, Message::CreateMultiple | Message::Batch);
    let is_batch = is_write || sent.work.message == Message::Read;
    Line {
        sent_s: sent.at_s,
        answered_s: now_s,
        lane: answer.server.or(sent.cookie).map(|server| format!("server-{server}")),
        class: if is_batch { LineClass::Batch } else { LineClass::Interactive },
        operation: format!("{:?}", sent.work.message),
        status,
        code: None,
        rows: if is_write && status == 200 { sent.work.rows } else { 0 },
        charged_s: busy_ms / 1_000.0,
    }
}
