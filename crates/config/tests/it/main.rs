//! Whole projects, good and bad, read with a registry of made-up connectors.

mod good;
mod init;
mod mistakes;
mod registry;
mod schema;
