//! The policy, second by second.

use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;

use super::policy::{AnswerFacts, Cost, Policy, Throttled, Verdict};

const CHEAP: Cost = Cost { busy: Duration::from_millis(10), entitlement: 1 };

fn at(seconds: f64) -> Elapsed {
    Elapsed(Duration::from_secs_f64(seconds))
}

fn policy_with_hint(hint: u32) -> Policy {
    let mut policy = Policy::new(None, 7);
    assert_eq!(policy.admit(at(0.0), Class::Interactive, CHEAP), Verdict::Admitted);
    let facts = AnswerFacts { parallel_hint: Some(hint), busy: Duration::ZERO, throttled: None };
    policy.complete(at(0.0), Class::Interactive, CHEAP, Some(facts));
    policy
}

fn throttled(seconds: u64, is_concurrency: bool) -> AnswerFacts {
    let retry_after = Some(Duration::from_secs(seconds));
    AnswerFacts { throttled: Some(Throttled { retry_after, is_concurrency }), ..AnswerFacts::default() }
}

/// Admits batch requests, each over at once, until `until`; returns when each went.
fn drive(policy: &mut Policy, until: f64, cost: Cost) -> Vec<f64> {
    let mut now = at(0.0);
    let mut sent = Vec::new();
    while now < at(until) {
        match policy.admit(now, Class::Batch, cost) {
            Verdict::Admitted => {
                sent.push(now.0.as_secs_f64());
                policy.complete(now, Class::Batch, cost, None);
            }
            Verdict::NotBefore(later) => now = later,
            other => panic!("{other:?}"),
        }
    }
    sent
}

#[test]
fn requests_are_paced_below_the_limit_of_every_server() {
    for (hint, servers) in [(1, 1.0), (4, 1.0), (16, 4.0)] {
        let sent = drive(&mut policy_with_hint(hint), 300.0, Cost { busy: Duration::ZERO, entitlement: 1 });
        let limit = 0.9 * 6_000.0 * servers;
        assert!(sent.len() as f64 <= limit + 1.0 && sent.len() as f64 > limit * 0.99, "{hint}: {}", sent.len());
    }
}

#[test]
fn execution_time_is_kept_below_its_limit_in_every_window() {
    let cost = Cost { busy: Duration::from_secs(10), entitlement: 1 };
    let sent = drive(&mut policy_with_hint(4), 900.0, cost);
    for start in &sent {
        let busy = 10.0 * sent.iter().filter(|moment| (*start..start + 299.0).contains(*moment)).count() as f64;
        assert!(busy <= 0.9 * 1_200.0, "{busy} s from {start}");
    }
    assert!(sent.len() >= 300, "{}", sent.len());
}

#[test]
fn no_more_than_the_hint_is_under_way() {
    let mut policy = policy_with_hint(3);
    for second in 0..3 {
        assert_eq!(policy.admit(at(f64::from(second)), Class::Batch, CHEAP), Verdict::Admitted);
    }
    assert_eq!(policy.admit(at(4.0), Class::Batch, CHEAP), Verdict::AfterCompletion);
    policy.complete(at(5.0), Class::Batch, CHEAP, None);
    assert_eq!(policy.admit(at(5.0), Class::Batch, CHEAP), Verdict::Admitted);
}

#[test]
fn a_share_narrows_pace_and_parallelism_of_batches() {
    let mut policy = policy_with_hint(16);
    policy.set_share(0.25);
    assert_eq!(policy.parallel_max(), 4);
    let sent = drive(&mut policy, 100.0, Cost { busy: Duration::ZERO, entitlement: 1 });
    assert!((sent.len() as f64 - 0.25 * 0.9 * 80.0 * 100.0).abs() < 20.0, "{}", sent.len());
}

#[test]
fn interactive_requests_do_not_wait_for_batches() {
    let mut policy = policy_with_hint(1);
    assert_eq!(policy.admit(at(1.0), Class::Batch, CHEAP), Verdict::Admitted);
    for _ in 0..40 {
        assert_eq!(policy.admit(at(1.0), Class::Interactive, CHEAP), Verdict::Admitted);
    }
}

