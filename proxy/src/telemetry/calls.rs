//! Resolves the [`Edge`] of a call: once for each connection and endpoint.
//!
//! A SPIFFE id does not identify a workload: inbound, the caller's labels come from a look-up of
//! its address, checked against its verified identity. Until the response arrives, samples are kept
//! (bounded) with the connection; a caller that is not found is counted as `unknown`.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::tap::Taps;
use crate::bug;
use crate::config::demand::{OnDemandClient, OnDemandResource};
use crate::config::endpoint::Workload;
use crate::config::listener::Direction;
use crate::dispatcher::timer::Timers;
use crate::metrics::edge::{
    Edge, EdgeKey, Peer, Reporter, RequestProtocol, RequestSample, Service,
};
use crate::metrics::edges::Edges;
use crate::metrics::flags::ResponseFlags;
use crate::metrics::splices::SpliceMetrics;
use crate::snapshot::Listener;
use crate::snapshot::Store;
use crate::tls::{ConnectionInfo, PeerIdentity};
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;

/// Edges that one connection keeps; a connection with more looks them up again.
const MAX_REMEMBERED: usize = 32;
/// Samples kept until the caller is resolved; more are counted as `unknown`.
const MAX_WAITING: usize = 64;

/// The process's part of resolving edges, shared by all workers.
pub struct Telemetry {
    pub edges: Edges,
    /// The proxy's own workload.
    pub local: Arc<Peer>,
    pub taps: Taps,
    pub splices: SpliceMetrics,
}

/// Resolves the callers of inbound connections; one per worker.
pub struct Callers {
    pub telemetry: Arc<Telemetry>,
    pub store: Arc<Store>,
    /// `None`: workloads are not looked up by address.
    pub demand: Option<OnDemandClient>,
    pub timers: Timers,
}

/// The facts of a request or connection that determine its edge.
#[derive(Clone, Default)]
pub struct Call {
    pub cluster: Option<Arc<Cluster>>,
    pub endpoint: Option<Arc<Endpoint>>,
    /// The connection to the endpoint, when it is TLS.
    pub upstream: Option<Rc<ConnectionInfo>>,
}

enum CallSample {
    Request(RequestSample),
    Opened,
    Closed {
        flags: ResponseFlags,
        failed: bool,
        denied: bool,
        sent: u64,
        received: u64,
    },
}

enum CallerLookup {
    Known(Arc<Peer>),
    Waiting(Box<UnresolvedSamples>),
}

/// Boxed: few connections have it, and only briefly.
#[derive(Default)]
struct UnresolvedSamples {
    samples: Vec<(Call, RequestProtocol, CallSample)>,
}

struct Remembered {
    cluster: Option<Arc<Cluster>>,
    endpoint: Option<Arc<Endpoint>>,
    edge: Arc<Edge>,
}

/// The edges of one downstream connection.
pub struct Calls {
    telemetry: Arc<Telemetry>,
    pub listener: Arc<Listener>,
    /// The client's destination port: determines the inbound cluster of a call that failed before.
    port: u16,
    /// Inbound: the caller's verified identity.
    caller: Option<PeerIdentity>,
    source: RefCell<CallerLookup>,
    /// Most connections make one kind of call to one endpoint.
    remembered: RefCell<SmallVec<[Remembered; 1]>>,
    /// Bytes of a TCP connection that were counted while it was open: sent and received.
    counted: Cell<(u64, u64)>,
}

