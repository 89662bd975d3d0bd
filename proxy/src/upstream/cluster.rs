//! A cluster's runtime: picking an endpoint, reporting to outlier detection, replacing endpoints.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::checks::ClusterChecks;
use super::lb::subset::SubsetPick;
use super::lb::{PickInput, RoundRobinCursor};
use super::limits::CircuitBreakers;
use super::local::NodePlace;
use super::outlier::{AttemptResult, Detection, DetectionResult, Detector};
use crate::config::balancing::SubsetCriteria;
use crate::config::cluster::ClusterDef;
use crate::config::cluster::{Discovery, Transport};
use crate::config::endpoint::HealthStatus;
use crate::metrics::ClusterMetrics;
use crate::upstream::endpoint::{Endpoint, EndpointSet};

/// A cluster at run time: its settings, and their state.
pub struct Cluster {
    pub def: ClusterDef,
    /// Differs between clusters and between generations of one whose connections cannot be
    /// shared: pools are keyed by it.
    pub id: u64,
    /// Digest of the settings that connections depend on; while it is the same, `id` is too.
    pub pool_key: u64,
    /// Outlier detection's state; carried over while a cluster of the name exists.
    pub detector: Arc<Detector>,
    /// Round-robin position; carried over while a cluster of the name exists.
    pub turn: Arc<RoundRobinCursor>,
    /// Circuit breakers, shared by all workers; carried over while a cluster of the name exists.
    pub limits: Arc<CircuitBreakers>,
    pub metrics: Arc<ClusterMetrics>,
    /// Active health checks, where it has some.
    pub checks: Option<Arc<ClusterChecks>>,
    /// Endpoints were ejected, and its tables still have them.
    pub stale: AtomicBool,
    /// Notified when a cluster's balance has to be computed by the control thread: its tables are
    /// stale, new endpoints slow-start, the local cluster changed; one for all clusters.
    pub rebuild: Arc<Notify>,
    /// Where the proxy is; one for all clusters.
    pub place: Arc<NodePlace>,
    /// The pointer that an EDS update swaps; read once per request.
    pub endpoints: ArcSwap<EndpointSet>,
}

/// Settings are read as the cluster's own.
impl Deref for Cluster {
    type Target = ClusterDef;

    fn deref(&self) -> &ClusterDef {
        &self.def
    }
}

/// HBONE's.
const TUNNEL_PORT: u16 = 15008;

/// The inputs of a pick.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickFor<'a> {
    /// Endpoints already tried; avoided while there are others.
    pub exclude: &'a [SocketAddr],
    /// The client's destination; ORIGINAL_DST clusters dial it.
    pub original_dst: Option<SocketAddr>,
    /// The request's hash, where it has one.
    pub hash: Option<u64>,
    /// The endpoint of the session to which the request belongs.
    pub session: Option<SessionEndpoint>,
    /// What it asks of the endpoint's metadata, where the cluster has subsets.
    pub subset: Option<&'a Arc<SubsetCriteria>>,
}

/// The endpoint that a session began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEndpoint {
    pub address: SocketAddr,
    /// Its requests go nowhere else.
    pub strict: bool,
}

/// The endpoint an attempt goes to.
#[derive(Clone)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    pub priority: u32,
    /// Health was disregarded: too few endpoints are healthy.
    pub panic: bool,
}

/// Why there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    #[error("the cluster's endpoints, or their health, are not known yet")]
    Warming,
    #[error("the cluster has no healthy endpoint")]
    Unhealthy,
    #[error("the original destination is not known")]
    NoOriginalDestination,
    #[error("the session's endpoint is gone")]
    SessionEndpointGone,
}

impl Cluster {
    /// Chooses an endpoint.
    ///
    /// # Errors
    /// See [`NoEndpoint`].
    pub fn pick(
        &self,
        what: PickFor<'_>,
        random: &mut fastrand::Rng,
    ) -> Result<Picked, NoEndpoint> {
        self.pick_by(what, false, random)
    }

    /// What [`Cluster::pick`] could choose now. Nothing changes by it: the next pick chooses as if
    /// this had not been asked.
    ///
    /// # Errors
    /// See [`NoEndpoint`].
    pub fn peek(
        &self,
        what: PickFor<'_>,
        random: &mut fastrand::Rng,
    ) -> Result<Picked, NoEndpoint> {
        self.pick_by(what, true, random)
    }

    fn pick_by(
        &self,
        what: PickFor<'_>,
        peek: bool,
        random: &mut fastrand::Rng,
    ) -> Result<Picked, NoEndpoint> {
        if let Discovery::OriginalDst { port_override } = self.discovery {
            return self.original(what.original_dst, port_override);
        }
        if self.is_warming() {
            return Err(NoEndpoint::Warming);
        }
        let set = self.endpoints.load();
        if let Some(session) = what.session {
            match self.session_endpoint(&set, session.address) {
                Err(none) if session.strict => return Err(none),
                Err(_) => {}
                picked => return picked,
            }
        }
        let input = PickInput {
            exclude: what.exclude,
            hash: what.hash,
            active: if self.lb.bounds_load() {
                self.active()
            } else {
                0
            },
            peek,
        };
        let choice = match &set.subsets {
            None => set.balance.pick(self.lb, &self.turn, input, random),
            Some(subsets) => {
                let what = SubsetPick {
                    policy: self.lb,
                    all: &set.balance,
                    turn: &self.turn,
                    criteria: what.subset,
                    input,
                };
                let (choice, counts) = subsets.pick(&what, random);
                if !peek {
                    self.count_subsets(&counts);
                }
                choice
            }
        };
        let choice = choice.ok_or(if set.ready {
            NoEndpoint::Unhealthy
        } else {
            NoEndpoint::Warming
        })?;
        if !peek {
            self.count_choice(&choice);
        }
        Ok(Picked {
            endpoint: choice.endpoint,
            priority: choice.priority,
            panic: choice.panic,
        })
    }

