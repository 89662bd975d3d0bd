//! What one request's attempts have in common: the plan, the request's body, the clocks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pump::RequestPump;
use super::upgrade;
use crate::config::balancing::SubsetCriteria;
use crate::config::route::{RouteAction, WeightedCluster};
use crate::http::h1::{Framing, TunnelRequest};
use crate::http::request::deadline::Deadlines;
use crate::http::request::stream_info::StreamInfo;
use crate::http::request::{plan, timeout};
use crate::upstream::cluster::Cluster;

/// What is sent, and where; the same for all attempts.
pub struct ForwardPlan<'a> {
    pub action: &'a RouteAction,
    pub cluster: Arc<Cluster>,
    pub framing: Framing,
    /// By which an endpoint is chosen, where the cluster balances by hash.
    pub(super) hash: Option<u64>,
    /// Of the route's clusters, where it chooses among several by weight.
    pub weighted: Option<&'a WeightedCluster>,
    /// The request is an upgrade, which begins after its body.
    pub(super) upgrade_follows_body: bool,
    /// The upstream sees the number of the attempt.
    pub(super) counts_attempts: bool,
}

impl<'a> ForwardPlan<'a> {
    pub fn new(
        info: &StreamInfo,
        framing: Framing,
        (action, weighted): (&'a RouteAction, Option<&'a WeightedCluster>),
        cluster: Arc<Cluster>,
        hash: Option<u64>,
    ) -> Self {
        Self {
            hash,
            weighted,
            upgrade_follows_body: upgrade::follows_body(&info.request, &framing),
            counts_attempts: info.virtual_host().is_some_and(|h| h.include_attempt_count),
            action,
            cluster,
            framing,
        }
    }

    /// What is asked of the endpoint's metadata, where the cluster has subsets.
    pub fn subset(&self) -> Option<&'a Arc<SubsetCriteria>> {
        plan::subset(self.action, self.weighted)
    }
}

/// The request's body.
pub struct Upload {
    pub pump: RequestPump,
    /// The pump has nothing left to do in this attempt.
    pub(super) is_done: bool,
    /// The whole request was received.
    pub(super) is_received: bool,
}

impl Upload {
    pub(super) fn new(plan: &ForwardPlan<'_>) -> Self {
        let pump = match plan.framing.tunnel {
            TunnelRequest::Upgrade | TunnelRequest::Connect if !plan.upgrade_follows_body => {
                RequestPump::for_tunnel()
            }
            _ => RequestPump::new(plan.framing.body),
        };
        Self {
            pump,
            is_done: false,
            is_received: false,
        }
    }

    /// Another attempt begins.
    pub(super) fn rewind(&mut self) {
        self.pump.rewind();
        self.is_done = false;
    }
}

/// The deadlines, and the time-outs that begin once the whole request was received.
pub struct Clocks<'a> {
    pub deadlines: Deadlines<'a>,
    response_timeout: Option<Duration>,
    try_timeout: Option<Duration>,
}

impl<'a> Clocks<'a> {
    pub(super) fn new(info: &StreamInfo, plan: &ForwardPlan<'_>, deadlines: Deadlines<'a>) -> Self {
        Self {
            deadlines,
            response_timeout: timeout::of(&info.request, plan.action),
            try_timeout: None,
        }
    }

    /// Of the time for the response.
    pub(super) fn left(&self, info: &StreamInfo) -> Option<Duration> {
        let since = info.times.request_received;
        let passed = since.map(|at| info.now().saturating_duration_since(at));
        let timeout = self.response_timeout?;
        Some(timeout.saturating_sub(passed.unwrap_or_default()))
    }

    /// Each attempt may take so long, and be idle so long.
    pub(super) fn limit_tries(&mut self, timeout: Option<Duration>, idle: Option<Duration>) {
        self.try_timeout = timeout;
        self.deadlines.set_try_idle(idle);
    }

    /// The whole request was received.
    pub(super) fn start_response(&mut self, now: Instant) {
        self.deadlines.set_request(None);
        if let Some(timeout) = self.response_timeout {
            self.deadlines.set_route(now.checked_add(timeout));
        }
        self.start_try(now);
    }

    /// An attempt begins whose request was received.
    pub(super) fn start_try(&mut self, now: Instant) {
        self.deadlines.moved();
        if let Some(timeout) = self.try_timeout {
            self.deadlines.set_try(now.checked_add(timeout));
        }
    }
}
