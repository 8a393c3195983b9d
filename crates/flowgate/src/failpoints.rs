//! Failures on request, in dev builds only: `FLOWGATE_FAILPOINT=ledger.sync:3:kill`.
//!
//! The third time the point is passed, the process ends as by `kill -9`; `eio` and `enospc` make the step fail, and
//! `clock=-3600` sets the wall clock back by an hour. `*` stands for every point.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use flowgate_core::{Clock, Code, Elapsed, failpoint};
use flowgate_http::SystemClock;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};

use crate::failure::Failure;

const VARIABLE: &str = "FLOWGATE_FAILPOINT";

/// By how much the wall clock was set forward.
static CLOCK_SET_S: AtomicI64 = AtomicI64::new(0);

/// What is done at the point.
#[derive(Debug, Clone, Copy)]
enum Action {
    Kill,
    Fail(rustix::io::Errno),
    SetClock(i64),
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "kill" => Self::Kill,
            "eio" => Self::Fail(rustix::io::Errno::IO),
            "enospc" => Self::Fail(rustix::io::Errno::NOSPC),
            _ => Self::SetClock(text.strip_prefix("clock=")?.parse().ok()?),
        })
    }

    fn act(self) -> io::Result<()> {
        match self {
            Self::Kill => end(),
            Self::Fail(errno) => Err(io::Error::from(errno)),
            Self::SetClock(seconds) => {
                CLOCK_SET_S.store(seconds, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

/// Arms the failpoint that the environment names, if any.
pub(crate) fn arm() -> Result<(), Failure> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let text = text.to_string_lossy().into_owned();
    let parts: Vec<&str> = text.split(':').collect();
    let (Some(nth), &[point, _, action]) = (parts.get(1).and_then(|nth| nth.parse::<u64>().ok()), parts.as_slice())
    else {
        return Err(Failure::new(Code::USAGE, format!("`{VARIABLE}` is not `point:nth:action`: `{text}`")));
    };
    let Some(action) = Action::parse(action) else {
        let message = format!("`{action}` is not `kill`, `eio`, `enospc` or `clock=` and seconds");
        return Err(Failure::new(Code::USAGE, message));
    };
    let point = point.to_owned();
    let passed = AtomicU64::new(0);
    failpoint::install(Box::new(move |name| {
        let is_meant = point == "*" || name == point;
        if is_meant && passed.fetch_add(1, Ordering::SeqCst) + 1 == nth { action.act() } else { Ok(()) }
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

/// The machine's clock, which a failpoint may set.
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SettableClock(SystemClock::new(1.0)))
}

#[derive(Debug)]
struct SettableClock(SystemClock);

impl Clock for SettableClock {
    fn now(&self) -> Timestamp {
        let set = SignedDuration::from_secs(CLOCK_SET_S.load(Ordering::SeqCst));
        self.0.now().saturating_add(set).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Elapsed {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}