impl Calls {
    /// Starts the look-up of an inbound caller at `address` when it is not known yet.
    pub fn new(
        callers: &Rc<Callers>,
        listener: Arc<Listener>,
        address: IpAddr,
        port: u16,
        caller: Option<PeerIdentity>,
    ) -> Rc<Self> {
        let inbound = listener.def.direction == Direction::Inbound;
        let known = || {
            if !inbound {
                return Some(callers.telemetry.local.clone());
            }
            let workload = callers.store.borrow().workloads.get(&address).cloned();
            match (workload, &callers.demand) {
                (None, Some(_)) => None,
                (workload, _) => Some(Arc::new(peer(workload.as_deref(), caller.as_ref()))),
            }
        };
        let source = known().map_or_else(
            || CallerLookup::Waiting(Box::default()),
            CallerLookup::Known,
        );
        let waiting = matches!(source, CallerLookup::Waiting(_));
        let calls = Rc::new(Self {
            telemetry: callers.telemetry.clone(),
            listener,
            port,
            caller,
            source: RefCell::new(source),
            remembered: RefCell::default(),
            counted: Cell::default(),
        });
        if waiting {
            tokio::task::spawn_local(look_up(callers.clone(), calls.clone(), address));
        }
        calls
    }

    pub fn request(&self, call: &Call, grpc: bool, sample: RequestSample) {
        let protocol = if grpc {
            RequestProtocol::Grpc
        } else {
            RequestProtocol::Http
        };
        self.count(call, protocol, CallSample::Request(sample));
    }

    /// A TCP connection reached its endpoint.
    pub fn opened(&self, call: &Call) {
        self.count(call, RequestProtocol::Tcp, CallSample::Opened);
    }

    /// Counts the difference to the bytes counted so far: `sent` and `received` are a TCP
    /// connection's totals. While the caller is being looked up, nothing is counted.
    pub fn flowed(&self, (sent, received): (u64, u64)) {
        if matches!(&*self.source.borrow(), CallerLookup::Waiting(_)) {
            return;
        }
        let remembered = self.remembered.borrow();
        let tcp = |known: &&Remembered| known.edge.key.protocol == RequestProtocol::Tcp;
        if let Some(known) = remembered.iter().find(tcp) {
            let before = self.counted.replace((sent, received));
            known.edge.tcp_bytes(
                sent.saturating_sub(before.0),
                received.saturating_sub(before.1),
            );
        }
    }

    /// A TCP connection ended, whether or not it reached its endpoint. Sent and received: all of
    /// its bytes.
    pub fn closed(
        &self,
        call: &Call,
        flags: ResponseFlags,
        failed: bool,
        denied: bool,
        (sent, received): (u64, u64),
    ) {
        let counted = self.counted.take();
        let sample = CallSample::Closed {
            flags,
            failed,
            denied,
            sent: sent.saturating_sub(counted.0),
            received: received.saturating_sub(counted.1),
        };
        self.count(call, RequestProtocol::Tcp, sample);
    }

    fn count(&self, call: &Call, protocol: RequestProtocol, sample: CallSample) {
        if let CallerLookup::Waiting(waiting) = &mut *self.source.borrow_mut()
            && waiting.samples.len() < MAX_WAITING
        {
            return waiting.samples.push((call.clone(), protocol, sample));
        }
        apply(&self.edge(call, protocol), &sample);
    }

    /// Sets the caller, or `unknown`; returns the samples that waited for it. Only the first call
    /// has an effect.
    fn resolve(&self, workload: Option<&Workload>) -> Vec<(Call, RequestProtocol, CallSample)> {
        let source = &mut *self.source.borrow_mut();
        let CallerLookup::Waiting(waiting) = source else {
            return Vec::new();
        };
        let samples = std::mem::take(&mut waiting.samples);
        *source = CallerLookup::Known(Arc::new(peer(workload, self.caller.as_ref())));
        // Edges that were made before lack the caller's labels.
        self.remembered.borrow_mut().clear();
        samples
    }

    fn edge(&self, call: &Call, protocol: RequestProtocol) -> Arc<Edge> {
        let mut remembered = self.remembered.borrow_mut();
        let known = remembered.iter().find(|known| {
            known.edge.key.protocol == protocol
                && same(&known.cluster, &call.cluster)
                && same(&known.endpoint, &call.endpoint)
        });
        if let Some(known) = known {
            return known.edge.clone();
        }
        let edge = self.telemetry.edges.get(self.key(call, protocol));
        if remembered.len() == MAX_REMEMBERED {
            remembered.remove(0);
        }
        remembered.push(Remembered {
            cluster: call.cluster.clone(),
            endpoint: call.endpoint.clone(),
            edge: edge.clone(),
        });
        edge
    }

