//! Transforms: one SELECT over the staged images of a flow, in a sandbox.
//!
//! [`inspect`] reads a transform offline and says which tables it names. A [`Session`] plans and
//! runs it with DataFusion over Parquet images, under a memory limit, spilling to a directory of
//! its own. The dialect is DataFusion's, which is close to PostgreSQL's.
//!
//! Out of reach of a transform: files and URLs, DDL, DML, settings, the catalog, and functions whose
//! answer differs from run to run (`random`, `uuid`), because a run must be repeatable from its
//! staged images.

mod bounds;
mod error;
mod growth;
mod moments;
mod session;
mod statement;
#[cfg(test)]
mod tests;

pub use bounds::STACK_BYTES;
pub use error::{Place, SqlError};
pub use session::{Limits, Rows, Session, Transform};
pub use statement::{Inspected, inspect};
