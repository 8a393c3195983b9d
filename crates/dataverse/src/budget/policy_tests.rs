//! The policy, second by second.

use std::sync::Arc;
use std::time::Duration;

use flowgate_core::Elapsed;
use flowgate_core::destination::Class;

use super::classes::Role;
use super::facts::{AnswerFacts, Cost, Ended, Grant, Throttled, ThrottledBy, Verdict};
use super::policy::{Policy, PolicySettings};

const CHEAP: Cost = Cost { busy: Duration::from_millis(10), entitlement: 1 };
const SECOND: Cost = Cost { busy: Duration::from_secs(1), entitlement: 100 };

fn at(seconds: f64) -> Elapsed {
    Elapsed(Duration::from_secs_f64(seconds))
}

fn policy() -> Policy {
    Policy::new(&PolicySettings { users: 1, daily: None, seed: 7 })
}

/// An answer of server `server` that took `seconds`, with what is left.
fn answer(server: &str, seconds: f64, remaining_s: Option<f64>) -> AnswerFacts {
    AnswerFacts {
        duration: Duration::from_secs_f64(seconds),
        cookie: Some(Arc::from(server)),
        remaining_seconds: remaining_s,
        remaining_requests: remaining_s.map(|_| 5_900.0),
        parallel_hint: Some(16),
    }
}

fn admitted(policy: &mut Policy, now: f64, class: Class, cost: Cost) -> Grant {
    match policy.ask(at(now), class, cost) {
        Verdict::Admitted(grant) => grant,
        other => panic!("not admitted at {now} s: {other:?}"),
    }
}

/// A policy that knows `servers` empty servers, at 1 s.
fn with_servers(servers: &[&str]) -> Policy {
    let mut policy = policy();
    for draw in 0..60 {
        let grant = admitted(&mut policy, 0.5, Class::Interactive, CHEAP);
        let server = match &grant.cookie {
            Some(cookie) => cookie.to_string(),
            None => servers[draw % servers.len()].to_owned(),
        };
        policy.complete(at(0.51), &grant, &Ended::Answered(answer(&server, 0.01, Some(1_199.0))));
    }
    assert_eq!(policy.snapshot(at(1.0)).lanes.len(), servers.len());
    policy
}

/// When a request ends, what its answer says is left (seconds, requests), and its permit.
type UnderWay = (f64, Option<(f64, f64)>, Grant);

/// Sends batches from 1 s until `until`, each answered by its lane; returns when each went.
/// `limit_s`: the answers say what is left of it.
fn drive(policy: &mut Policy, until: f64, cost: Cost, limit_s: Option<f64>) -> Vec<f64> {
    let busy_s = cost.busy.as_secs_f64();
    let mut under_way: Vec<UnderWay> = Vec::new();
    let (mut now, mut sent, mut ended): (f64, Vec<f64>, Vec<f64>) = (1.0, Vec::new(), Vec::new());
    while now < until {
        let (over, rest): (Vec<_>, Vec<_>) = under_way.into_iter().partition(|(end, ..)| *end <= now);
        under_way = rest;
        for (_, left_s, grant) in over {
            let server = grant.cookie.clone().unwrap_or_else(|| Arc::from("a"));
            let mut facts = answer(&server, busy_s, left_s.map(|(seconds, _)| seconds));
            facts.remaining_requests = left_s.map(|(_, requests)| requests);
            policy.complete(at(now), &grant, &Ended::Answered(facts));
            ended.push(now);
        }
        while let Verdict::Admitted(grant) = policy.ask(at(now), Class::Batch, cost) {
            let used_s = busy_s * ended.iter().filter(|end| **end > now - 300.0).count() as f64;
            sent.push(now);
            let requests = 6_000.0 - sent.iter().filter(|sent| **sent > now - 300.0).count() as f64;
            under_way.push((now + busy_s, limit_s.map(|limit_s| (limit_s - used_s, requests)), grant));
        }
        now += 0.05;
    }
    sent
}

fn throttled(kind: ThrottledBy, retry_after_s: Option<u64>, server: Option<&str>) -> Ended {
    let facts = AnswerFacts { cookie: server.map(Arc::from), ..AnswerFacts::default() };
    Ended::Throttled(facts, Throttled { kind, retry_after: retry_after_s.map(Duration::from_secs) })
}

