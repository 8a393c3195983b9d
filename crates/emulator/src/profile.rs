//! What requests cost: profiles as data, and the arithmetic of service time.
//!
//! Promise: `realistic` is read from its file, frozen by version; `instant` and `sink` cost
//! nothing and limit nothing until told otherwise. Left out: waiting, which is the server's part.

use serde::{Deserialize, Serialize};

use crate::limits::LimitSettings;

const REALISTIC: &str = include_str!("profiles/realistic.yaml");

/// Which profile an emulator runs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProfileName {
    /// No latency and no limits.
    #[default]
    Instant,
    /// The documented limits and the measured costs.
    Realistic,
    /// As instant, and rows keep their keys only.
    Sink,
}

/// Seconds of fixed and per-row work, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    pub base_ms: f64,
    pub row_ms: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    pub create: Cost,
    pub update: Cost,
    pub upsert: Cost,
    pub elastic: Cost,
    pub delete: Cost,
    pub single: Cost,
    pub batch: Cost,
    pub read: Cost,
    pub metadata: Cost,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    pub servers: u16,
    pub round_trip_ms: f64,
    pub parallel_per_server: u32,
    pub noise_sigma: f64,
    pub dop_hint_per_server: u16,
    pub costs: Costs,
    pub limits: LimitSettings,
    pub entitlement_per_day: u64,
}

/// What a request did, so that its cost can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    pub message: Message,
    pub rows: u64,
    /// Milliseconds of plug-in time on top.
    pub extra_ms: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Message {
    CreateMultiple,
    UpdateMultiple,
    UpsertMultiple,
    DeleteMultiple,
    Elastic,
    #[default]
    Single,
    Batch,
    Read,
    Metadata,
}

impl Profile {
    pub fn named(name: ProfileName) -> Result<Profile, String> {
        let realistic: Profile = serde_saphyr::from_str(REALISTIC).map_err(|error| error.to_string())?;
        Ok(match name {
            ProfileName::Realistic => realistic,
            ProfileName::Instant | ProfileName::Sink => Profile {
                round_trip_ms: 0.0,
                noise_sigma: 0.0,
                costs: Costs::default(),
                limits: LimitSettings { requests: None, execution_ms: None, concurrent: None, ..realistic.limits },
                ..realistic
            },
        })
    }

    /// Milliseconds a server works on a request while `running` requests share it. `noise` is a
    /// standard normal draw.
    pub fn service_ms(&self, work: Work, running: u32, noise: f64) -> f64 {
        let cost = match work.message {
            Message::CreateMultiple => self.costs.create,
            Message::UpdateMultiple => self.costs.update,
            Message::UpsertMultiple => self.costs.upsert,
            Message::DeleteMultiple => self.costs.delete,
            Message::Elastic => self.costs.elastic,
            Message::Single => self.costs.single,
            Message::Batch => self.costs.batch,
            Message::Read => self.costs.read,
            Message::Metadata => self.costs.metadata,
        };
        let crowding = (f64::from(running) / f64::from(self.parallel_per_server.max(1))).max(1.0);
        let calm = cost.base_ms + cost.row_ms * work.rows as f64 + work.extra_ms;
        calm * crowding * (self.noise_sigma * noise).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_of_100_rows_takes_a_second_and_twice_that_on_a_crowded_server() {
        let profile = Profile::named(ProfileName::Realistic).unwrap();
        let work = Work { message: Message::CreateMultiple, rows: 100, extra_ms: 0.0 };
        assert!((profile.service_ms(work, 1, 0.0) - 1030.0).abs() < 1e-9);
        assert!((profile.service_ms(work, 32, 0.0) - 2060.0).abs() < 1e-9);
    }

    #[test]
    fn instant_costs_nothing() {
        let profile = Profile::named(ProfileName::Instant).unwrap();
        let work = Work { message: Message::UpdateMultiple, rows: 1000, extra_ms: 0.0 };
        assert!(profile.service_ms(work, 99, 1.0).abs() < 1e-9);
        assert!(profile.limits.requests.is_none());
    }
}
