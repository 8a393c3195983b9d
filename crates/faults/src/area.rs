//! The areas of faults, as a table.

use anyhow::Result;
use clap::ValueEnum;

use crate::Outcome;
use crate::place::Bench;
use crate::random::Random;
use crate::{
    answers, clock, companions, disk, kills, late, lost, power, restores, rollbacks, schema, small_files, state,
    unearned, wire, zombies,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    Pr,
    Night,
}

/// How much of an area is run, and how many faults must come to pass in it.
pub(crate) struct Amount {
    pub(crate) cases: usize,
    pub(crate) faults_min: u64,
}

/// One kind of trouble.
pub(crate) struct Area {
    pub(crate) name: &'static str,
    /// Rows of the source: many where one run is to meet many faults.
    pub(crate) rows: u32,
    pub(crate) pr: Amount,
    pub(crate) night: Amount,
    /// Each must be met in this share of the cases, in percent.
    pub(crate) kinds: &'static [&'static str],
    pub(crate) share_percent_min: usize,
    pub(crate) run: fn(&mut Bench, usize, &mut Random) -> Result<Outcome>,
}

impl Area {
    pub(crate) fn of(&self, tier: Tier) -> &Amount {
        match tier {
            Tier::Pr => &self.pr,
            Tier::Night => &self.night,
        }
    }
}

/// Enough rows for each operation to have a request or two.
const FEW_ROWS: u32 = 700;
/// Enough for dozens of requests that write.
const MANY_ROWS: u32 = 12_000;

pub(crate) const AREAS: &[Area] = &[
    // `kill -9`: all that matters is where in a row's journey it comes.
    Area {
        name: "kills",
        rows: FEW_ROWS,
        pr: Amount { cases: 42, faults_min: 40 },
        night: Amount { cases: 1_020, faults_min: 1_000 },
        kinds: kills::KINDS,
        share_percent_min: 10,
        run: kills::case,
    },
    // Requests were run, or not, and nobody was told.
    Area {
        name: "lost",
        rows: MANY_ROWS,
        pr: Amount { cases: 3, faults_min: 60 },
        night: Amount { cases: 120, faults_min: 5_000 },
        kinds: lost::KINDS,
        share_percent_min: 20,
        run: lost::case,
    },
    // Requests are run after everybody gave up on them.
    Area {
        name: "zombies",
        rows: MANY_ROWS,
        pr: Amount { cases: 3, faults_min: 60 },
        night: Amount { cases: 60, faults_min: 3_000 },
        kinds: zombies::KINDS,
        share_percent_min: 20,
        run: zombies::case,
    },
    // A step of the disk fails once.
    Area {
        name: "disk",
        rows: FEW_ROWS,
        pr: Amount { cases: 18, faults_min: 16 },
        night: Amount { cases: 360, faults_min: 300 },
        kinds: disk::KINDS,
        share_percent_min: 3,
        run: disk::case,
    },
    // The n-th step of the disk fails, for every n.
    Area {
        name: "sweep",
        rows: FEW_ROWS,
        pr: Amount { cases: 8, faults_min: 6 },
        night: Amount { cases: disk::SWEEP_KINDS.len() * disk::STEPS_MAX, faults_min: 200 },
        kinds: disk::SWEEP_KINDS,
        share_percent_min: 10,
        run: disk::sweep,
    },
    // Power is cut: what was not synced may be there or not.
    Area {
        name: "power",
        rows: FEW_ROWS,
        pr: Amount { cases: 9, faults_min: 200 },
        night: Amount { cases: 540, faults_min: 20_000 },
        kinds: power::KINDS,
        share_percent_min: 5,
        run: power::case,
    },
    // The service's answers are refusals and nonsense.
    Area {
        name: "answers",
        rows: FEW_ROWS,
        pr: Amount { cases: 24, faults_min: 16 },
        night: Amount { cases: 800, faults_min: 500 },
        kinds: answers::KINDS,
        share_percent_min: 5,
        run: answers::case,
    },
    // Somebody else says that it is done.
    Area {
        name: "unearned",
        rows: FEW_ROWS,
        pr: Amount { cases: 16, faults_min: 16 },
        night: Amount { cases: 480, faults_min: 480 },
        kinds: unearned::KINDS,
        share_percent_min: 4,
        run: unearned::case,
    },
    // One of two streams comes empty.
    Area {
        name: "companions",
        rows: FEW_ROWS,
        pr: Amount { cases: 5, faults_min: 10 },
        night: Amount { cases: 200, faults_min: 400 },
        kinds: companions::KINDS,
        share_percent_min: 10,
        run: companions::case,
    },
    // Connections break.
    Area {
        name: "wire",
        rows: FEW_ROWS,
        pr: Amount { cases: 3, faults_min: 20 },
        night: Amount { cases: 90, faults_min: 600 },
        kinds: wire::KINDS,
        share_percent_min: 20,
        run: wire::case,
    },
    // The destination's table changes.
    Area {
        name: "schema",
        rows: FEW_ROWS,
        pr: Amount { cases: 12, faults_min: 12 },
        night: Amount { cases: 120, faults_min: 120 },
        kinds: schema::KINDS,
        share_percent_min: 10,
        run: schema::case,
    },
    // The wall clock is set.
    Area {
        name: "clock",
        rows: FEW_ROWS,
        pr: Amount { cases: 4, faults_min: 4 },
        night: Amount { cases: 100, faults_min: 100 },
        kinds: clock::KINDS,
        share_percent_min: 15,
        run: clock::case,
    },
    // Local state is damaged, and two processes want it.
    Area {
        name: "state",
        rows: FEW_ROWS,
        pr: Amount { cases: 10, faults_min: 8 },
        night: Amount { cases: 400, faults_min: 250 },
        kinds: state::KINDS,
        share_percent_min: 4,
        run: state::case,
    },
    // The destination goes back in time, or what was loaded is deleted there.
    Area {
        name: "restores",
        rows: FEW_ROWS,
        pr: Amount { cases: 16, faults_min: 14 },
        night: Amount { cases: 400, faults_min: 320 },
        kinds: restores::KINDS,
        share_percent_min: 5,
        run: restores::case,
    },
    // A backup of the state is put back.
    Area {
        name: "rollbacks",
        rows: FEW_ROWS,
        pr: Amount { cases: 10, faults_min: 9 },
        night: Amount { cases: 300, faults_min: 260 },
        kinds: rollbacks::KINDS,
        share_percent_min: 8,
        run: rollbacks::case,
    },
    // Requests are run late, after a run that does not just go on.
    Area {
        name: "late",
        rows: MANY_ROWS,
        pr: Amount { cases: 4, faults_min: 3 },
        night: Amount { cases: 120, faults_min: 90 },
        kinds: late::KINDS,
        share_percent_min: 10,
        run: late::case,
    },
    // Files may not grow: writes of the database fail too.
    Area {
        name: "small files",
        rows: FEW_ROWS,
        pr: Amount { cases: 12, faults_min: 8 },
        night: Amount { cases: 400, faults_min: 280 },
        kinds: small_files::KINDS,
        share_percent_min: 5,
        run: small_files::case,
    },
];
