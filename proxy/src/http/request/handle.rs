//! One request's life: plan, policy, request edits, attempts, response edits, observe.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::deadline::Deadlines;
use super::error::Failure;
use super::headers::{self, HeadSide};
use super::local_reply;
use super::local_reply::Reply;
use super::response;
use super::stream_info::{AuthorisedHead, StreamInfo};
use super::{hash, plan, redirect, rewrite, target};
use crate::config::endpoint::HealthStatus;
use crate::config::route::{Action, Route, RouteAction};
use crate::dispatcher::timer::Timer;
use crate::http::connection::conn::{Conn, Resolved};
use crate::http::filter;
use crate::http::forward::attempt::{Attempts, UpstreamResponse};
use crate::http::forward::connect_tunnel::Tunnelled;
use crate::http::forward::downstream::DownstreamIo;
use crate::http::forward::pump::{Received, RequestPump};
use crate::http::forward::state::ForwardPlan;
use crate::http::forward::upgrade;
use crate::http::h1::{Framing, TunnelRequest};
use crate::message::fault::Fault;
use crate::message::head::{Head, HeaderId};
use crate::upstream::limits::Permit;

/// A request, as its codec hands it over.
pub struct Request {
    /// `Err`: its bytes were not acceptable; the head is what could be parsed of it.
    pub framing: Result<Framing, Fault>,
    pub head: Box<Head>,
    /// An empty head for the response.
    pub spare: Box<Head>,
    /// When its first byte was seen.
    pub start: Instant,
}

/// How a request ended.
pub struct Ended {
    /// The response was sent to its end and the protocol is in order: the connection may go on.
    pub clean: bool,
    /// The client neither disconnected nor reset the stream.
    pub answered: bool,
    /// The upstream cancelled the stream in the middle of its response.
    pub cancelled: bool,
    /// Heads of request and response, whose memory the next request can use.
    pub heads: Option<(Box<Head>, Box<Head>)>,
    /// The connection turned into a tunnel, which the connection's loop has to serve.
    pub tunnel: Option<Box<Tunnelled>>,
}

/// One exchange under way.
pub(in crate::http) struct Exchange<'a, 'd> {
    pub(in crate::http) conn: &'a Conn,
    pub(in crate::http) resolved: Rc<Resolved>,
    pub(in crate::http) timer: &'a Timer,
    pub(in crate::http) down: &'a mut DownstreamIo<'d>,
    pub(in crate::http) info: StreamInfo,
    /// A body that a filter has waited for and buffered.
    pub(in crate::http) body: Option<Box<Received>>,
    /// Whether the connection ends after this response.
    pub(in crate::http) close: bool,
    /// The response's head was sent.
    pub(super) started: bool,
    /// Both ends agreed on a tunnel, and the upstream is a connection of its own: bytes pass outside
    /// of the codec from here.
    pub(super) tunnel: Option<(UpstreamResponse, Permit)>,
}

/// Serves one request. Failures are answered while that is possible.
pub async fn handle(
    conn: &Conn,
    timer: &Timer,
    down: &mut DownstreamIo<'_>,
    request: Request,
    close: bool,
) -> Ended {
    let resolved = conn.resolve();
    let manager = resolved.manager.clone();
    let Request {
        framing,
        head,
        spare,
        start,
    } = request;
    let info = StreamInfo::new(conn.downstream.clone(), manager, start, head, spare);
    let mut exchange = Exchange {
        close: close || resolved.is_gone || resolved.is_denied,
        conn,
        resolved,
        timer,
        down,
        info,
        body: None,
        started: false,
        tunnel: None,
    };
    // Drawn only after the exchange was moved to its place: the future would hold it twice.
    exchange.info.draw = fastrand::u64(..);
    let version = exchange.resolved.rules_version;
    exchange.info.authorised_by.set(version);
    let result = match framing {
        Ok(framing) => exchange.run(framing).await,
        Err(fault) => Err(Failure::BadRequest(fault)),
    };
    let result = match result {
        Err(failure) => Box::pin(exchange.fail(&failure)).await,
        Ok(()) => Ok(()),
    };
    let mut info = exchange.info;
    if let (Some((answer, permit)), Ok(())) = (exchange.tunnel, &result) {
        return Ended {
            clean: true,
            answered: true,
            cancelled: false,
            heads: None,
            tunnel: Some(Box::new(Tunnelled::new(info, answer, permit))),
        };
    }
    info.times.whole = info.elapsed();
    super::stream_info::report(&conn.worker, &info);
    if let Some(trailers) = info.trailers {
        conn.worker.heads.put(trailers);
    }
    if let AuthorisedHead::Copied(head) = info.authorised {
        conn.worker.heads.put(head);
    }
    Ended {
        clean: result.is_ok(),
        answered: !matches!(result, Err(Failure::ClientGone | Failure::ClientReset)),
        cancelled: matches!(result, Err(Failure::Reset { cancelled: true })),
        heads: Some((info.request, info.response)),
        tunnel: None,
    }
}