#[test]
fn servers_are_found_by_their_cookies_and_then_addressed() {
    let mut policy = with_servers(&["a", "b", "c"]);
    let snapshot = policy.snapshot(at(1.0));
    assert!(snapshot.discovery_is_complete && snapshot.lanes.iter().all(|lane| lane.is_past_known));
    let cookies: Vec<_> =
        (0..3).filter_map(|_| admitted(&mut policy, 1.0, Class::Interactive, SECOND).cookie).collect();
    assert_eq!(cookies.len(), 3);
    assert!(cookies[0] != cookies[1] && cookies[1] != cookies[2], "spread over the lanes: {cookies:?}");
}

#[test]
fn an_empty_window_is_filled_faster_than_it_empties_and_never_over_the_limit() {
    let sent = drive(&mut with_servers(&["a"]), 900.0, SECOND, Some(1_200.0));
    let within = |from: f64| sent.iter().filter(|moment| (from..from + 300.0).contains(*moment)).count();
    assert!(within(1.0) >= 1_150, "{}", within(1.0));
    for from in 1..600 {
        assert!(within(f64::from(from)) <= 1_200, "{} s of 1,200 in the window from {from} s", within(f64::from(from)));
    }
    let first_minute = sent.iter().filter(|moment| **moment < 61.0).count();
    assert!(first_minute > 400, "twice the steady pace at least: {first_minute}");
}

#[test]
fn a_server_of_which_nothing_is_known_is_taken_for_one_in_use() {
    let mut policy = policy();
    let grant = admitted(&mut policy, 0.0, Class::Interactive, CHEAP);
    policy.complete(at(0.1), &grant, &Ended::Answered(answer("a", 0.01, None)));
    assert!(!policy.snapshot(at(1.0)).lanes[0].is_past_known);
    let sent = drive(&mut policy, 120.0, SECOND, None);
    assert!(sent.len() as f64 <= 4.0 * 120.0 + 8.0, "no faster than the steady pace: {}", sent.len());
    assert!(sent.len() as f64 >= 3.0 * 120.0, "{}", sent.len());
}

#[test]
fn cheap_requests_are_paced_by_their_number() {
    let sent = drive(
        &mut with_servers(&["a"]),
        600.0,
        Cost { busy: Duration::from_millis(50), entitlement: 1 },
        Some(1_200.0),
    );
    let in_window = sent.iter().filter(|moment| **moment >= 300.0).count();
    assert!((5_000..=6_000).contains(&in_window), "{in_window}");
}

#[test]
fn a_refusal_closes_its_lane_and_no_other() {
    let mut policy = with_servers(&["a", "b"]);
    let grant = admitted(&mut policy, 1.0, Class::Batch, SECOND);
    let closed = grant.cookie.clone().unwrap();
    policy.complete(at(1.1), &grant, &throttled(ThrottledBy::ExecutionTime, Some(30), Some(&closed)));
    for tick in 0..290 {
        let now = 1.2 + f64::from(tick) * 0.1;
        for class in [Class::Interactive, Class::Batch] {
            if let Verdict::Admitted(grant) = policy.ask(at(now), class, CHEAP) {
                assert!(grant.cookie.is_some() && grant.cookie.as_ref() != Some(&closed), "{class:?} at {now} s");
                let server = grant.cookie.clone().unwrap();
                policy.complete(at(now), &grant, &Ended::Answered(answer(&server, 0.01, Some(1_100.0))));
            }
        }
    }
    let state =
        |policy: &mut Policy, now| policy.snapshot(at(now)).lanes.iter().filter(|lane| lane.state == "open").count();
    assert_eq!((state(&mut policy, 30.9), state(&mut policy, 34.2)), (1, 2));
}

#[test]
fn a_refusal_without_a_name_closes_all_lanes() {
    let mut policy = with_servers(&["a", "b"]);
    let grant = admitted(&mut policy, 20.0, Class::Interactive, CHEAP);
    let grant = Grant { cookie: None, lane: None, ..grant };
    policy.complete(at(20.1), &grant, &throttled(ThrottledBy::Other, None, None));
    let Verdict::NotBefore(open) = policy.ask(at(20.2), Class::Interactive, CHEAP) else { panic!("let in") };
    assert!(open >= at(21.0), "a missing Retry-After is two seconds and asked again each second: {open:?}");
}

#[test]
fn the_three_refusals_teach_three_things() {
    for (kind, index) in [(ThrottledBy::ExecutionTime, 0), (ThrottledBy::Requests, 1), (ThrottledBy::Concurrency, 2)] {
        let mut policy = with_servers(&["a"]);
        let grant = admitted(&mut policy, 1.0, Class::Batch, SECOND);
        policy.complete(at(1.1), &grant, &throttled(kind, Some(1), Some("a")));
        let lane = policy.snapshot(at(3.0)).lanes[0].clone();
        let lowered = [lane.limit_s < 1_000.0, lane.limit_requests < 5_000.0, lane.parallel_max < 3];
        let expected: Vec<bool> = (0..3).map(|position| position == index).collect();
        assert_eq!(lowered.to_vec(), expected, "{kind:?}: {lane:?}");
    }
}

