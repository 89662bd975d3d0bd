//! Forwards bodies: the request's to the upstream, the response's to the client.
//!
//! Pieces pass as slices of the read buffer. Each pump reads only while the sink's queue is below
//! its bound, so a slow reader on one side stops reading on the other. The request's pump keeps
//! what it sent, within a bound, for as long as the request may be retried.

mod replay;
mod response;

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use self::replay::Replay;
pub use self::response::ResponsePump;
use super::downstream::DownstreamIo;
use super::mirror::Feed;
use super::splice::{BodySplice, Reading, SpliceStep, Writing};
use super::upstream::UpstreamIo;
use crate::dispatcher::pipe::Pipes;
use crate::http::filter::{BodyFilters, Pulled};
use crate::http::h1::{BodyEvent, BodyLength};
use crate::http::request::error::Failure;
use crate::message::head::Head;

/// What a piece of a queue costs at least: an allocation, and what refers to it.
pub(super) const PIECE: usize = 64;

/// A request's body that was read before the request went on.
pub struct Received {
    pub pieces: Vec<Bytes>,
    pub trailers: Option<Head>,
}

/// Request body, downstream to upstream.
pub struct RequestPump {
    replay: Replay,
    /// Pieces of the replay that this attempt was given.
    given: usize,
    source: Source,
    end_given: bool,
    /// Writes to the upstream failed; its response may still come.
    is_write_closed: bool,
    /// The upstream has not taken all that is queued.
    blocked: bool,
    splice: BodySplice,
    /// What the body passes through; else it passes as it is.
    filters: Option<Box<BodyFilters>>,
    /// What was read before the request went on, and has not passed through `filters` yet.
    waiting: Option<VecDeque<Bytes>>,
    trailers: Head,
    has_trailers: bool,
    /// Mirrors and buffers that receive a copy of the body.
    feeds: Vec<Feed>,
    /// Body bytes received.
    pub bytes: u64,
    /// Something moved since this was last reset.
    pub moved: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Open,
    Ended,
    EndedWithTrailers,
}

impl RequestPump {
    pub fn new(body: BodyLength) -> Self {
        let none = matches!(body, BodyLength::None | BodyLength::Known(0));
        Self {
            replay: Replay::Off,
            given: 0,
            source: if none { Source::Ended } else { Source::Open },
            end_given: false,
            is_write_closed: false,
            blocked: false,
            splice: BodySplice::default(),
            filters: None,
            waiting: None,
            trailers: Head::new(),
            has_trailers: false,
            feeds: Vec::new(),
            bytes: 0,
            moved: false,
        }
    }

    /// Adds a receiver of copies, before any of the body was sent.
    pub fn feed(&mut self, feed: Feed) {
        if self.source != Source::Open {
            // A filter may have waited for the whole body already.
            if let Replay::Keep { pieces, .. } = &self.replay {
                pieces.iter().for_each(|piece| feed.data(piece));
            }
            feed.end();
        } else {
            self.feeds.push(feed);
        }
    }

    /// The body passes through `filters`; only before anything moved.
    pub fn pass_through(&mut self, filters: Option<Box<BodyFilters>>) {
        self.filters = filters;
    }

    /// A tunnel's bytes: never ended before they begin.
    pub fn for_tunnel() -> Self {
        Self::new(BodyLength::Unknown)
    }

    /// A body that is here already, and is still to pass through `filters`, if there are any.
    pub fn received(body: Received, filters: Option<Box<BodyFilters>>) -> Self {
        if filters.is_some() {
            return Self {
                filters,
                waiting: Some(body.pieces.into()),
                has_trailers: body.trailers.is_some(),
                trailers: body.trailers.unwrap_or_default(),
                ..Self::new(BodyLength::Unknown)
            };
        }
        let size = body.pieces.iter().map(Bytes::len).sum();
        Self {
            replay: Replay::Keep {
                pieces: body.pieces,
                size,
                limit: size,
            },
            source: match body.trailers {
                Some(_) => Source::EndedWithTrailers,
                None => Source::Ended,
            },
            trailers: body.trailers.unwrap_or_default(),
            bytes: size as u64,
            ..Self::new(BodyLength::None)
        }
    }

    /// The next attempt begins.
    pub fn rewind(&mut self) {
        self.given = 0;
        self.end_given = false;
        self.is_write_closed = false;
        self.blocked = false;
    }

    /// The whole request was received.
    pub fn is_received(&self) -> bool {
        let filters = self.filters.as_deref();
        self.source != Source::Open
            || self.waiting.is_some()
            || filters.is_some_and(BodyFilters::is_ended)
    }

    /// The whole request was handed to the upstream.
    pub fn is_sent(&self) -> bool {
        self.end_given && !self.is_write_closed
    }

    /// Whether a peer keeps bytes of the body in memory: the upstream does not take them, or the
    /// client does not send the rest of what is kept for a retry, or of what is decoded.
    pub fn is_stalled(&self) -> bool {
        let is_decoding = self
            .filters
            .as_deref()
            .is_some_and(BodyFilters::is_decoding);
        let is_keeping =
            is_decoding || matches!(&self.replay, Replay::Keep { size, .. } if *size > 0);
        self.blocked || self.splice.is_holding() || is_keeping && !self.is_received()
    }