/// Whether an HTTP/1 connection is to end with the response whose head comes next. It is decided at
/// that moment: a client that notices a drain only by the end of its connection may have sent
/// another request. HTTP/2 has GOAWAY.
fn must_end(conn: &Conn, down: &DownstreamIo<'_>) -> bool {
    matches!(down, DownstreamIo::H1(_)) && conn.is_draining()
}

impl Exchange<'_, '_> {
    /// The steps of a request's life.
    async fn run(&mut self, mut framing: Framing) -> Result<(), Failure> {
        let info = &mut self.info;
        let (head, local) = (&mut info.request, info.downstream.local);
        let redirected = target::normalise(head, &info.manager, local, framing.tunnel);
        if let Some(location) = redirected.map_err(Failure::BadRequest)? {
            let reply = local_reply::redirect(&mut self.info, 307, &location);
            return self.reply(reply).await;
        }
        let sender = info.downstream.sender();
        info.client = headers::sanitise(&mut info.request, &info.manager, &sender);
        let route = self.plan()?;
        if self.resolved.is_denied {
            return Err(Failure::Denied("connection".into()));
        }
        // Filters see the body of a request whose upgrade is ignored.
        let is_refused = self.refuses_upgrade(route.as_deref(), &mut framing);
        drop(route);
        if let Some(reply) = self.filter_request(&mut framing).await? {
            return self.reply(reply).await;
        }
        if is_refused {
            return Err(Failure::UpgradeRefused);
        }
        let route = self.info.route.clone().ok_or(Failure::NoRoute)?;
        match &route.action {
            Action::Direct { status, body } => {
                let reply = local_reply::direct(&mut self.info, *status, body);
                self.reply(reply).await
            }
            Action::Redirect(to) => {
                let location = redirect::location(to, &route, &self.info);
                let reply = local_reply::redirect(&mut self.info, to.status, &location);
                headers::edit(&mut self.info, HeadSide::Response, None);
                self.reply(reply).await
            }
            Action::Forward(forward) => self.forward(&route, forward, framing).await,
        }
    }

    /// Whether the route does not allow the upgrade that the request asks for; one that it ignores is
    /// taken out of the request.
    pub(in crate::http) fn refuses_upgrade(
        &mut self,
        route: Option<&Route>,
        framing: &mut Framing,
    ) -> bool {
        match route.map(|route| &route.action) {
            Some(Action::Forward(forward)) => {
                let manager = &self.info.manager;
                upgrade::check(&mut self.info.request, framing, forward, manager).is_err()
            }
            _ => false,
        }
    }

    /// Virtual host and route; `None`: there is none.
    pub(in crate::http) fn plan(&mut self) -> Result<Option<Arc<Route>>, Failure> {
        let info = &mut self.info;
        let mut memo = self.conn.authority.borrow_mut();
        let (head, local) = (&mut info.request, info.downstream.local);
        let name = target::authority(head, &info.manager, local, &mut memo);
        let name = name.map_err(Failure::BadRequest)?;
        let Some(routes) = self.resolved.routes.clone() else {
            return Ok(None);
        };
        let metadata = info.filters.metadata();
        match plan::plan(&routes, &name, &info.request, metadata, info.draw) {
            Ok(matched) => {
                info.route_config = Some(matched.config);
                info.virtual_host = Some(matched.host);
                info.route = Some(matched.route.clone());
                Ok(Some(matched.route))
            }
            Err(host) => {
                info.route_config = Some(routes);
                info.virtual_host = host;
                info.route = None;
                Ok(None)
            }
        }
    }

    /// `Expect: 100-continue`: answered here, so that the body can stream or be kept for a retry,
    /// or passed on where that is configured. For a body before an upgrade the 100 is always sent
    /// here.
    fn expect(&mut self, framing: &Framing) {
        if !framing.expect_continue || framing.tunnel == TunnelRequest::Connect {
            return;
        }
        let request = &mut self.info.request;
        if self.info.manager.proxy_100_continue && framing.tunnel == TunnelRequest::None {
            request.set(HeaderId::Expect, b"100-continue");
        } else {
            request.remove(HeaderId::Expect);
            self.down.send_continue();
        }
    }

