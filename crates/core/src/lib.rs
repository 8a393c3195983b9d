//! The vocabulary and the contracts of Flowgate.
//!
//! What every other crate may rely on: names, the checked [`Project`], the shape of a source and
//! of a destination, the classes a row can end in and the equations between them, and the codes of
//! errors a person sees.
//!
//! Deliberately absent: I/O, a clock, randomness, an async runtime. Time and cancellation come in
//! through [`Clock`] and [`CancellationToken`]; everything else is data.

pub mod accounting;
pub mod clock;
pub mod code;
pub mod connector;
pub mod decimal;
pub mod destination;
pub mod error;
pub mod examination;
pub mod failpoint;
pub mod hours;
pub mod key;
pub mod moment;
pub mod name;
pub mod nearest;
pub mod notes;
pub mod ports;
pub mod project;
pub mod redaction;
pub mod secret;
pub mod shape;
pub mod source;

pub use accounting::{LoadRows, StreamRows};
pub use clock::{Clock, Elapsed};
pub use code::Code;
pub use destination::{Destination, Operation, Outcome, WriteUnit};
pub use error::{ConnectorError, ErrorKind};
pub use key::KeyHash;
pub use moment::WallClock;
pub use name::{ConnectionName, EnvironmentName, FlowName, LoadName, RunId, StreamName};
pub use notes::{Note, Notes};
pub use project::Project;
pub use secret::Secret;
pub use shape::{ColumnKind, ColumnShape, TableShape};
pub use source::{Batch, Cursor, Source};
pub use tokio_util::sync::CancellationToken;
