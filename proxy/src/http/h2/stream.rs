//! Shared by both ends of an HTTP/2 stream: sending within the peer's windows, reading with ours.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::super::h1::BodyEvent;
use super::convert;
use super::prefixed::WireState;
use crate::message::head::Head;
use crate::stream::chunk::Chunk;

/// Bytes queued for the peer's window from which on the source is not read.
const QUEUE: usize = 64 * 1024;
/// Bytes queued by all streams of a connection, from which on each queues one piece at most.
const CONNECTION_QUEUE: usize = 1024 * 1024;

/// The sending half.
pub struct Sending {
    stream: SendStream<Chunk>,
    queue: VecDeque<Bytes>,
    queued: Queued,
    end: StreamEnd,
}

/// Queued bytes, counted for the stream and for its connection.
#[derive(Default)]
struct Queued {
    bytes: usize,
    /// The connection that carries the stream.
    wire: Option<Rc<WireState>>,
}

impl Queued {
    fn set(&mut self, bytes: usize) {
        if let Some(wire) = &self.wire {
            let others = wire.queued.get().saturating_sub(self.bytes);
            wire.queued.set(others.saturating_add(bytes));
        }
        self.bytes = bytes;
    }

    /// Whether few enough bytes are queued to queue more.
    fn has_room(&self) -> bool {
        let is_full = |wire: &Rc<WireState>| wire.queued.get() >= CONNECTION_QUEUE;
        match self.wire.as_ref().is_some_and(is_full) {
            true => self.bytes == 0,
            false => self.bytes < QUEUE,
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.set(0);
    }
}

enum StreamEnd {
    NotYet,
    Plain,
    Trailers(HeaderMap),
    Sent,
}

impl Sending {
    pub fn new(stream: SendStream<Chunk>) -> Self {
        Self {
            stream,
            queue: VecDeque::new(),
            queued: Queued::default(),
            end: StreamEnd::NotYet,
        }
    }

    /// Counts its queued bytes for the connection too, which bounds them.
    pub fn through(mut self, wire: Rc<WireState>) -> Self {
        self.queued.wire = Some(wire);
        self
    }

    /// Data is blocked on the peer's flow-control window.
    pub fn is_stalled(&self) -> bool {
        self.queued.bytes > 0
    }

    /// The head carried END_STREAM.
    pub fn ended(stream: SendStream<Chunk>) -> Self {
        let mut sending = Self::new(stream);
        sending.end = StreamEnd::Sent;
        sending
    }

    pub fn data(&mut self, data: Bytes) {
        if !data.is_empty() && !matches!(self.end, StreamEnd::Sent) {
            self.queued
                .set(self.queued.bytes.saturating_add(data.len()));
            self.queue.push_back(data);
        }
    }

    pub fn end(&mut self, trailers: Option<&Head>) {
        if matches!(self.end, StreamEnd::Sent) {
            return;
        }
        self.end = match trailers {
            Some(trailers) if !trailers.is_empty() => {
                StreamEnd::Trailers(convert::trailers_out(trailers))
            }
            _ => StreamEnd::Plain,
        };
    }

    /// Only when nothing is queued.
    pub fn into_stream(self) -> SendStream<Chunk> {
        debug_assert!(self.queue.is_empty());
        self.stream
    }

    /// The end was sent.
    pub fn is_ended(&self) -> bool {
        matches!(self.end, StreamEnd::Sent)
    }

    pub fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }

    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<h2::Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if self.queued.has_room() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    /// Hands everything that waits to the connection, as far as the peer's windows let it.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Some(front) = self.queue.front_mut() {
            // While the socket does not accept bytes, h2 would queue them without bound.
            if let Some(wire) = &self.queued.wire {
                ready!(wire.poll_writable(cx));
            }
            let mut capacity = self.stream.capacity();
            if capacity == 0 {
                self.stream.reserve_capacity(self.queued.bytes);
                capacity = self.stream.capacity();
            }
            if capacity == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
                }
            }
            let piece = front.split_to(capacity.min(front.len()));
            if front.is_empty() {
                self.queue.pop_front();
            }
            self.queued
                .set(self.queued.bytes.saturating_sub(piece.len()));
            let last = self.queue.is_empty() && matches!(self.end, StreamEnd::Plain);
            self.stream.send_data(piece.into(), last)?;
            if last {
                self.end = StreamEnd::Sent;
            }
        }
        match std::mem::replace(&mut self.end, StreamEnd::Sent) {
            StreamEnd::NotYet => self.end = StreamEnd::NotYet,
            StreamEnd::Plain => self.stream.send_data(Bytes::new().into(), true)?,
            StreamEnd::Trailers(trailers) => self.stream.send_trailers(trailers)?,
            StreamEnd::Sent => {}
        }
        Poll::Ready(Ok(()))
    }
}

/// The receiving half. The window opens again as pieces are read, not as they arrive.
pub struct Receiving {
    stream: RecvStream,
    unreleased: usize,
    in_trailers: bool,
    done: bool,
}

impl Receiving {
    pub fn new(stream: RecvStream) -> Self {
        let done = stream.is_end_stream();
        Self {
            stream,
            unreleased: 0,
            in_trailers: false,
            done,
        }
    }

    pub fn into_stream(mut self) -> RecvStream {
        if self.unreleased > 0 {
            // Fails only for a stream that has ended; the next read returns its error.
            let _ = self.stream.flow_control().release_capacity(self.unreleased);
        }
        self.stream
    }

    /// Everything was read.
    pub fn is_done(&self) -> bool {
        self.done
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Head,
    ) -> Poll<Result<BodyEvent, h2::Error>> {
        if self.unreleased > 0 {
            let count = std::mem::take(&mut self.unreleased);
            // Fails only for a stream that has ended; the next read returns its error.
            let _ = self.stream.flow_control().release_capacity(count);
        }
        while !self.done && !self.in_trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    return Poll::Ready(Ok(BodyEvent::Data(data)));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.in_trailers = true,
            }
        }
        if !self.done {
            let received = ready!(self.stream.poll_trailers(cx))?;
            self.done = true;
            if let Some(map) = received {
                convert::trailers_in(trailers, &map);
                return Poll::Ready(Ok(BodyEvent::Trailers));
            }
        }
        Poll::Ready(Ok(BodyEvent::End))
    }
}
