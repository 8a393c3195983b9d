//! Where every row is, and the equations that must hold between the counts (design section 5).

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// One equation that does not hold: a defect of ours, never of the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{equation}: {left} is not {right}")]
pub struct Imbalance {
    pub equation: &'static str,
    pub left: u64,
    pub right: u64,
}

fn balance(equation: &'static str, left: u64, right: u64) -> Result<(), Imbalance> {
    if left == right { Ok(()) } else { Err(Imbalance { equation, left, right }) }
}

/// The rows of one stream in one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRows {
    /// Rows and lines that the source gave.
    pub extracted: u64,
    /// Rows that are in the staged image because of this read.
    pub staged: u64,
    /// Rows set aside as letters because they are not of the stream's form.
    pub malformed: u64,
}

impl StreamRows {
    pub fn check(&self) -> Result<(), Imbalance> {
        balance("extracted = staged + malformed", self.extracted, self.staged + self.malformed)
    }
}

/// The rows of one load in one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadRows {
    /// Rows that the load's SELECT returned.
    pub prepared: u64,
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    /// Rows that lost to another prepared row with the same key.
    pub superseded: u64,
    /// Rows set aside as letters.
    pub quarantined: u64,
    /// Rows not yet in any other class.
    pub pending: u64,
    /// Driver rows that the SELECT did not return.
    pub dropped: u64,
    /// Keys of the last state that the SELECT no longer returns.
    pub gone: u64,
    pub deleted: u64,
    pub deactivated: u64,
    /// Gone rows left as they are, remembered as tombstones.
    pub kept: u64,
    pub gone_pending: u64,
    pub gone_quarantined: u64,
}

impl LoadRows {
    /// Checks both equations of a load.
    pub fn check(&self) -> Result<(), Imbalance> {
        balance(
            "prepared = created + updated + unchanged + superseded + quarantined + pending",
            self.prepared,
            self.created + self.updated + self.unchanged + self.superseded + self.quarantined + self.pending,
        )?;
        balance(
            "gone = deleted + deactivated + kept + gone_pending + gone_quarantined",
            self.gone,
            self.deleted + self.deactivated + self.kept + self.gone_pending + self.gone_quarantined,
        )
    }

    /// Whether nothing waits any more.
    pub fn is_complete(&self) -> bool {
        self.pending == 0 && self.gone_pending == 0
    }

    pub fn has_quarantined(&self) -> bool {
        self.quarantined > 0 || self.gone_quarantined > 0
    }
}

impl AddAssign for LoadRows {
    fn add_assign(&mut self, other: Self) {
        self.prepared += other.prepared;
        self.created += other.created;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.superseded += other.superseded;
        self.quarantined += other.quarantined;
        self.pending += other.pending;
        self.dropped += other.dropped;
        self.gone += other.gone;
        self.deleted += other.deleted;
        self.deactivated += other.deactivated;
        self.kept += other.kept;
        self.gone_pending += other.gone_pending;
        self.gone_quarantined += other.gone_quarantined;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexplained_row_is_an_imbalance() {
        let mut rows = LoadRows { prepared: 10, created: 7, superseded: 1, pending: 2, ..LoadRows::default() };
        assert_eq!(rows.check(), Ok(()));
        assert!(!rows.is_complete());
        rows.pending = 1;
        assert_eq!(rows.check().map_err(|error| (error.left, error.right)), Err((10, 9)));
    }

    #[test]
    fn every_gone_row_is_explained() {
        let rows = LoadRows { gone: 3, deleted: 1, kept: 1, ..LoadRows::default() };
        assert!(rows.check().is_err());
    }
}