#[test]
fn interactive_requests_do_not_wait_for_batches_and_batches_do_for_them() {
    let mut policy = with_servers(&["a"]);
    while let Verdict::Admitted(_) = policy.ask(at(1.5), Class::Batch, SECOND) {}
    admitted(&mut policy, 1.5, Class::Interactive, CHEAP);
    let mut policy = with_servers(&["a"]);
    policy.start_waiting(Class::Events);
    assert_eq!(policy.ask(at(2.0), Class::Batch, SECOND), Verdict::AfterCompletion);
    policy.stop_waiting(Class::Events);
    admitted(&mut policy, 2.0, Class::Batch, SECOND);
}

#[test]
fn a_share_narrows_what_batches_use() {
    let mut policy = with_servers(&["a"]);
    policy.set_share(0.25);
    let sent = drive(&mut policy, 301.0, SECOND, Some(1_200.0));
    assert!(sent.len() <= 300 && sent.len() >= 240, "{}", sent.len());
}

#[test]
fn the_daily_budget_stops_batches_and_nothing_else() {
    let mut policy = Policy::new(&PolicySettings { users: 1, daily: Some(150), seed: 7 });
    let grant = admitted(&mut policy, 0.0, Class::Batch, SECOND);
    policy.complete(at(1.0), &grant, &Ended::Answered(answer("a", 1.0, None)));
    assert_eq!(policy.ask(at(2.0), Class::Batch, SECOND), Verdict::DailyBudgetUsed { daily: 150 });
    admitted(&mut policy, 2.0, Class::Interactive, CHEAP);
    admitted(&mut policy, 90_000.0, Class::Batch, SECOND);
}

#[test]
fn a_server_that_forgot_its_window_is_believed_only_after_an_outage() {
    let mut policy = with_servers(&["a"]);
    drive(&mut policy, 200.0, SECOND, Some(1_200.0));
    // The same claim from a server that never was away: nothing is forgotten.
    for now in [201.0, 202.0] {
        let grant = admitted(&mut policy, now, Class::Interactive, CHEAP);
        policy.complete(at(now + 0.1), &grant, &Ended::Answered(answer("a", 0.02, Some(1_199.0))));
    }
    assert!(policy.snapshot(at(205.0)).lanes[0].used_s > 900.0);
    let grant = admitted(&mut policy, 205.0, Class::Interactive, CHEAP);
    policy.complete(at(205.1), &grant, &Ended::Unavailable(AnswerFacts::default()));
    assert_eq!(policy.snapshot(at(205.2)).lanes[0].state, "down");
    for now in [207.0, 208.0, 209.0, 210.0] {
        let grant = admitted(&mut policy, now, Class::Interactive, CHEAP);
        policy.complete(at(now + 0.1), &grant, &Ended::Answered(answer("a", 0.02, Some(1_199.0))));
    }
    assert!(policy.snapshot(at(211.0)).lanes[0].used_s < 10.0);
}

/// What a batch is given that asks now.
fn given_to_batch(policy: &mut Policy, now_s: f64) -> Option<Grant> {
    match policy.ask(at(now_s), Class::Batch, SECOND) {
        Verdict::Admitted(grant) => Some(grant),
        _ => None,
    }
}

#[test]
fn no_write_meets_a_server_that_was_away_before_a_read_did() {
    let mut policy = with_servers(&["a"]);
    let cut = admitted(&mut policy, 2.0, Class::Batch, SECOND);
    policy.complete(at(3.0), &cut, &Ended::Unavailable(answer("a", 1.0, None)));
    assert!(given_to_batch(&mut policy, 3.1).is_none(), "not before the first quarter of a second");
    let mut trials = 0;
    for tick in 0..400 {
        let now_s = 3.2 + f64::from(tick) * 0.1;
        if let Some(grant) = given_to_batch(&mut policy, now_s) {
            assert!(grant.is_trial && grant.cost.busy < SECOND.busy, "{grant:?}");
            assert!(given_to_batch(&mut policy, now_s).is_none(), "one at a time");
            policy.complete(at(now_s + 0.06), &grant, &Ended::Unavailable(AnswerFacts::default()));
            trials += 1;
        }
    }
    assert!((10..=15).contains(&trials), "in forty seconds: {trials}");
    let trial = (0..50).find_map(|tick| given_to_batch(&mut policy, 43.3 + f64::from(tick) * 0.1)).unwrap();
    policy.complete(at(48.5), &trial, &Ended::Answered(answer("a", 0.1, Some(1_199.0))));
    assert_eq!(policy.snapshot(at(48.5)).lanes[0].state, "open");
}