    /// Whether it is new, and the first results of its health checks are awaited.
    pub fn is_warming(&self) -> bool {
        self.checks.as_ref().is_some_and(|c| c.is_warming())
    }

    /// A session's endpoint, if it may have requests.
    fn session_endpoint(
        &self,
        set: &EndpointSet,
        address: SocketAddr,
    ) -> Result<Picked, NoEndpoint> {
        let found = set.find(address).ok_or(NoEndpoint::SessionEndpointGone)?;
        let (priority, endpoint) = found;
        if !self.session_health.allows(endpoint.status()) {
            return Err(NoEndpoint::Unhealthy);
        }
        Ok(Picked {
            endpoint: endpoint.clone(),
            priority,
            panic: false,
        })
    }

    /// Requests in flight, with that for which an endpoint is picked; where there are none,
    /// connections of TCP proxies.
    fn active(&self) -> u32 {
        match self.limits.active_requests() {
            0 => {
                let connections = self.metrics.active_connections.get();
                u32::try_from(connections).map_or(1, |count| count.saturating_add(1))
            }
            requests => requests,
        }
    }

    fn original(
        &self,
        destination: Option<SocketAddr>,
        port: Option<u16>,
    ) -> Result<Picked, NoEndpoint> {
        let mut address = destination.ok_or(NoEndpoint::NoOriginalDestination)?;
        if let Some(port) = port {
            address.set_port(port);
        }
        let endpoint = Endpoint {
            transport: self.transport_for(&[]),
            ..Endpoint::at(address)
        };
        Ok(Picked {
            endpoint: Arc::new(endpoint),
            priority: 0,
            panic: false,
        })
    }

    /// The transport for an endpoint; `None`: nothing matched it, so dialling fails closed.
    pub fn transport_of(&self, endpoint: &Endpoint) -> Option<&Transport> {
        let index = usize::try_from(endpoint.transport?).ok()?;
        self.transport.get(index).map(|entry| &entry.transport)
    }

    /// The port at which an endpoint takes tunnels, when its transport is for them.
    pub fn tunnel_to(&self, endpoint: &Endpoint) -> Option<u16> {
        let index = usize::try_from(endpoint.transport?).ok()?;
        let entry = self.transport.get(index)?;
        let port = endpoint.tunnel_port.unwrap_or(TUNNEL_PORT);
        entry.tunnel.then_some(port)
    }

    /// Index of the first transport whose criteria all stand in `metadata`.
    pub fn transport_for(&self, metadata: &[(Box<str>, Box<str>)]) -> Option<u32> {
        let at = self
            .transport
            .iter()
            .position(|entry| entry.criteria.iter().all(|pair| metadata.contains(pair)))?;
        u32::try_from(at).ok()
    }

    /// Reports an attempt's outcome to outlier detection.
    pub fn report(&self, endpoint: &Endpoint, outcome: AttemptResult, random: &mut fastrand::Rng) {
        let Some(config) = &self.outlier else {
            return;
        };
        let hosts = self.endpoints.load().len();
        let now = Instant::now();
        let found = self
            .detector
            .record(config, &endpoint.state, outcome, hosts, now, random);
        found.iter().for_each(|detection| self.note(detection));
        if found.iter().any(|d| d.result == DetectionResult::Ejected) {
            // This is a worker, and tables take long to build.
            if self.lb.is_hash() || self.subsets.is_some() {
                self.stale.store(true, Relaxed);
                self.rebuild.notify_one();
            } else {
                self.refresh();
            }
        }
    }

    /// A response of the endpoint said that it is to have no more requests
    /// (`x-envoy-immediate-health-check-fail`).
    pub fn report_immediate_failure(&self, endpoint: &Endpoint) {
        if let Some(checks) = &self.checks
            && endpoint.state.health.report()
        {
            checks.report();
        }
    }

    /// The endpoint passed a health check, which ends an ejection. True: it did.
    pub fn uneject(&self, endpoint: &Endpoint) -> bool {
        let config = self.outlier.as_ref();
        config.is_some_and(|config| config.uneject_on_success)
            && self.detector.uneject(&endpoint.state)
    }

    fn note(&self, detection: &Detection) {
        let (index, label) = detection.kind.label();
        self.metrics.ejections_detected.inc(index, label);
        match detection.result {
            DetectionResult::Ejected => {
                self.metrics.ejections_enforced.inc(index, label);
                self.metrics.ejections.inc();
            }
            DetectionResult::Overflow => self.metrics.ejections_overflow.inc(),
            DetectionResult::NotEnforced => {}
        }
    }

    /// Ends ejections whose time has come and compares endpoints. Called every [`OutlierConfig::interval`].
    ///
    /// [`OutlierConfig::interval`]: crate::config::outlier::OutlierConfig::interval
    pub fn sweep_outliers(&self, now: Instant, random: &mut fastrand::Rng) {
        let Some(config) = &self.outlier else {
            return;
        };
        let set = self.endpoints.load_full();
        let hosts = set.all().map(|endpoint| endpoint.state.as_ref());
        let sweep = self.detector.sweep(config, hosts, now, random);
        sweep.detections.iter().for_each(|found| self.note(found));
        if sweep.changed {
            self.refresh();
        }
    }

    /// Whether all its endpoints drain, and there are some.
    pub fn is_draining(&self) -> bool {
        let endpoints = self.endpoints.load();
        let mut all = endpoints.all();
        let first = all.next();
        let drains = |endpoint: &Arc<Endpoint>| endpoint.health == HealthStatus::Draining;
        first.is_some_and(drains) && all.all(drains)
    }
}
