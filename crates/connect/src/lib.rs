//! Connectors, one file each, and the registry that lists them.
//!
//! [`CONNECTORS`] is the table: what a connector is called, what it can be, how its blocks of YAML
//! are checked and how it is opened. Everything else of a connector stays private; the rest of the
//! program meets it as a [`Source`](flowgate_core::Source) or a
//! [`Destination`](flowgate_core::Destination). Nothing registers itself.
//!
//! Left out: retries, budgets, staging. The kind of a connector's error says what sort of failure it was;
//! what follows from it is decided above.

mod blocking;
mod columns;
mod formats;
mod postgresql;
mod registry;
mod settings;
mod suggest;

pub use registry::{CONNECTORS, find, open_dataverse};