#[test]
fn a_batch_waits_while_a_higher_class_waits() {
    let mut policy = policy_with_hint(4);
    policy.start_waiting(Class::Interactive);
    assert_eq!(policy.admit(at(1.0), Class::Batch, CHEAP), Verdict::AfterCompletion);
    policy.stop_waiting(Class::Interactive);
    assert_eq!(policy.admit(at(1.0), Class::Batch, CHEAP), Verdict::Admitted);
}

#[test]
fn a_refusal_closes_the_whole_user_and_never_for_less_than_asked() {
    let mut policy = policy_with_hint(16);
    assert_eq!(policy.admit(at(1.0), Class::Batch, CHEAP), Verdict::Admitted);
    policy.complete(at(1.0), Class::Batch, CHEAP, Some(throttled(30, false)));
    for class in [Class::Interactive, Class::Events, Class::Batch, Class::Export] {
        let Verdict::NotBefore(open) = policy.admit(at(2.0), class, CHEAP) else { panic!("{class:?} was let in") };
        assert!(open >= at(31.0) && open <= at(34.0), "{open:?}");
    }
    assert_eq!(policy.admit(at(34.1), Class::Batch, CHEAP), Verdict::Admitted);
}

#[test]
fn an_absurd_wait_is_bounded_and_a_missing_one_grows() {
    let mut policy = policy_with_hint(16);
    for (retry_after, least, most) in [(Some(86_400), 600.0, 660.0), (Some(0), 1.0, 1.1)] {
        let mut facts = throttled(retry_after.unwrap_or(0), false);
        policy = policy_with_hint(16);
        assert_eq!(policy.admit(at(1.0), Class::Batch, CHEAP), Verdict::Admitted);
        facts.busy = Duration::ZERO;
        policy.complete(at(0.0), Class::Batch, CHEAP, Some(facts));
        let Verdict::NotBefore(open) = policy.admit(at(0.5), Class::Batch, CHEAP) else { panic!("let in") };
        assert!(open >= at(least) && open <= at(most), "{open:?}");
    }
    let none = AnswerFacts {
        throttled: Some(Throttled { retry_after: None, is_concurrency: false }),
        ..AnswerFacts::default()
    };
    policy.complete(at(100.0), Class::Batch, CHEAP, Some(none));
    let Verdict::NotBefore(open) = policy.admit(at(100.0), Class::Batch, CHEAP) else { panic!("let in") };
    assert!(open >= at(104.0), "the second refusal in a row waits longer: {open:?}");
}

#[test]
fn a_concurrency_refusal_lowers_the_bound_and_time_raises_it() {
    let mut policy = policy_with_hint(10);
    for second in 0..10 {
        assert_eq!(policy.admit(at(f64::from(second)), Class::Batch, CHEAP), Verdict::Admitted);
    }
    policy.complete(at(10.0), Class::Batch, CHEAP, Some(throttled(1, true)));
    assert_eq!(policy.parallel_max(), 7);
    for _ in 0..9 {
        policy.complete(at(12.0), Class::Batch, CHEAP, None);
    }
    assert_eq!(policy.admit(at(41.0), Class::Batch, CHEAP), Verdict::Admitted);
    assert_eq!(policy.parallel_max(), 8);
}

#[test]
fn the_daily_budget_stops_batches_and_nothing_else() {
    let mut policy = Policy::new(Some(150), 7);
    let hundred = Cost { busy: Duration::ZERO, entitlement: 100 };
    assert_eq!(policy.admit(at(0.0), Class::Batch, hundred), Verdict::Admitted);
    policy.complete(at(0.0), Class::Batch, hundred, None);
    assert_eq!(policy.admit(at(1.0), Class::Batch, hundred), Verdict::DailyBudgetUsed { daily: 150 });
    assert_eq!(policy.admit(at(1.0), Class::Interactive, hundred), Verdict::Admitted);
    assert_eq!(policy.admit(at(90_000.0), Class::Batch, hundred), Verdict::Admitted);
}