    fn key(&self, call: &Call, protocol: RequestProtocol) -> EdgeKey {
        let inbound = self.listener.def.direction == Direction::Inbound;
        let source = match &*self.source.borrow() {
            CallerLookup::Known(source) => Peer::clone(source),
            CallerLookup::Waiting(_) => peer(None, self.caller.as_ref()),
        };
        let local = Peer::clone(&self.telemetry.local);
        let destination = if inbound {
            local
        } else {
            let workload = call
                .endpoint
                .as_ref()
                .and_then(|endpoint| endpoint.workload.as_deref());
            let mut destination = described(workload);
            let identity = call.upstream.as_ref().and_then(|tls| tls.peer.as_ref());
            destination.principal = identity
                .map(|id| id.as_str().to_owned())
                .unwrap_or_default();
            destination
        };
        EdgeKey {
            reporter: if inbound {
                Reporter::Destination
            } else {
                Reporter::Source
            },
            source,
            destination,
            service: self.service(call),
            mutual_tls: if inbound {
                self.caller.is_some()
            } else {
                call.upstream.as_ref().is_some_and(|tls| tls.peer.is_some())
            },
            protocol,
        }
    }

    /// The service of the call's cluster; of a call that failed before, that of its port's cluster.
    fn service(&self, call: &Call) -> Service {
        let cluster = call.cluster.as_ref().or_else(|| {
            let name = format!("inbound|{}||", self.port);
            let link = self
                .listener
                .clusters
                .iter()
                .find(|link| *link.name == *name)?;
            link.target.as_ref()
        });
        let service = cluster.and_then(|cluster| cluster.service.as_deref());
        service.cloned().unwrap_or_default()
    }
}

fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

async fn look_up(callers: Rc<Callers>, calls: Rc<Calls>, address: IpAddr) {
    let unresolved = Unresolved(calls);
    bug::point("caller");
    if let Some(demand) = &callers.demand {
        // Whatever the response, the snapshot now has the workload if there is one.
        let wanted = OnDemandResource::Workload(address);
        let _ = demand.ask_by(&callers.timers, wanted).await;
    }
    let workload = callers.store.borrow().workloads.get(&address).cloned();
    let Unresolved(calls) = &unresolved;
    for (call, protocol, sample) in calls.resolve(workload.as_deref()) {
        apply(&calls.edge(&call, protocol), &sample);
    }
}

/// A connection whose caller is looked up. If a panic ends that, the caller counts as `unknown` from
/// then on; the samples that waited for it are lost.
struct Unresolved(Rc<Calls>);

impl Drop for Unresolved {
    fn drop(&mut self) {
        self.0.resolve(None);
    }
}

fn apply(edge: &Edge, sample: &CallSample) {
    match sample {
        CallSample::Request(sample) => edge.record(sample),
        CallSample::Opened => edge.tcp_opened(),
        CallSample::Closed {
            flags,
            failed,
            denied,
            sent,
            received,
        } => {
            edge.tcp_bytes(*sent, *received);
            edge.tcp_closed(*flags, *failed, *denied);
        }
    }
}

/// A caller: labels only when its verified identity is that workload's.
fn peer(workload: Option<&Workload>, identity: Option<&PeerIdentity>) -> Peer {
    let trusted = workload.filter(|workload| {
        identity.is_none_or(|identity| {
            identity.namespace() == Some(&*workload.namespace)
                && identity.service_account() == Some(&*workload.service_account)
        })
    });
    let mut peer = described(trusted);
    peer.principal = identity
        .map(|identity| identity.as_str().to_owned())
        .unwrap_or_default();
    peer
}

fn described(workload: Option<&Workload>) -> Peer {
    workload.map_or_else(Peer::default, |workload| Peer {
        workload: workload.name.clone(),
        namespace: workload.namespace.clone(),
        principal: String::new(),
        app: workload.canonical_service.clone(),
        version: workload.canonical_revision.clone(),
        cluster: workload.cluster.clone(),
    })
}
