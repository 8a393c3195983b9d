//! The connectors against real files and servers.

mod files_input;
mod support;
