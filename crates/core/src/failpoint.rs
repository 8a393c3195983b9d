//! Named moments between durable steps, at which a test may end the process, make a step fail or set the clock.
//!
//! A program installs what is to happen; without that, and in release builds, a failpoint is nothing.
//! Points are named `what.when`: `ledger.sync`, `manifest.swapped`. `cargo xtask faults` drives them.

use std::io;
use std::sync::OnceLock;

/// What happens at a point: the process may end there, or the step fail with the error.
pub type Handler = Box<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

static HANDLER: OnceLock<Handler> = OnceLock::new();

/// Decides what happens at points from now on; the first handler stays.
pub fn install(handler: Handler) {
    if HANDLER.set(handler).is_err() {
        debug_assert!(false, "failpoints are installed once");
    }
}

/// Passes a point.
pub fn hit(point: &'static str) -> io::Result<()> {
    match HANDLER.get() {
        Some(handler) if cfg!(debug_assertions) => handler(point),
        _ => Ok(()),
    }
}
