//! Forwards the response's body.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::dispatcher::pipe::Pipes;
use crate::http::filter::{BodyFilters, Pulled};
use crate::http::forward::downstream::DownstreamIo;
use crate::http::forward::splice::{BodySplice, Reading, SpliceStep, Writing};
use crate::http::forward::upstream::UpstreamIo;
use crate::http::h1::BodyEvent;
use crate::http::request::error::Failure;
use crate::message::fault::Fault;
use crate::message::head::Head;

/// Response body, upstream to downstream.
#[derive(Default)]
pub struct ResponsePump {
    ended: bool,
    /// What the body passes through; else it passes as it is.
    filters: Option<Box<BodyFilters>>,
    splice: BodySplice,
    pub trailers: Head,
    pub has_trailers: bool,
    /// Body bytes sent.
    pub bytes: u64,
    /// Something moved since this was last reset.
    pub moved: bool,
}

impl ResponsePump {
    /// A body that passes through `filters`; `None`: as it is.
    pub fn new(filters: Option<Box<BodyFilters>>) -> Self {
        Self {
            filters,
            ..Self::default()
        }
    }

    /// Whether a peer keeps bytes of the body in memory: the client does not take those in a pipe, or
    /// the upstream does not send the rest of what is decoded.
    pub fn is_stalled(&self) -> bool {
        let filters = self.filters.as_deref();
        self.splice.is_holding() || filters.is_some_and(BodyFilters::is_decoding)
    }

    /// Moves what can be moved. Ready once the client has everything.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        up: &mut UpstreamIo,
        pipes: &Pipes,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if self.ended {
                return down.poll_flush(cx);
            }
            if self.filters.is_none() && ready!(self.poll_splice(cx, down, up, pipes))? {
                continue;
            }
            ready!(down.poll_room(cx))?;
            if let Some(filters) = &mut self.filters {
                match filters.poll(cx) {
                    Poll::Ready(Ok(Pulled::Data(data))) => {
                        self.pass(data, down)?;
                        continue;
                    }
                    Poll::Ready(Ok(Pulled::End)) => {
                        self.end(down)?;
                        continue;
                    }
                    Poll::Ready(Ok(Pulled::Nothing)) => {}
                    Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                    Poll::Pending => return flush(cx, down),
                }
            }
            match up.poll_body(cx, &mut self.trailers) {
                Poll::Ready(Ok(event)) => self.give(event, down)?,
                Poll::Ready(Err(failure)) => {
                    // Bytes that arrived before the failure are still sent to the client.
                    let _ = down.poll_flush(cx);
                    return Poll::Ready(Err(failure));
                }
                Poll::Pending if self.filters.as_deref_mut().is_some_and(BodyFilters::flush) => {}
                Poll::Pending => return flush(cx, down),
            }
        }
    }

    /// As the request's.
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        down: &mut DownstreamIo<'_>,
        up: &mut UpstreamIo,
        pipes: &Pipes,
    ) -> Poll<Result<bool, Failure>> {
        let (DownstreamIo::H1(down), UpstreamIo::H1(up)) = (down, up) else {
            return Poll::Ready(Ok(false));
        };
        let source = Reading {
            io: &up.io,
            body: up.codec.reading(),
        };
        let sink = Writing {
            io: &mut down.io,
            body: down.codec.writing(),
        };
        match ready!(self.splice.poll(cx, source, sink, pipes)) {
            SpliceStep::Moved { written, .. } => {
                self.bytes = self.bytes.saturating_add(written);
            }
            SpliceStep::Usual => return Poll::Ready(Ok(false)),
            SpliceStep::SinkFailed => return Poll::Ready(Err(Failure::ClientGone)),
            SpliceStep::SourceFailed => return Poll::Ready(Err(Failure::Terminated)),
            SpliceStep::Truncated => {
                return Poll::Ready(Err(Failure::BadResponse(Fault::Truncated)));
            }
        }
        self.moved = true;
        Poll::Ready(Ok(true))
    }

    fn pass(&mut self, data: Bytes, down: &mut DownstreamIo<'_>) -> Result<(), Failure> {
        self.moved = true;
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        down.data(data)
    }

    fn give(&mut self, event: BodyEvent, down: &mut DownstreamIo<'_>) -> Result<(), Failure> {
        self.moved = true;
        match (event, &mut self.filters) {
            (BodyEvent::Data(data), None) => return self.pass(data, down),
            (BodyEvent::Data(data), Some(filters)) => {
                filters.push(data);
                return Ok(());
            }
            (BodyEvent::Trailers, _) => self.has_trailers = true,
            (BodyEvent::End | BodyEvent::More, _) => {}
        }
        match &mut self.filters {
            // What comes after the body's last byte comes before the trailers.
            Some(filters) => {
                filters.end();
                Ok(())
            }
            None => self.end(down),
        }
    }

    fn end(&mut self, down: &mut DownstreamIo<'_>) -> Result<(), Failure> {
        self.ended = true;
        down.end(self.has_trailers.then_some(&self.trailers))
    }
}

/// Pending, or why what is queued cannot be sent.
fn flush(cx: &mut Context<'_>, down: &mut DownstreamIo<'_>) -> Poll<Result<(), Failure>> {
    match down.poll_flush(cx) {
        Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}
