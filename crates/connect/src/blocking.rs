//! Reading that blocks, as a stream of batches.
//!
//! A worker thread reads ahead by a few batches and no more. The stream ends with an error when the
//! worker fails, panics or is cancelled: it never just ends early, which would look like a whole
//! read of a smaller source.

use flowgate_core::{Batch, CancellationToken, Code, ConnectorError, ErrorKind};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};

/// Batches that may wait for the consumer. Two keep both sides busy; more only cost memory.
pub(crate) const BATCHES_AHEAD_MAX: usize = 2;

type BatchResult = Result<Batch, ConnectorError>;

/// Where a worker puts its batches.
pub(crate) struct Sink {
    sender: mpsc::Sender<BatchResult>,
    cancel: CancellationToken,
}

impl Sink {
    /// Waits for room and hands over one batch.
    pub(crate) fn send(&self, batch: Batch) -> Result<(), ConnectorError> {
        self.check()?;
        self.sender.blocking_send(Ok(batch)).map_err(|_| ConnectorError::cancelled())
    }

    /// Fails once nobody wants the batches any more.
    pub(crate) fn check(&self) -> Result<(), ConnectorError> {
        if self.cancel.is_cancelled() || self.sender.is_closed() {
            return Err(ConnectorError::cancelled());
        }
        Ok(())
    }
}

/// Runs `work` on a thread that may block, and streams what it sends.
pub(crate) fn batches(
    cancel: CancellationToken,
    work: impl FnOnce(&Sink) -> Result<(), ConnectorError> + Send + 'static,
) -> BoxStream<'static, BatchResult> {
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD_MAX);
    let sink = Sink { sender, cancel: cancel.clone() };
    let worker = tokio::task::spawn_blocking(move || work(&sink));
    forward(receiver, worker, cancel)
}

/// Streams a worker's batches until it is done, then the error it ended with, if any.
pub(crate) fn forward(
    receiver: mpsc::Receiver<BatchResult>,
    worker: JoinHandle<Result<(), ConnectorError>>,
    cancel: CancellationToken,
) -> BoxStream<'static, BatchResult> {
    let state = Some((receiver, worker, cancel));
    stream::unfold(state, |state| async move {
        let (mut receiver, worker, cancel) = state?;
        let Some(batch) = cancel.run_until_cancelled(receiver.recv()).await else {
            return Some((Err(ConnectorError::cancelled()), None));
        };
        match batch {
            Some(Ok(batch)) => Some((Ok(batch), Some((receiver, worker, cancel)))),
            Some(Err(error)) => Some((Err(error), None)),
            None => finish(worker).await.err().map(|error| (Err(error), None)),
        }
    })
    .boxed()
}

async fn finish(worker: JoinHandle<Result<(), ConnectorError>>) -> Result<(), ConnectorError> {
    worker.await.map_err(panicked)?
}

/// Runs `work` on a thread that may block.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConnectorError> + Send + 'static,
) -> Result<T, ConnectorError> {
    tokio::task::spawn_blocking(work).await.map_err(panicked)?
}

fn panicked(error: JoinError) -> ConnectorError {
    ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "a reading task stopped unexpectedly").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::RecordBatch;
    use arrow_schema::Schema;
    use futures::TryStreamExt;

    use super::*;

    fn empty() -> Batch {
        Batch::of(RecordBatch::new_empty(Arc::new(Schema::empty())))
    }

    #[tokio::test]
    async fn an_error_comes_after_the_batches_before_it() {
        let mut batches = batches(CancellationToken::new(), |sink| {
            sink.send(empty())?;
            Err(ConnectorError::new(ErrorKind::Data, Code::MALFORMED_FILE, "damaged"))
        });
        assert!(batches.next().await.unwrap().is_ok());
        assert_eq!(batches.next().await.unwrap().unwrap_err().message, "damaged");
        assert!(batches.next().await.is_none());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_an_end() {
        let batches = batches(CancellationToken::new(), |_| panic!("on purpose"));
        let error = batches.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(error.code, Code::INTERNAL);
    }

    #[tokio::test]
    async fn cancelling_ends_an_endless_worker() {
        let cancel = CancellationToken::new();
        let mut batches = batches(cancel.clone(), |sink| {
            loop {
                sink.send(empty())?;
            }
        });
        assert!(batches.next().await.unwrap().is_ok());
        cancel.cancel();
        assert_eq!(batches.next().await.unwrap().unwrap_err().kind, ErrorKind::Cancelled);
    }
}
