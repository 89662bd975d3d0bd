//! Answers that count until they are read. A client that does not read one in time gets no more of it,
//! so that the memory is free for others.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::HeldLoad;

/// For an answer to be read, whatever its length.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Bytes a second: what a longer answer has beyond that.
const SLOWEST: usize = 256 << 10;
/// What is written at once. It is a copy, which does not count.
const FRAME: usize = 64 << 10;

/// The body of an answer.
pub struct HeldAnswer {
    content: Arc<AnswerContent>,
    allowed: Duration,
    expiry: AbortHandle,
}

/// An answer was not read in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it was not read within {} s; read faster, or ask for less", .0.as_secs())]
pub struct UnreadAnswer(Duration);

/// `None`: it was not read in time.
struct AnswerContent(Mutex<Option<UnreadPieces>>);

struct UnreadPieces {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first one that were written.
    written: usize,
    /// Bytes that were not.
    left: usize,
    _held: HeldLoad,
}

impl AnswerContent {
    fn lock(&self) -> MutexGuard<'_, Option<UnreadPieces>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldAnswer {
    /// Must be called on a runtime.
    pub fn new(pieces: Vec<Vec<u8>>, held: HeldLoad) -> Self {
        let bytes = pieces.iter().map(Vec::len).fold(0, usize::saturating_add);
        let more = u64::try_from(bytes / SLOWEST).unwrap_or(u64::MAX);
        let allowed = READ_WITHIN.saturating_add(Duration::from_secs(more));
        HeldAnswer::within(allowed, pieces, held)
    }

    fn within(allowed: Duration, pieces: Vec<Vec<u8>>, held: HeldLoad) -> Self {
        let content = Arc::new(AnswerContent(Mutex::new(Some(UnreadPieces {
            left: pieces.iter().map(Vec::len).fold(0, usize::saturating_add),
            pieces: pieces.into(),
            written: 0,
            _held: held,
        }))));
        let expiring = Arc::downgrade(&content);
        let expiry = tokio::spawn(async move {
            sleep(allowed).await;
            if let Some(content) = expiring.upgrade() {
                drop(content.lock().take());
            }
        });
        HeldAnswer {
            content,
            allowed,
            expiry: expiry.abort_handle(),
        }
    }
}

impl UnreadPieces {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.pieces.front()?.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.pieces.pop_front();
                self.written = 0;
                continue;
            }
            let frame = Bytes::copy_from_slice(rest.get(..FRAME).unwrap_or(rest));
            self.written = self.written.saturating_add(frame.len());
            self.left = self.left.saturating_sub(frame.len());
            return Some(frame);
        }
    }
}

impl Body for HeldAnswer {
    type Data = Bytes;
    type Error = UnreadAnswer;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UnreadAnswer>>> {
        Poll::Ready(match self.content.lock().as_mut() {
            Some(content) => content.next().map(|frame| Ok(Frame::data(frame))),
            None => Some(Err(UnreadAnswer(self.allowed))),
        })
    }

    fn is_end_stream(&self) -> bool {
        let content = self.content.lock();
        content.as_ref().is_some_and(|content| content.left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.content.lock().as_ref().map(|content| content.left);
        let left = left.and_then(|left| u64::try_from(left).ok());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::{LoadHolder, RequestLoad};
    use super::*;

    fn held(load: &Arc<RequestLoad>, bytes: usize) -> HeldLoad {
        let mut held = load.page(LoadHolder::ApiToken).unwrap();
        held.grow(bytes).unwrap();
        held.answered()
    }

    #[tokio::test]
    async fn an_answer_counts_until_it_is_read() {
        let load = Arc::new(RequestLoad::default());
        let pieces = vec![vec![1; FRAME + 1], Vec::new(), vec![2; 3]];
        let mut body = HeldAnswer::new(pieces.clone(), held(&load, 7));
        assert_eq!(body.size_hint().exact(), Some(FRAME as u64 + 4));
        let mut read = Vec::new();
        for length in [FRAME, 1, 3] {
            assert_eq!(load.bytes(), 7);
            assert!(!body.is_end_stream());
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.len(), length);
            read.extend(frame);
        }
        assert_eq!(read, pieces.concat());
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(load.bytes(), 0);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_read_in_time_breaks_off() {
        let load = Arc::new(RequestLoad::default());
        let pieces = vec![vec![1; 3 * FRAME]];
        let mut body = HeldAnswer::within(Duration::from_millis(5), pieces, held(&load, 7));
        assert!(body.frame().await.unwrap().is_ok());
        while load.bytes() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!body.is_end_stream());
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_long_answer_may_take_longer() {
        let load = Arc::new(RequestLoad::default());
        let allowed = |bytes| HeldAnswer::new(vec![vec![0; bytes]], held(&load, 1)).allowed;
        assert_eq!(allowed(0), READ_WITHIN);
        assert_eq!(allowed(4 * SLOWEST), READ_WITHIN + Duration::from_secs(4));
    }
}
