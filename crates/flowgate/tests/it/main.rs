//! The built binary, as a person and as a script meet it.

mod support;

mod bad_input;
mod commands;
mod interruption;
mod output;
mod service;
mod usage;