    async fn forward(
        &mut self,
        route: &Route,
        forward: &RouteAction,
        framing: Framing,
    ) -> Result<(), Failure> {
        let routes = self.info.route_config.clone().ok_or(Failure::NoRoute)?;
        let snapshot = &self.resolved.snapshot;
        let head = &self.info.request;
        let chosen = plan::cluster(forward, &routes.clusters, head, snapshot, self.info.draw);
        let cluster = chosen
            .cluster
            .ok_or(Failure::NoCluster(forward.cluster_not_found))?;
        self.info.cluster = Some(cluster.clone());
        let weighted = chosen.weighted;
        let timeout = super::timeout::of(&self.info.request, forward);
        let edits = weighted.map(|entry| &entry.request_headers);
        if rewrite::may_rewrite(forward, weighted) || headers::edits_request(&self.info, edits) {
            self.info.keep_authorised_head(&self.conn.worker.heads);
        }
        // In Envoy's order: edits name the request as it came.
        rewrite::announce(&mut self.info, forward, timeout);
        headers::edit(&mut self.info, HeadSide::Request, edits);
        rewrite::request(&mut self.info, route, forward, weighted);
        // As in Envoy, what is hashed is the request as the upstream gets it.
        let hash = hash::of(&cluster, forward, &mut self.info);
        self.expect(&framing);

        let idle = forward.idle_timeout;
        let idle = idle.unwrap_or(self.info.manager.stream_idle_timeout);
        let deadlines = Deadlines::of_stream(self.timer, &self.info, idle);
        let (received, filters) = (self.body.take(), self.info.filters.request_body.take());
        let (conn, info, down) = (self.conn, &mut self.info, &mut *self.down);
        let action = (forward, weighted);
        let plan = ForwardPlan::new(info, framing, action, cluster.clone(), hash);
        let mut attempts = Attempts::new(conn, info, down, plan, deadlines);
        match received {
            Some(body) => attempts.upload.pump = RequestPump::received(*body, filters),
            None => attempts.upload.pump.pass_through(filters),
        }
        attempts.mirror(&routes.clusters);
        let (mut answer, permit) = attempts.run().await?;

        let (framing, weighted) = (&answer.framing, attempts.plan.weighted);
        let date = &conn.worker.date;
        let length = response::finish_upstream(attempts.info, framing, weighted, date);
        self.started = true;
        let endpoint = attempts.info.endpoint.as_deref();
        if endpoint.is_some_and(|endpoint| endpoint.health == HealthStatus::Draining) {
            conn.met_draining.set(true);
        }
        let close = self.close || answer.framing.tunnel || must_end(conn, attempts.down);
        attempts.down.head(&attempts.info.response, length, close)?;
        if answer.framing.tunnel && answer.lease.up.is_h1() {
            self.tunnel = Some((answer, permit));
            return self.flush().await;
        }
        let relayed = attempts.relay(&mut answer).await;
        attempts.info.request_bytes = attempts.upload.pump.bytes;
        relayed?;
        if attempts.is_clean(&answer) {
            let now = conn.worker.timers.now();
            conn.pools.checkin(answer.lease, &cluster, now);
        }
        Ok(())
    }

    /// Sends a response made here.
    async fn reply(&mut self, reply: Reply) -> Result<(), Failure> {
        let Reply { mut body } = reply;
        let length = response::length(&self.info, &body);
        filter::on_response(&mut self.info, length);
        response::finish_response(&mut self.info, &self.conn.worker.date);
        if let Some(mut filters) = self.info.filters.response_body.take() {
            body = filters.all(body)?;
        }
        self.started = true;
        let length = response::length(&self.info, &body);
        let close = self.close || must_end(self.conn, self.down);
        self.down.head(&self.info.response, length, close)?;
        if !response::is_bodiless(&self.info) {
            self.info.response_bytes = body.len() as u64;
        }
        self.send_rest(body).await
    }

    async fn send_rest(&mut self, body: Bytes) -> Result<(), Failure> {
        if !body.is_empty() {
            self.down.data(body)?;
        }
        self.down.end(None)?;
        self.flush().await
    }

    /// Waits until the client took what was written.
    async fn flush(&mut self) -> Result<(), Failure> {
        let idle = self.info.manager.stream_idle_timeout;
        // Set in any case, because a change of policy or a lack of memory wakes only tasks with a
        // set timer.
        self.timer.set_or_never(idle);
        let stalled = &self.conn.worker.overload.stalled;
        let since = self.timer.now();
        let flushed = std::future::poll_fn(|cx| match self.down.poll_flush(cx) {
            Poll::Pending if stalled.is_active() && stalled.ends(since) => {
                Poll::Ready(Err(Failure::Overloaded))
            }
            flushed => flushed,
        });
        match self.timer.race(self.conn.unless_closed(flushed)).await {
            Ok(Some(flushed)) => flushed,
            Ok(None) | Err(_) => Err(Failure::ClientGone),
        }
    }

    /// Answers a failure, or, when it is too late for that, only records it. The connection or
    /// stream is then for the codec's loop to end.
    pub(super) async fn fail(&mut self, failure: &Failure) -> Result<(), Failure> {
        if self.started || !failure.can_be_answered() {
            // What is queued of a response that has begun, its head perhaps, goes out before the end
            // as far as the client takes it now.
            let _ = self
                .down
                .poll_flush(&mut Context::from_waker(Waker::noop()));
            let answer = failure.response();
            self.info.flags.insert(answer.flags);
            self.info.details = match answer.details.strip_prefix(BEFORE) {
                Some(why) if self.started => format!("{AFTER}{why}").into(),
                _ => answer.details,
            };
            return Err(failure.clone());
        }
        let reply = local_reply::failure(&mut self.info, failure);
        // After such bytes it is unknown where the next message begins.
        self.close |= matches!(failure, Failure::BadRequest(_) | Failure::RequestTimeout(_));
        self.reply(reply).await
    }
}

const BEFORE: &str = "upstream_reset_before_response_started";
const AFTER: &str = "upstream_reset_after_response_started";
