//! The limits against clients that want everything, in simulated time.
//!
//! What may be had is arithmetic: with S seconds for a batch of B rows, a user gets from a server
//! at most B * min(6000/300, (1200/300)/S) rows a second. A client that sees the counters comes
//! within 1 % of it and never passes; one that does not look is shut out, later when usage is
//! looked at lazily.

use std::collections::BinaryHeap;

use uuid::Uuid;

use super::{Lane, LimitKind, Limits, Refusal};
use crate::profile::{Message, Profile, ProfileName, Work};

const LANE: Lane = (Uuid::nil(), 0);
/// Simulated time between two decisions of a client.
const STEP_MS: u64 = 5;
const WINDOW_S: f64 = 300.0;

/// How a client decides whether to send.
#[derive(Clone, Copy)]
enum Client {
    /// Knows what it has running and what the window holds.
    Counting,
    /// Keeps this many requests running, whatever the answers.
    Threads(usize),
}

struct Outcome {
    batches: u64,
    refusals: Vec<(f64, Refusal)>,
    /// The greatest usage of any window: calls, and milliseconds of execution.
    calls_max: usize,
    busy_ms_max: f64,
}

/// Runs a client for some simulated seconds; `service_ms` is what one request takes.
fn run(limits: &mut Limits, client: Client, service_ms: f64, seconds: f64) -> Outcome {
    let mut outcome = Outcome { batches: 0, refusals: Vec::new(), calls_max: 0, busy_ms_max: 0.0 };
    let mut ends: BinaryHeap<std::cmp::Reverse<u64>> = BinaryHeap::new();
    let wants = limits.settings.clone();
    let requests = wants.requests.unwrap_or(u32::MAX) as usize;
    let execution_ms = wants.execution_ms.unwrap_or(f64::INFINITY);
    let concurrent = wants.concurrent.unwrap_or(u32::MAX) as usize;
    for at_ms in (0..(seconds * 1000.0) as u64).step_by(STEP_MS as usize) {
        let now = at_ms as f64 / 1000.0;
        while ends.peek().is_some_and(|end| end.0 <= at_ms) {
            ends.pop();
            limits.finish(LANE, now, service_ms);
        }
        loop {
            let window = limits.windows.entry(LANE).or_default();
            window.forget(now - WINDOW_S);
            let (calls, busy_ms) = (window.arrivals.len(), window.busy_ms);
            outcome.calls_max = outcome.calls_max.max(calls);
            outcome.busy_ms_max = outcome.busy_ms_max.max(busy_ms);
            let wishes = match client {
                Client::Counting => {
                    ends.len() < concurrent
                        && calls < requests
                        && busy_ms + (ends.len() + 1) as f64 * service_ms <= execution_ms
                }
                Client::Threads(threads) => ends.len() < threads,
            };
            if !wishes {
                break;
            }
            match limits.admit(LANE, now) {
                Ok(_) => {
                    outcome.batches += 1;
                    ends.push(std::cmp::Reverse(at_ms + service_ms as u64));
                }
                Err(refusal) => {
                    outcome.refusals.push((now, refusal));
                    break;
                }
            }
        }
    }
    outcome
}

fn realistic() -> (Profile, Limits) {
    let profile = Profile::named(ProfileName::Realistic).unwrap();
    let limits = Limits::new(profile.limits.clone());
    (profile, limits)
}

#[test]
fn a_counting_client_reaches_the_ceiling_and_never_passes_it() {
    // Whole batches only: one that takes over 1 % of the allowance would leave that much unused.
    let kinds =
        [(Message::CreateMultiple, [1, 10, 50, 100, 300, 1000]), (Message::UpdateMultiple, [1, 10, 50, 100, 300, 500])];
    for (message, sizes) in kinds {
        for rows in sizes {
            let (profile, mut limits) = realistic();
            let service_ms = profile.service_ms(Work { message, rows, extra_ms: 0.0 }, 1, 0.0);
            let windows = 6.0;
            let outcome = run(&mut limits, Client::Counting, service_ms, windows * WINDOW_S);
            let ceiling = (6000.0 / WINDOW_S).min(4.0 / (service_ms / 1000.0)) * rows as f64;
            let reached = (outcome.batches * rows) as f64 / (windows * WINDOW_S);
            assert!(reached >= 0.99 * ceiling, "{rows} rows: {reached} of {ceiling} rows/s");
            assert!(reached <= 1.001 * ceiling, "{rows} rows: {reached} of {ceiling} rows/s");
            assert!(outcome.refusals.is_empty(), "{rows} rows: refused at {:?}", outcome.refusals.first());
            assert!(outcome.calls_max <= 6000 && outcome.busy_ms_max <= 1_200_000.0);
        }
    }
}

#[test]
fn many_threads_burn_the_allowance_and_are_shut_out() {
    let (profile, mut limits) = realistic();
    let service_ms = profile.service_ms(Work { message: Message::CreateMultiple, rows: 97, extra_ms: 0.0 }, 1, 0.0);
    let outcome = run(&mut limits, Client::Threads(52), service_ms, 100.0);
    let (at, refusal) = outcome.refusals[0];
    // 1,200 s of execution shared by 52: after 23 s nothing is left until the window has moved on.
    assert!((23.0..=25.0).contains(&at), "shut out after {at} s");
    assert_eq!(refusal.kind, LimitKind::ExecutionTime);
    assert!(refusal.retry_after_s > 250, "{refusal:?}");
    // Usage stops at most one round of threads above the limit, and calls lengthen the block.
    assert!(outcome.busy_ms_max <= 1_200_000.0 + 52.0 * service_ms);
    let last = outcome.refusals.last().unwrap();
    let ends = |(at, refusal): &(f64, Refusal)| at + refusal.retry_after_s as f64;
    assert!(ends(last) > ends(&outcome.refusals[0]) + 300.0, "{last:?}");
}

#[test]
fn lazy_evaluation_lets_more_pass_and_only_to_those_who_do_not_count() {
    let lazy_s = 20.0;
    let usage = |client, interval_s: f64| {
        let (_, mut limits) = realistic();
        limits.settings.evaluation_interval_s = interval_s;
        run(&mut limits, client, 1000.0, 60.0).busy_ms_max
    };
    let (exact, lazy) = (usage(Client::Threads(52), 0.0), usage(Client::Threads(52), lazy_s));
    assert!(exact <= 1_200_000.0 + 52_000.0, "{exact}");
    assert!(lazy > exact + 100_000.0, "lazy {lazy}, exact {exact}");
    assert!(lazy <= 1_200_000.0 + (lazy_s + 1.0) * 52_000.0, "{lazy}");
    assert!(usage(Client::Counting, lazy_s) <= 1_200_000.0);
}
