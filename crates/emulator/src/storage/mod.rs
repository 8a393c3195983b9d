//! Rows in memory: a compact form, indexes, undo, and a log on disk when asked for.
//!
//! Promise: a transaction that fails leaves no trace, neither in rows and indexes nor in the
//! version counter and the change log; one that succeeds is in the log file before its answer
//! is sent. Left out: what a row may contain (`write`).

mod database;
mod event;
mod files;
mod log;
mod lookups;
mod pages;
mod row;
mod table;

pub(crate) use database::{BulkDeletion, Database, Image, Job, JobKind, StorageError};
pub(crate) use event::{Event, EventKey};
pub(crate) use files::{Place, Transfer, Upload};
pub use log::is_in_use;
pub(crate) use log::{DirectoryLock, create_private_dir};
pub(crate) use row::{Row, Value, ValueRef, encode, merge};
pub(crate) use table::{KeyViolation, key_hash};
