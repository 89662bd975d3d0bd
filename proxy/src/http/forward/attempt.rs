//! Forwarding a request: pick, check out, send, await; again when that is allowed.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;

use super::downstream::DownstreamIo;
use super::retry::{Retries, RetryDecision, StaleResends};
use super::state::{Clocks, ForwardPlan, Upload};
use super::upgrade;
use super::upstream::{Staleness, UpstreamIo};
use crate::bug;
use crate::config::route::HostRewrite;
use crate::http::connection::conn::Conn;
use crate::http::h1::ResponseInfo;
use crate::http::pool::{CheckoutTarget, Lease};
use crate::http::request::deadline::Deadlines;
use crate::http::request::error::{self, Failure};
use crate::http::request::stream_info::StreamInfo;
use crate::http::request::{response, rewrite};
use crate::message::head::{Head, HeaderId};
use crate::metrics::ResponseFlags;
use crate::upstream::cluster::{NoEndpoint, PickFor};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::host::Active;
use crate::upstream::limits::Permit;
use crate::upstream::outlier::AttemptResult;

/// Body bytes kept so that a request survives a connection that was closed while it was idle.
const STALE_REPLAY: usize = 64 * 1024;

/// Whether a response says that its endpoint is to have no more requests.
fn asks_for_no_more(response: &Head) -> bool {
    let name = b"x-envoy-immediate-health-check-fail";
    response.get_by_name(name).is_some()
}

/// One request on its way to an upstream.
pub struct Attempts<'a, 'd> {
    pub conn: &'a Conn,
    pub info: &'a mut StreamInfo,
    pub down: &'a mut DownstreamIo<'d>,
    pub(in crate::http) plan: ForwardPlan<'a>,
    pub upload: Upload,
    pub(super) clocks: Clocks<'a>,
    /// Endpoints of earlier attempts.
    tried: SmallVec<[SocketAddr; 4]>,
    resends: StaleResends,
}

/// An upstream that answered; its head is in `info.response`.
pub struct UpstreamResponse {
    pub lease: Lease,
    pub framing: ResponseInfo,
    _active: Active,
}

/// An attempt that had no response.
struct AttemptFailure {
    failure: Failure,
    stale: Staleness,
}

impl From<Failure> for AttemptFailure {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            stale: Staleness::None,
        }
    }
}

impl<'a, 'd> Attempts<'a, 'd> {
    pub fn new(
        conn: &'a Conn,
        info: &'a mut StreamInfo,
        down: &'a mut DownstreamIo<'d>,
        plan: ForwardPlan<'a>,
        deadlines: Deadlines<'a>,
    ) -> Self {
        Self {
            upload: Upload::new(&plan),
            clocks: Clocks::new(info, &plan, deadlines),
            conn,
            info,
            down,
            plan,
            tried: SmallVec::new(),
            resends: StaleResends::default(),
        }
    }

    /// Makes attempts until there is a response, or none is left. The permit of the request is to
    /// be held until its end.
    ///
    /// # Errors
    /// The last attempt's failure.
    pub async fn run(&mut self) -> Result<(UpstreamResponse, Permit), Failure> {
        let limits = self.plan.cluster.limits.clone();
        let permit = limits.try_request().ok_or_else(|| {
            self.plan.cluster.metrics.overflows.inc();
            Failure::Overflow("requests")
        })?;
        let policy = self.plan.action.retry.clone();
        let policy = policy.or_else(|| self.plan.cluster.retry.clone());
        if policy.is_some() {
            let listener = &self.info.downstream.listener;
            self.upload
                .pump
                .keep(listener.def.per_connection_buffer_limit);
        }
        let mut retries = Retries::new(policy);
        self.clocks
            .limit_tries(retries.per_try_timeout(), retries.per_try_idle_timeout());
        loop {
            let outcome = self.once(retries.avoids_previous()).await;
            let (outcome, again) = match outcome {
                Ok(answer) => {
                    response::sanitise(self.info);
                    let head = Ok(&*self.info.response);
                    let again = retries.after(head, self.upload.pump.can_replay(), &limits);
                    (Ok(answer), again)
                }
                Err(failed) if self.may_resend(failed.stale) => {
                    self.resends.begin(failed.stale);
                    let metrics = &self.plan.cluster.metrics;
                    metrics.resends.inc();
                    if failed.stale == Staleness::Possible {
                        metrics.unproven_resends.inc();
                    }
                    self.info.attempts = self.info.attempts.saturating_sub(1);
                    self.begin_again();
                    continue;
                }
                Err(AttemptFailure { failure, .. }) => {
                    let replayable = self.upload.pump.can_replay();
                    let again = retries.after(Err(&failure), replayable, &limits);
                    (Err(failure), again)
                }
            };
            let wait = match again {
                RetryDecision::Again(wait) => wait,
                RetryDecision::Exhausted(flag) => {
                    if flag == ResponseFlags::UPSTREAM_OVERFLOW {
                        self.plan.cluster.metrics.retry_overflows.inc();
                    }
                    self.info.flags.insert(flag);
                    return outcome.map(|answer| (answer, permit));
                }
                RetryDecision::Accept => return outcome.map(|answer| (answer, permit)),
            };
            drop(outcome);
            // Nothing was sent downstream: a client that disconnects before the next attempt has no
            // response in the log.
            self.info.response.clear();
            self.plan.cluster.metrics.retries.inc();
            self.clocks.deadlines.end_try();
            Box::pin(self.pause(wait)).await?;
            self.begin_again();
        }
    }

