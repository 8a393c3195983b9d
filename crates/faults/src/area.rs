//! The areas of faults, as a table.

use anyhow::Result;
use clap::ValueEnum;

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;
use crate::{answers, disk, kills, state};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    Pr,
    Night,
}

/// One kind of trouble.
pub(crate) struct Area {
    pub(crate) name: &'static str,
    pub(crate) pr_cases: usize,
    pub(crate) night_cases: usize,
    /// Each must be met in this share of the cases, in percent.
    pub(crate) kinds: &'static [&'static str],
    pub(crate) share_percent_min: usize,
    pub(crate) run: fn(&mut Bench, usize, &mut Random) -> Result<Outcome>,
}

impl Area {
    pub(crate) fn cases(&self, tier: Tier) -> usize {
        match tier {
            Tier::Pr => self.pr_cases,
            Tier::Night => self.night_cases,
        }
    }
}

pub(crate) const AREAS: &[Area] = &[
    // `kill -9`: all that matters is where in a row's journey it comes.
    Area {
        name: "kills",
        pr_cases: 42,
        night_cases: 1_020,
        kinds: kills::KINDS,
        share_percent_min: 10,
        run: kills::case,
    },
    // A step of the disk fails once.
    Area { name: "disk", pr_cases: 22, night_cases: 1_000, kinds: disk::KINDS, share_percent_min: 3, run: disk::case },
    // The service's answers are lost, late, wrong or missing.
    Area {
        name: "answers",
        pr_cases: 48,
        night_cases: 8_000,
        kinds: answers::KINDS,
        share_percent_min: 5,
        run: answers::case,
    },
    // Local state is damaged, and two processes want it.
    Area {
        name: "state",
        pr_cases: 12,
        night_cases: 400,
        kinds: state::KINDS,
        share_percent_min: 10,
        run: state::case,
    },
];
