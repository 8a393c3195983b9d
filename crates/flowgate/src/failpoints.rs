//! Failures on request, in dev builds only: `FLOWGATE_FAILPOINT=ledger.sync:3:kill`.
//!
//! The third time the point is passed, the process ends as by `kill -9`; `eio` and `enospc` make the step fail.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use flowgate_core::{Code, failpoint};

use crate::failure::Failure;

const VARIABLE: &str = "FLOWGATE_FAILPOINT";

/// Arms the failpoint that the environment names, if any.
pub(crate) fn arm() -> Result<(), Failure> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let text = text.to_string_lossy().into_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let (Some(nth), &[point, _, action]) = (parts.get(1).and_then(|nth| nth.parse::<u64>().ok()), parts.as_slice())
    else {
        return Err(Failure::new(Code::USAGE, format!("`{VARIABLE}` is not `point:nth:action`: `{text}`")));
    };
    let error = match action {
        "kill" => None,
        "eio" => Some(rustix::io::Errno::IO),
        "enospc" => Some(rustix::io::Errno::NOSPC),
        _ => return Err(Failure::new(Code::USAGE, format!("`{action}` is not `kill`, `eio` or `enospc`"))),
    };
    let point = point.to_owned();
    let passed = AtomicU64::new(0);
    failpoint::install(Box::new(move |name| {
        if name != point || passed.fetch_add(1, Ordering::SeqCst) + 1 != nth {
            return Ok(());
        }
        match error {
            Some(errno) => Err(io::Error::from(errno)),
            None => end(),
        }
    }));
    Ok(())
}

/// Ends the process as `kill -9` does: nothing is flushed, closed or told.
fn end() -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    // The signal is on its way.
    loop {
        std::thread::park();
    }
}