    /// Moves what can be moved. Ready when nothing is left to do: all was sent, or writes to the
    /// upstream failed.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        up: &mut UpstreamIo,
        pipes: &Pipes,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if self.is_write_closed {
                return Poll::Ready(Ok(()));
            }
            let room = if self.end_given {
                up.poll_flush(cx)
            } else {
                up.poll_room(cx)
            };
            self.blocked = room.is_pending();
            if ready!(room).is_err() {
                // Its response may already be in the read buffer; the reading side decides.
                self.is_write_closed = true;
                continue;
            }
            if self.end_given {
                return Poll::Ready(Ok(()));
            }
            if let Replay::Keep { pieces, .. } = &self.replay
                && let Some(piece) = pieces.get(self.given)
            {
                self.given = self.given.saturating_add(1);
                up.data(piece.clone())?;
                continue;
            }
            match self.source {
                Source::Open => {}
                Source::Ended => {
                    up.end(None)?;
                    self.end_given = true;
                    continue;
                }
                Source::EndedWithTrailers => {
                    up.end(Some(&self.trailers))?;
                    self.end_given = true;
                    continue;
                }
            }
            if ready!(self.poll_splice(cx, down, up, pipes))? {
                continue;
            }
            if let Some(filters) = &mut self.filters {
                match ready!(filters.poll(cx))? {
                    Pulled::Data(data) => {
                        self.give(data, up)?;
                        continue;
                    }
                    Pulled::End => {
                        self.end();
                        continue;
                    }
                    Pulled::Nothing => {}
                }
            }
            match self.poll_body(cx, down) {
                Poll::Ready(Ok(event)) => self.take(event, up)?,
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending if self.filters.as_deref_mut().is_some_and(BodyFilters::flush) => {}
                Poll::Pending => {
                    let flushed = up.poll_flush(cx);
                    self.blocked = flushed.is_pending();
                    if matches!(flushed, Poll::Ready(Err(_))) {
                        self.is_write_closed = true;
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The next of what was received.
    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
    ) -> Poll<Result<BodyEvent, Failure>> {
        let Some(waiting) = &mut self.waiting else {
            return down.poll_body(cx, &mut self.trailers);
        };
        Poll::Ready(Ok(match waiting.pop_front() {
            Some(piece) => BodyEvent::Data(piece),
            None if self.has_trailers => BodyEvent::Trailers,
            None => BodyEvent::End,
        }))
    }

    /// What is to be read and not kept may pass through a pipe: true when some of it did.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        up: &mut UpstreamIo,
        pipes: &Pipes,
    ) -> Poll<Result<bool, Failure>> {
        let (DownstreamIo::H1(down), UpstreamIo::H1(up), Replay::Lost) = (down, up, &self.replay)
        else {
            return Poll::Ready(Ok(false));
        };
        // Bytes in a pipe cannot be copied to mirrors, nor changed.
        if !self.feeds.is_empty() || self.filters.is_some() {
            return Poll::Ready(Ok(false));
        }
        let source = Reading {
            io: &down.io,
            body: down.codec.reading(),
        };
        let sink = Writing {
            io: &mut up.io,
            body: up.codec.writing(),
        };
        match ready!(self.splice.poll(cx, source, sink, pipes)) {
            SpliceStep::Moved { read, .. } => {
                self.bytes = self.bytes.saturating_add(read);
            }
            SpliceStep::Usual => return Poll::Ready(Ok(false)),
            SpliceStep::SinkFailed => self.is_write_closed = true,
            SpliceStep::SourceFailed => return Poll::Ready(Err(Failure::ClientGone)),
            SpliceStep::Truncated => {
                let cut = down.codec.read_eof(&down.io.input).err();
                return Poll::Ready(Err(cut.map_or(Failure::ClientGone, Failure::BadRequest)));
            }
        }
        self.moved = true;
        Poll::Ready(Ok(true))
    }

    fn take(&mut self, event: BodyEvent, up: &mut UpstreamIo) -> Result<(), Failure> {
        self.moved = true;
        match event {
            BodyEvent::Data(data) => {
                self.bytes = self.bytes.saturating_add(data.len() as u64);
                match &mut self.filters {
                    Some(filters) => filters.push(data),
                    None => return self.give(data, up),
                }
            }
            event => {
                self.has_trailers = event == BodyEvent::Trailers;
                match &mut self.filters {
                    Some(filters) => filters.end(),
                    None => self.end(),
                }
            }
        }
        Ok(())
    }

    fn give(&mut self, data: Bytes, up: &mut UpstreamIo) -> Result<(), Failure> {
        self.remember(&data);
        self.feeds.iter().for_each(|feed| feed.data(&data));
        up.data(data)
    }

    /// All of the body was given.
    fn end(&mut self) {
        self.source = match self.has_trailers {
            true => Source::EndedWithTrailers,
            false => Source::Ended,
        };
        self.feeds.drain(..).for_each(|feed| feed.end());
    }
}
