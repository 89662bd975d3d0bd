//! Messages of one stream to its peer. When the stream ends, what waits for a peer that does not
//! read is dropped: the peer's connection, which may last for an hour, keeps none of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::Status;

/// How long a peer may take to make room for the status that a stream ends with.
const LAST: Duration = Duration::from_secs(5);

pub type Sender<T> = mpsc::Sender<Result<T, Status>>;

enum State<T> {
    Open(mpsc::Receiver<Result<T, Status>>),
    Ended(Option<Status>),
}

/// The side that the connection reads.
pub struct Outbound<T>(Arc<Mutex<State<T>>>);

/// The side that ends the stream.
pub struct End<T>(Arc<Mutex<State<T>>>);

/// With room for so many messages.
pub fn outbound<T>(room: usize) -> (Sender<T>, Outbound<T>, End<T>) {
    let (send, receive) = mpsc::channel(room);
    let state = Arc::new(Mutex::new(State::Open(receive)));
    (send, Outbound(Arc::clone(&state)), End(state))
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> End<T> {
    /// Ends the stream with a status, after the messages that wait if the peer reads them in time.
    pub async fn with(self, status: Status, messages: &Sender<T>) {
        match tokio::time::timeout(LAST, messages.reserve()).await {
            Ok(Ok(room)) => room.send(Err(status)),
            // The peer has closed the stream, which needs no handling.
            Ok(Err(_)) => {}
            Err(_) => *lock(&self.0) = State::Ended(Some(status)),
        }
    }
}

impl<T> Stream for Outbound<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *lock(&self.0) {
            State::Open(messages) => messages.poll_recv(cx),
            State::Ended(status) => Poll::Ready(status.take().map(Err)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_peer_that_does_not_read_is_dropped_at_the_end() {
        let (send, mut outbound, end) = outbound(1);
        let message = Arc::new(());
        send.send(Ok(Arc::clone(&message))).await.unwrap();
        end.with(Status::aborted("enough"), &send).await;
        assert_eq!(Arc::strong_count(&message), 1);
        let last = outbound.next().await.unwrap();
        assert_eq!(last.unwrap_err().message(), "enough");
        assert!(outbound.next().await.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_reads_gets_all_of_it() {
        let (send, mut outbound, end) = outbound(1);
        send.send(Ok(1)).await.unwrap();
        let ending = tokio::spawn(async move { end.with(Status::aborted("enough"), &send).await });
        assert_eq!(outbound.next().await.unwrap().unwrap(), 1);
        assert!(outbound.next().await.unwrap().is_err());
        ending.await.unwrap();
        assert!(outbound.next().await.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_has_left_is_not_waited_for() {
        let (send, outbound, end) = outbound::<()>(1);
        drop(outbound);
        let began = tokio::time::Instant::now();
        end.with(Status::aborted("enough"), &send).await;
        assert!(began.elapsed() < LAST);
    }
}