#[test]
fn what_hung_through_an_outage_does_not_end_what_came_after_it() {
    let mut policy = with_servers(&["a"]);
    let (cut, hung) =
        (admitted(&mut policy, 2.0, Class::Batch, SECOND), admitted(&mut policy, 3.0, Class::Batch, SECOND));
    policy.complete(at(4.0), &cut, &Ended::Unavailable(answer("a", 1.0, None)));
    let trial = given_to_batch(&mut policy, 5.0).unwrap();
    assert!(trial.is_trial, "a request that hangs is not waited for");
    policy.complete(at(5.1), &trial, &Ended::Answered(answer("a", 0.1, Some(1_199.0))));
    policy.complete(at(90.0), &hung, &Ended::Unavailable(answer("a", 87.0, None)));
    assert_eq!(policy.snapshot(at(90.0)).lanes[0].state, "open");
}

#[test]
fn a_trial_that_nobody_answers_is_one_more_failure() {
    let mut policy = with_servers(&["a"]);
    let cut = admitted(&mut policy, 2.0, Class::Batch, SECOND);
    policy.complete(at(3.0), &cut, &Ended::Unavailable(answer("a", 1.0, None)));
    let trial = given_to_batch(&mut policy, 3.5).unwrap();
    policy.complete(at(18.5), &trial, &Ended::Abandoned);
    assert_eq!(policy.snapshot(at(18.6)).lanes[0].state, "down");
    assert!(given_to_batch(&mut policy, 18.6).is_none() && given_to_batch(&mut policy, 19.2).is_some());
}

#[test]
fn a_forgotten_window_is_seen_by_trials_where_no_batch_could_go() {
    let mut policy = with_servers(&["a"]);
    drive(&mut policy, 290.0, SECOND, Some(1_200.0));
    // The first may be a draw, which is sent to no lane.
    let grants = [290.0, 290.05].map(|now_s| admitted(&mut policy, now_s, Class::Interactive, CHEAP));
    let grant = grants.into_iter().find(|grant| grant.cookie.is_some()).unwrap();
    policy.complete(at(290.1), &grant, &Ended::Unavailable(AnswerFacts::default()));
    let trial = given_to_batch(&mut policy, 290.5).unwrap();
    policy.complete(at(292.5), &trial, &Ended::Unavailable(AnswerFacts::default()));
    let mut now_s = 293.5;
    for _ in 0..3 {
        let trial = given_to_batch(&mut policy, now_s).unwrap();
        assert!(trial.is_trial);
        policy.complete(at(now_s + 0.1), &trial, &Ended::Answered(answer("a", 0.1, Some(1_199.0))));
        now_s += 0.1;
    }
    assert!(policy.snapshot(at(now_s)).lanes[0].used_s < 20.0);
    let next = (0..10).find_map(|tick| given_to_batch(&mut policy, now_s + f64::from(tick) * 0.1)).unwrap();
    assert!(!next.is_trial, "there is nothing left to ask");
}

#[test]
fn a_server_that_is_gone_is_retired_and_a_new_one_found() {
    let mut policy = with_servers(&["a", "b"]);
    let grant = admitted(&mut policy, 2.0, Class::Interactive, CHEAP);
    let gone = grant.cookie.clone().unwrap();
    policy.complete(at(2.1), &grant, &Ended::Answered(answer("c", 0.02, Some(1_199.0))));
    let lanes: Vec<String> = policy.snapshot(at(3.0)).lanes.iter().filter_map(|lane| lane.server.clone()).collect();
    assert!(lanes.contains(&"c".to_owned()) && !lanes.contains(&gone.to_string()), "{lanes:?}");
}

#[test]
fn after_a_long_outage_of_all_servers_none_is_known() {
    let mut policy = with_servers(&["a", "b", "c"]);
    assert!(policy.snapshot(at(1.0)).discovery_is_complete);
    for tick in 0..40 {
        let now_s = 2.0 + f64::from(tick);
        if let Verdict::Admitted(grant) = policy.ask(at(now_s), Class::Interactive, CHEAP) {
            policy.complete(at(now_s + 0.1), &grant, &Ended::Unavailable(AnswerFacts::default()));
        }
    }
    policy.ask(at(400.0), Class::Interactive, CHEAP);
    let snapshot = policy.snapshot(at(400.0));
    assert_eq!((snapshot.lanes.len(), snapshot.discovery_is_complete), (0, false));
}

