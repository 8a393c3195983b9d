//! Ctrl-C and SIGTERM: the first asks the command to stop in order, the second ends it at once.
//!
//! A command that only reads, or has nothing under way whose answer matters, gets [`GRACE`] to stop in order: a query
//! without progress, a source that hangs or a file system that does not answer would otherwise never hear of it. What
//! is durable is enough to go on from, as after the second Ctrl-C. Requests under way are given the time they need.
//!
//! The signals are heard on a thread of their own: an operator that never yields may hold every other one.

use std::time::Duration;

use flowgate_core::CancellationToken;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

/// How long a command may take to stop in order while nothing is under way.
const GRACE: Duration = Duration::from_millis(700);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the first signal does to a command that does not stop by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It ends when [`GRACE`] is over and no request is under way.
    Soon,
    /// It is left to tidy up: it writes at a destination, or has children.
    InOrder,
}

pub(crate) fn watch(cancel: CancellationToken, stop: Stop, printer: Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let listen = move || {
        runtime.block_on(async move {
            either(&mut interrupt, &mut terminate).await;
            cancel.cancel();
            printer.note("stopping in order; once more stops at once");
            tokio::select! {
                () = either(&mut interrupt, &mut terminate) => {}
                () = grace_is_over(), if stop == Stop::Soon => {}
            }
            stop_at_once();
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
    Ok(())
}

/// Comes when nothing was under way for as long as [`GRACE`].
async fn grace_is_over() {
    let mut idle = Duration::ZERO;
    while idle < GRACE {
        tokio::time::sleep(LOOK_EVERY).await;
        idle = if flowgate_engine::is_settling() { Duration::ZERO } else { idle + LOOK_EVERY };
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::exit, reason = "what is durable is enough to go on from")]
fn stop_at_once() {
    std::process::exit(i32::from(Exit::Interrupted.status()));
}
