//! Ctrl-C and SIGTERM: the first asks the command to stop in order, the second ends it at once.

use flowgate_core::CancellationToken;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::render::Printer;

pub(crate) fn watch(cancel: CancellationToken, printer: Printer) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        cancel.cancel();
        printer.note("stopping in order; once more stops at once");
        either(&mut interrupt, &mut terminate).await;
        stop_at_once();
    });
    Ok(())
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::exit, reason = "asked for twice: what is durable is enough to go on from")]
fn stop_at_once() {
    std::process::exit(i32::from(Exit::Interrupted.status()));
}
