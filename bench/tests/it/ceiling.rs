//! Every scenario with one seed and 1,800 s. The bounds are a little below the published ones: one
//! seed scatters more than the mean of three.

use flowgate_bench::{Scenario, Span, ceiling};

const SHORT: Span = Span { from_s: 300.0, to_s: 2_100.0 };

fn holds(scenario: Scenario, least: f64) {
    let figures = ceiling(scenario, SHORT, &[1]).unwrap();
    assert!(figures.throughput_to_oracle >= least, "{figures:#?}");
    assert!(figures.quota_429_per_1000_requests <= 1.0, "{figures:#?}");
    assert_eq!(figures.interactive_lost_to_quota, 0, "{figures:#?}");
}

#[test]
fn steady() {
    holds(Scenario::Steady, 0.95);
    let figures = ceiling(Scenario::Steady, SHORT, &[2]).unwrap();
    assert!(figures.quota_429_per_1000_requests == 0.0 && figures.interactive_p95_to_idle <= 1.1, "{figures:#?}");
}

#[test]
fn noisy_neighbours() {
    holds(Scenario::NoisyNeighbours, 0.92);
}

#[test]
fn slow_servers() {
    holds(Scenario::SlowServers, 0.94);
}

#[test]
fn limits_halved() {
    // In a short run the block that nobody can avoid is most of the time.
    let figures = ceiling(Scenario::LimitsHalved, flowgate_bench::SPAN, &[1]).unwrap();
    assert!(figures.throughput_to_oracle >= 0.87 && figures.interactive_p95_to_idle <= 1.1, "{figures:#?}");
}

#[test]
fn uneven_rows() {
    holds(Scenario::UnevenRows, 0.90);
}

#[test]
fn server_restarts() {
    holds(Scenario::ServerRestarts, 0.78);
}

#[test]
fn servers_come_and_go() {
    holds(Scenario::ServersComeAndGo, 0.84);
}

#[test]
fn a_second_client_on_the_user() {
    holds(Scenario::SecondClient, 0.84);
    holds(Scenario::SecondClientWithoutHeaders, 0.80);
}

#[test]
fn limits_that_lie_cost_what_they_deny_and_lose_no_caller() {
    // Headers that promise a fifth more are found out by refusals, those that promise less are kept to.
    holds(Scenario::HeadersTellMore, 0.85);
    holds(Scenario::HeadersTellLess, 0.75);
}