    /// Whether the request is sent again after its connection was found stale.
    fn may_resend(&self, stale: Staleness) -> bool {
        self.resends.allow(stale, self.info.request.method()) && self.upload.pump.can_replay()
    }

    /// Prepares another attempt, with the same body and new time-outs.
    fn begin_again(&mut self) {
        self.upload.rewind();
        self.clocks.deadlines.begin_try();
    }

    async fn once(&mut self, avoid: bool) -> Result<UpstreamResponse, AttemptFailure> {
        // Only for the first attempt: a retry may go to another endpoint, as in Envoy.
        let session = match self.info.attempts {
            0 => self.info.filters.session(),
            _ => None,
        };
        let picked = self.plan.cluster.pick(
            PickFor {
                exclude: if avoid { &self.tried } else { &[] },
                original_dst: self.info.downstream.original_dst,
                hash: self.plan.hash,
                session: session.map(|(endpoint, _)| endpoint),
                subset: self.plan.subset(),
            },
            &mut fastrand::Rng::new(),
        );
        let endpoint = match picked {
            Ok(picked) => picked.endpoint,
            Err(why) => {
                self.plan.cluster.metrics.no_endpoint.inc();
                let failure = match (why, session) {
                    (NoEndpoint::SessionEndpointGone, Some((_, status))) => {
                        Failure::SessionEndpointGone(status)
                    }
                    _ => Failure::NoEndpoint,
                };
                return Err(failure.into());
            }
        };
        self.tried.push(endpoint.address);
        self.info.endpoint = Some(endpoint.clone());
        self.info.attempts = self.info.attempts.saturating_add(1);
        self.plan.cluster.metrics.requests.inc();
        let active = endpoint.state.begin();
        bug::point("request");
        let mut lease = match self.checkout(&endpoint).await {
            Ok(lease) => lease,
            Err(failure) => {
                self.report(&endpoint, &failure);
                return Err(failure.into());
            }
        };
        match self.converse(&mut lease.up, &endpoint).await {
            Ok(framing) => {
                let cluster = &self.plan.cluster;
                let outcome = AttemptResult::Status(self.info.response.status());
                cluster.report(&endpoint, outcome, &mut fastrand::Rng::new());
                if cluster.checks.is_some() && asks_for_no_more(&self.info.response) {
                    cluster.report_immediate_failure(&endpoint);
                }
                Ok(UpstreamResponse {
                    lease,
                    framing,
                    _active: active,
                })
            }
            Err(failure) => {
                let stale = lease.up.staleness(&failure);
                if !self.may_resend(stale) {
                    self.report(&endpoint, &failure);
                }
                Err(AttemptFailure { failure, stale })
            }
        }
    }

    /// A connection, unless a deadline passes or the client disconnects first.
    async fn checkout(&mut self, endpoint: &Arc<Endpoint>) -> Result<Lease, Failure> {
        let (worker, pools) = (self.conn.worker.clone(), self.conn.pools.clone());
        let cluster = self.plan.cluster.clone();
        let listener = &self.conn.downstream.listener.def;
        let target = CheckoutTarget {
            cluster: &cluster,
            endpoint,
            version: self.info.version,
            purpose: upgrade::purpose(&self.info.request, self.plan.action, &self.plan.framing),
            limit: listener.upstream_limit.as_ref(),
        };
        let mut leasing = std::pin::pin!(pools.checkout(&worker, &target));
        let lease = poll_fn(|cx| {
            if let Poll::Ready(lease) = leasing.as_mut().poll(cx) {
                return Poll::Ready(lease);
            }
            self.poll_stopped(cx, None).map(Err)
        })
        .await;
        match lease {
            Ok(lease) => {
                self.info.upstream = Some(lease.up.about().clone());
                self.info.upstream_failure = None;
                self.info.times.upstream_connected = Some(self.info.now());
                Ok(lease)
            }
            Err(failure) => {
                if let Failure::Connect(why) = &failure {
                    // Without spaces, as Envoy logs it.
                    self.info.upstream_failure = Some(error::detail(why).into());
                }
                Err(failure)
            }
        }
    }

