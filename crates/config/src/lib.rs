//! A directory of YAML and SQL, read into a checked [`flowgate_core::Project`].
//!
//! Reading is offline: no system is reached, no secret is resolved. [`load`] finds every mistake
//! it can, not only the first, and [`Report`] shows each on its line with the nearest valid key.
//! [`schema()`] gives editors the same knowledge, made from the same tables. [`resolve_secrets`] is
//! for whoever opens a connection.
//!
//! No connector is known here: the caller hands in the registry, and a connector's own block goes
//! to the connector. SQL is read but not parsed.

mod check;
mod connection;
mod connector_block;
mod context;
mod cron;
mod definition;
mod environment;
mod files;
mod flow;
mod flowgate_yaml;
mod init;
mod load;
mod mask;
mod node;
mod order;
mod place;
mod project;
mod report;
mod rules;
mod schema;
mod secrets;
mod select;
mod style;
mod table;
mod template;
mod variables;

pub use init::new_project;
pub use place::{Place, SourceFile};
pub use project::{Loaded, PROJECT_FILE, load};
pub use report::{Problem, Related, Report, Severity};
pub use schema::schema;
pub use secrets::{ConfigError, resolve_secrets};
pub use style::Style;
