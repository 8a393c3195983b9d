//! What befalls the service in a run. Times scale with the length of the run.

use flowgate_emulator::model::Random;
use serde::Serialize;

use crate::service::Service;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    Steady,
    NoisyNeighbours,
    SlowServers,
    LimitsHalved,
    UnevenRows,
    ServerRestarts,
    ServersComeAndGo,
    SecondClient,
    SecondClientWithoutHeaders,
    SteadyWithoutHeaders,
    HeadersTellMore,
    HeadersTellLess,
}

impl Scenario {
    pub const ALL: [Self; 12] = [
        Self::Steady,
        Self::NoisyNeighbours,
        Self::SlowServers,
        Self::LimitsHalved,
        Self::UnevenRows,
        Self::ServerRestarts,
        Self::ServersComeAndGo,
        Self::SecondClient,
        Self::SecondClientWithoutHeaders,
        Self::SteadyWithoutHeaders,
        Self::HeadersTellMore,
        Self::HeadersTellLess,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::NoisyNeighbours => "noisy_neighbours",
            Self::SlowServers => "slow_servers",
            Self::LimitsHalved => "limits_halved",
            Self::UnevenRows => "uneven_rows",
            Self::ServerRestarts => "server_restarts",
            Self::ServersComeAndGo => "servers_come_and_go",
            Self::SecondClient => "second_client",
            Self::SecondClientWithoutHeaders => "second_client_without_headers",
            Self::SteadyWithoutHeaders => "steady_without_headers",
            Self::HeadersTellMore => "headers_tell_more",
            Self::HeadersTellLess => "headers_tell_less",
        }
    }

    /// The least share of the oracle's throughput; `None` where nothing is promised.
    pub fn required(self) -> Option<f64> {
        match self {
            Self::Steady | Self::NoisyNeighbours | Self::SlowServers => Some(0.95),
            Self::LimitsHalved | Self::UnevenRows => Some(0.90),
            Self::ServerRestarts | Self::ServersComeAndGo | Self::SecondClient | Self::SecondClientWithoutHeaders => {
                Some(0.87)
            }
            Self::SteadyWithoutHeaders | Self::HeadersTellMore | Self::HeadersTellLess => None,
        }
    }

    /// Prepares the service, and says what happens when.
    pub(crate) fn steps(self, service: &mut Service, random: &mut Random, length_s: f64) -> Vec<(f64, Step)> {
        let at = |share: f64| share * length_s;
        match self {
            Self::Steady => Vec::new(),
            Self::SteadyWithoutHeaders => {
                service.has_headers = false;
                Vec::new()
            }
            Self::HeadersTellMore | Self::HeadersTellLess => {
                service.told_limits = if self == Self::HeadersTellMore { 1.0 + LIE } else { 1.0 - LIE };
                Vec::new()
            }
            Self::NoisyNeighbours => noise(random, length_s),
            Self::SlowServers => vec![(0.0, Step::Slow(0, 3.0)), (0.0, Step::Slow(1, 1.8))],
            Self::LimitsHalved => vec![(at(0.35), Step::ScaleLimits(0.5)), (at(0.65), Step::ScaleLimits(2.0))],
            Self::UnevenRows => {
                service.row_sigma = 0.6;
                Vec::new()
            }
            Self::ServerRestarts => restarts(random, length_s),
            Self::ServersComeAndGo => vec![(at(0.35), Step::Servers(2)), (at(0.65), Step::Servers(6))],
            Self::SecondClient | Self::SecondClientWithoutHeaders => {
                service.has_headers = self == Self::SecondClient;
                vec![(at(0.3), Step::Second(4.0)), (at(0.7), Step::Second(0.0))]
            }
        }
    }
}

/// By how much headers lie, where they do.
const LIE: f64 = 0.2;

/// One thing that happens. Servers are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    ScaleLimits(f64),
    Slow(usize, f64),
    Stop(usize),
    Start(usize),
    Servers(usize),
    /// The other client's requests of 100 rows a second.
    Second(f64),
}

/// Each server is slower by up to twice, anew every 20 to 60 s.
fn noise(random: &mut Random, length_s: f64) -> Vec<(f64, Step)> {
    let mut steps = Vec::new();
    for server in 0..4 {
        let mut at_s = 0.0;
        while at_s < length_s {
            steps.push((at_s, Step::Slow(server, 1.0 + random.unit())));
            at_s += 20.0 + 40.0 * random.unit();
        }
    }
    steps
}

/// Each of the four servers is away five times for 40 s, at some moment of each fifth of the run.
fn restarts(random: &mut Random, length_s: f64) -> Vec<(f64, Step)> {
    let mut steps = Vec::new();
    let fifth_s = length_s / 5.0;
    for turn in 0..5 {
        for server in 0..4 {
            let at_s = fifth_s * f64::from(turn) + (fifth_s - OUTAGE_S).max(0.0) * random.unit();
            steps.extend([(at_s, Step::Stop(server)), (at_s + OUTAGE_S, Step::Start(server))]);
        }
    }
    steps
}

pub(crate) const OUTAGE_S: f64 = 40.0;