#[test]
fn without_cookies_all_servers_are_one_lane() {
    let mut policy = policy();
    let grant = admitted(&mut policy, 0.0, Class::Interactive, CHEAP);
    let facts = AnswerFacts { cookie: None, ..answer("", 0.1, None) };
    policy.complete(at(0.1), &grant, &Ended::Answered(facts));
    let snapshot = policy.snapshot(at(1.0));
    assert_eq!((snapshot.lanes.len(), snapshot.lanes[0].server.clone()), (1, None));
    assert!((snapshot.lanes[0].limit_s - 4.0 * 1_200.0).abs() < 1e-6, "a hint of 16 is four servers");
}

#[test]
fn two_users_have_two_windows_on_each_server() {
    let mut policy = Policy::new(&PolicySettings { users: 2, daily: None, seed: 7 });
    let grant = admitted(&mut policy, 0.0, Class::Interactive, CHEAP);
    policy.complete(at(0.1), &grant, &Ended::Answered(answer("a", 0.1, Some(1_199.0))));
    let users: Vec<u16> = policy.snapshot(at(1.0)).lanes.iter().map(|lane| lane.user).collect();
    assert_eq!(users, [0, 1]);
}

#[test]
fn a_service_that_invents_cookies_does_not_fill_the_memory() {
    let mut policy = policy();
    for number in 0..2_000 {
        let now = f64::from(number) * 20.0;
        if let Verdict::Admitted(grant) = policy.ask(at(now), Class::Interactive, CHEAP) {
            policy.complete(at(now), &grant, &Ended::Answered(answer(&format!("server-{number}"), 0.1, Some(1_200.0))));
        }
    }
    assert!(policy.snapshot(at(50_000.0)).lanes.len() <= 256);
}

#[test]
fn the_snapshot_is_readable_as_json() {
    let json = serde_json::to_value(with_servers(&["a"]).snapshot(at(1.0))).unwrap();
    assert_eq!((json["lanes"][0]["server"].as_str(), json["lanes"][0]["state"].as_str()), (Some("a"), Some("open")));
    assert_eq!(json["waiting"]["interactive"], 0);
}

/// Batches of a second, as many as go, over `until_s` seconds with `users` users on one server.
fn rows_of_users(users: u16, until_s: u32) -> u32 {
    let mut policy = Policy::new(&PolicySettings { users, daily: None, seed: 7 });
    let mut under_way: Vec<(f64, Grant)> = Vec::new();
    let mut sent = 0;
    for tick in 0..10 * until_s {
        let now_s = 0.1 * f64::from(tick);
        let (ended, rest) = under_way.into_iter().partition(|(at_s, _)| *at_s <= now_s);
        under_way = rest;
        for (_, grant) in ended {
            let remaining = (policy.snapshot(at(now_s)).lanes.iter())
                .find(|lane| lane.user == grant.user)
                .map_or(1_200.0, |lane| 1_200.0 - if lane.is_past_known { lane.used_s } else { 0.0 });
            policy.complete(at(now_s), &grant, &Ended::Answered(answer("a", 1.0, Some(remaining.max(0.0)))));
        }
        while let Verdict::Admitted(grant) = policy.ask(at(now_s), Class::Batch, SECOND) {
            sent += 1;
            under_way.push((now_s + 1.0, grant));
        }
    }
    sent
}

#[test]
fn two_users_have_twice_the_limits() {
    let (one, two) = (rows_of_users(1, 600), rows_of_users(2, 600));
    assert!(f64::from(two) > 1.9 * f64::from(one), "{one} and {two}");
}

#[test]
fn a_user_is_used_for_what_it_is_for() {
    let mut policy = Policy::new(&PolicySettings { users: 2, daily: None, seed: 7 });
    policy.set_roles(&[Role::Batch, Role::Urgent]);
    let mut sent = 0;
    for step in 0..100 {
        let now_s = 0.5 * f64::from(step);
        for (class, user) in [(Class::Interactive, 1), (Class::Batch, 0)] {
            // What the batches' user did before it was first answered is not known.
            let Verdict::Admitted(grant) = policy.ask(at(now_s), class, CHEAP) else { continue };
            sent += 1;
            assert_eq!(grant.user, user, "{class:?} at {now_s} s");
            policy.complete(at(now_s + 0.01), &grant, &Ended::Answered(answer("a", 0.01, Some(1_100.0))));
        }
    }
    assert!(sent > 190, "{sent}");
}
