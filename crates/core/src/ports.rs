//! Where parts that must not know each other meet: traits implemented by the store or the binary.
//!
//! [`LaneLeases`] shares the limits of application users between the budgets of one host. A *lane* is
//! what one application user may use of one web server; it is held whole, by one budget at a time. What
//! a budget tells of a lane is opaque here and to the store: only budgets read it.

use std::fmt::Debug;
use std::time::Duration;

use jiff::Timestamp;

use crate::ConnectorError;

/// A lane that its holder does not renew for this long is free (performance notes, section 2.2).
pub const LANE_LEASE: Duration = Duration::from_secs(15);

/// The budgets of one host that share lanes.
pub trait LaneLeases: Send + Sync + Debug {
    /// Takes a seat for the budget of a connection.
    fn enter(&self, connection: &str, now: Timestamp) -> Result<Box<dyn LaneSeat>, ConnectorError>;
}

/// The place of one budget among those that share.
///
/// A seat that is dropped counts as that of a process that died: its lanes are free at once, and
/// their last checkpoints are what the next holder knows of them.
pub trait LaneSeat: Send + Sync + Debug {
    /// Tells what the budget did and learns which lanes are its own from now on: those that it holds
    /// are renewed for [`LANE_LEASE`], and it is given what is its fair share and free.
    fn beat(&self, now: Timestamp, beat: &Beat) -> Result<Beaten, ConnectorError>;

    /// The last beat: all lanes are given back.
    fn leave(&self, now: Timestamp, beat: &Beat) -> Result<(), ConnectorError>;
}

/// What a budget tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beat {
    pub users: Vec<UserBeat>,
    pub rows: Option<RowsBeat>,
    /// All that the budget knows, as JSON, for people who ask how it stands.
    pub snapshot: String,
}

/// What it tells of one application user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserBeat {
    /// The environment and the application user: budgets with the same identity share its lanes.
    pub identity: String,
    /// Whether it has work that needs lanes of its own.
    pub wants_lanes: bool,
    /// Every lane that it knows.
    pub lanes: Vec<LaneReport>,
}

/// What it tells of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneReport {
    /// The web server: its affinity cookie, or nothing where the service sets none.
    pub server: String,
    pub standing: Standing,
    /// What was used of the lane without holding it, since the last beat.
    pub used_as_guest: Option<String>,
}

/// How a budget stands to a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Holder {
        epoch: u64,
        checkpoint: String,
    },
    /// It held the lane, was asked for it, and sends nothing there any more.
    Left {
        epoch: u64,
        checkpoint: String,
    },
    Guest,
    /// The server answers no more.
    Gone,
}

/// Rows counted against a daily pool since the last beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsBeat {
    pub pool: String,
    pub rows: u64,
    /// Rows before this moment count no more.
    pub since: Timestamp,
}

/// What the budget learns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beaten {
    /// For each user of the beat every lane that any budget knows.
    pub users: Vec<Vec<SharedLane>>,
    /// Rows of the pool, of all who count.
    pub rows: u64,
}

/// One lane as all budgets of the host know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLane {
    pub server: String,
    pub tenure: Tenure,
    /// What its last holder told of it.
    pub checkpoint: Option<Checkpoint>,
    /// What guests used since that the holder has not counted yet; the holder is told once.
    pub guests: Vec<GuestUse>,
}

/// Whose the lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenure {
    /// The asker's.
    Held { epoch: u64 },
    /// The asker's, and another budget needs it: nothing more is to be sent there.
    Asked { epoch: u64 },
    /// Another budget's, or nobody's.
    NotHeld,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub state: String,
    pub at: Timestamp,
    /// Until when its holder may have sent more than the checkpoint tells.
    pub open_until: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestUse {
    pub used: String,
    pub at: Timestamp,
}