    /// Sends the request and waits for the final response's head.
    async fn converse(
        &mut self,
        up: &mut UpstreamIo,
        endpoint: &Endpoint,
    ) -> Result<ResponseInfo, Failure> {
        if let HostRewrite::Auto = self.plan.action.host_rewrite
            && let Some(name) = &endpoint.host_name
        {
            let head = &mut self.info.request;
            match head.has(HeaderId::XEnvoyOriginalHost) {
                true => head.set_authority(name.as_bytes()),
                false => rewrite::authority(head, name.as_bytes(), self.plan.action),
            }
        }
        if self.info.attempts > 1 {
            let left = self.clocks.left(self.info);
            rewrite::expect(self.info, self.plan.action, left);
        }
        if self.plan.counts_attempts {
            let mut buffer = itoa::Buffer::new();
            let count = buffer.format(self.info.attempts);
            let head = &mut self.info.request;
            head.set(HeaderId::XEnvoyAttemptCount, count.as_bytes());
        }
        if up.is_reused() {
            self.upload.pump.keep(STALE_REPLAY);
        }
        if self.upload.is_received {
            self.clocks.start_try(self.conn.worker.timers.now());
        }
        let answered = if upgrade::terminates_here(self.plan.action, &self.plan.framing) {
            Ok(upgrade::accept_connect(&mut self.info.response))
        } else {
            self.send_and_await(up).await
        };
        self.clocks.deadlines.set_try(None);
        match &answered {
            Ok(_) => self.info.times.response_head = Some(self.info.now()),
            // A failed head is no response and must not be logged as one.
            Err(_) => self.info.response.clear(),
        }
        answered
    }

    async fn send_and_await(&mut self, up: &mut UpstreamIo) -> Result<ResponseInfo, Failure> {
        upgrade::send_head(up, &self.info.request, &self.plan.framing)?;
        loop {
            let answered = poll_fn(|cx| self.poll_answer(cx, up)).await?;
            let (request, response) = (&self.info.request, &self.info.response);
            if !answered.interim {
                upgrade::check_answer(request, &self.plan.framing, &answered, response)?;
                return Ok(answered);
            }
            self.clocks.deadlines.moved();
            poll_fn(|cx| self.poll_room(cx, up)).await?;
            self.down.interim(&self.info.response);
        }
    }

    /// Moves the request's body and polls for a response head.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
    ) -> Poll<Result<ResponseInfo, Failure>> {
        if let Err(failure) = self.move_request(cx, up) {
            return Poll::Ready(Err(failure));
        }
        // After 101 the codec is bypassed, so the body has to be sent before that is read.
        let asks = !self.plan.upgrade_follows_body || self.upload.is_done;
        if asks && let Poll::Ready(answered) = up.poll_head(cx, &mut self.info.response) {
            return Poll::Ready(answered);
        }
        if let Poll::Ready(Err(failure)) = self.down.poll_flush(cx) {
            return Poll::Ready(Err(failure));
        }
        self.poll_stopped(cx, None).map(Err)
    }

    /// Ready when an interim response may be queued for the client. The request's body is sent
    /// meanwhile, and further interim responses are counted.
    fn poll_room(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut UpstreamIo,
    ) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(room) = self.down.poll_room(cx) {
            return Poll::Ready(room);
        }
        let moved = self.move_request(cx, up);
        if let Err(failure) = moved.and_then(|()| up.receive_interim(cx)) {
            return Poll::Ready(Err(failure));
        }
        self.poll_stopped(cx, None).map(Err)
    }

    fn report(&self, endpoint: &Endpoint, failure: &Failure) {
        let outcome = match failure {
            Failure::Connect(_) | Failure::ConnectTimeout => AttemptResult::ConnectFailed,
            Failure::PerTryTimeout | Failure::ResponseTimeout => AttemptResult::TimedOut,
            Failure::Terminated
            | Failure::Reset { .. }
            | Failure::BadResponse(_)
            | Failure::Protocol(_) => AttemptResult::Reset,
            _ => return,
        };
        self.plan
            .cluster
            .report(endpoint, outcome, &mut fastrand::Rng::new());
    }
}
