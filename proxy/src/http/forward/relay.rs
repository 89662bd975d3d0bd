//! Relays the response to the client while the request's body is still sent.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::attempt::{Attempts, UpstreamResponse};
use super::mirror;
use super::pump::ResponsePump;
use super::upstream::UpstreamIo;
use crate::bug;
use crate::http::h1::TunnelRequest;
use crate::http::request::error::Failure;
use crate::message::head::{Head, HeaderId};
use crate::snapshot::ClusterLinks;

impl Attempts<'_, '_> {
    /// Starts the route's request mirrors.
    pub fn mirror(&mut self, links: &ClusterLinks) {
        if self.plan.action.mirrors.is_empty() || self.plan.framing.tunnel != TunnelRequest::None {
            return;
        }
        for (cluster, mirror) in mirror::drawn(self.plan.action, links) {
            let mut head = Head::clone(&self.info.request);
            // The original request handles the 100; its copy must not wait for one.
            head.remove(HeaderId::Expect);
            let copy = mirror::Copy {
                head,
                framing: self.plan.framing,
            };
            let feed = mirror::send(self.conn, cluster, mirror, copy);
            self.upload.pump.feed(feed);
        }
    }

    /// Relays the response to its end; of a tunnel, both directions to theirs. What was moved is
    /// counted in `info`, however it ends.
    ///
    /// # Errors
    /// When a side fails, or a deadline passes.
    pub async fn relay(&mut self, answer: &mut UpstreamResponse) -> Result<(), Failure> {
        let mut filters = self.info.filters.response_body.take();
        if let Some(filters) = &mut filters {
            filters.begin(&self.conn.worker.timers);
        }
        let mut response = ResponsePump::new(filters);
        let tunnel = answer.framing.tunnel;
        if tunnel {
            self.down.open_tunnel();
            answer.lease.up.open_tunnel();
            self.clocks.deadlines.set_route(None);
        }
        self.upload.pump.stop_keeping();
        let up = &mut answer.lease.up;
        let ended = poll_fn(|cx| self.poll_relay(cx, up, &mut response, tunnel)).await;
        self.info.response_bytes = response.bytes;
        if response.has_trailers {
            let trailers = self.info.trailers.insert(self.conn.worker.heads.take());
            **trailers = response.trailers;
        }
        ended
    }

    /// The exchange is over on the upstream's side and its connection may serve another.
    pub fn is_clean(&self, answer: &UpstreamResponse) -> bool {
        self.upload.pump.is_sent() && !answer.framing.tunnel
    }

    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
        response: &mut ResponsePump,
        tunnel: bool,
    ) -> Poll<Result<(), Failure>> {
        bug::point("relay");
        let request_over = match self.poll_request(cx, up, tunnel) {
            Ok(over) => over,
            Err(failure) => return Poll::Ready(Err(failure)),
        };
        match response.poll(cx, self.down, up, &self.conn.worker.pipes) {
            Poll::Ready(Ok(())) if !tunnel || request_over => return Poll::Ready(Ok(())),
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if std::mem::take(&mut response.moved) {
            self.clocks.deadlines.moved();
        }
        self.poll_stopped(cx, Some(response)).map(Err)
    }

    /// Sends the request's body on; returns whether it is complete.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
        tunnel: bool,
    ) -> Result<bool, Failure> {
        if !tunnel {
            self.move_request(cx, up)?;
            return Ok(self.upload.is_done);
        }
        let pump = &mut self.upload.pump;
        let polled = pump.poll(cx, self.down, up, &self.conn.worker.pipes);
        if std::mem::take(&mut pump.moved) {
            self.clocks.deadlines.moved();
        }
        match polled {
            Poll::Ready(done) => done.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }
}
