//! The record of one request, filled while it is served and passed to telemetry at its end.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client_cert;
use super::headers::Sender;
use crate::config::http::HttpConnectionManager;
use crate::config::listener::{Direction, FilterChain};
use crate::config::route::{Route, VirtualHost};
use crate::dispatcher::timer::Timers;
use crate::http::filter::StreamFilters;
use crate::matcher::HeaderName;
use crate::message::grpc;
use crate::message::head::{Head, HeaderId, Heads, Version};
use crate::metrics::ResponseFlags;
use crate::metrics::edge::RequestSample;
use crate::policy::DetectedProtocol;
use crate::snapshot::Listener;
use crate::snapshot::RouteConfig;
use crate::telemetry::tap::TapSource;
use crate::telemetry::{Call, Calls, Headers, Record};
use crate::tls;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::worker::Worker;

/// The downstream connection that requests came on; one for all of them.
pub struct Downstream {
    pub id: u64,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    /// As detected at admission.
    pub protocol: DetectedProtocol,
    /// The socket's other end.
    pub peer: SocketAddr,
    /// The client's destination: the original one, else the socket's local address.
    pub local: SocketAddr,
    /// The destination before the redirect, where it is known.
    pub original_dst: Option<SocketAddr>,
    pub tls: Option<Rc<tls::ConnectionInfo>>,
    pub since: Instant,
    pub timers: Timers,
    /// The edges its requests count on.
    pub calls: Rc<Calls>,
    pub client_cert: client_cert::Element,
}

impl Downstream {
    pub fn sender(&self) -> Sender<'_> {
        Sender {
            peer: self.peer,
            tls: self.tls.as_deref(),
            chain: &self.chain,
            client_cert: &self.client_cert,
        }
    }
}

/// An upstream connection.
pub struct Upstream {
    pub local: Option<SocketAddr>,
    pub protocol: Option<Version>,
    pub tls: Option<Rc<tls::ConnectionInfo>>,
}

/// Times of a request's events; `None`: it did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The request's last byte was read.
    pub request_received: Option<Instant>,
    /// An upstream connection was available.
    pub upstream_connected: Option<Instant>,
    /// The response's head arrived.
    pub response_head: Option<Instant>,
    /// From the request's first byte until the response's last was sent, or the request ended
    /// otherwise.
    pub whole: Duration,
}

/// See the module.
pub struct StreamInfo {
    pub downstream: Rc<Downstream>,
    pub manager: Arc<HttpConnectionManager>,
    /// First byte of the request.
    pub start: Instant,
    pub times: Times,

    /// As sent upstream, after all edits.
    pub request: Box<Head>,
    /// As sent downstream; status 0 when none was sent.
    pub response: Box<Head>,
    pub trailers: Option<Box<Head>>,
    pub version: Version,
    pub is_grpc: bool,
    /// `websocket`, `connect`, …, when the response accepted it.
    pub upgraded: bool,
    /// The client's address by `x-forwarded-for`, where that is trusted; else the peer's.
    pub client: SocketAddr,

    /// Body bytes from and to downstream.
    pub request_bytes: u64,
    pub response_bytes: u64,

    pub flags: ResponseFlags,
    /// Envoy's response code details.
    pub details: Cow<'static, str>,
    /// Refused by authorisation.
    pub denied: bool,
    /// The response was made here.
    pub local_reply: bool,
    pub route_choice: RouteChoice,

    pub route_config: Option<Arc<RouteConfig>>,
    /// Index into the route configuration's virtual hosts.
    pub virtual_host: Option<u32>,
    pub route: Option<Arc<Route>>,
    pub cluster: Option<Arc<Cluster>>,
    pub endpoint: Option<Arc<Endpoint>>,
    /// The connection that answered (or failed last).
    pub upstream: Option<Rc<Upstream>>,
    /// Why connecting failed: `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub upstream_failure: Option<Box<str>>,
    /// Upstream requests begun.
    pub attempts: u32,
    /// `set-cookie` headers for the response, of cookies that were made to hash by.
    pub set_cookies: Vec<Box<[u8]>>,
    /// State of the filter chain.
    pub filters: StreamFilters,
    /// Chooses among routes that take a share, and among weighted clusters; uniform over all of `u64`.
    pub draw: u64,
    /// The version of the rules by which it was last evaluated
    /// ([`Resolved::rules_version`](crate::http::connection::conn::Resolved)).
    pub authorised_by: Cell<u64>,
    pub authorised: AuthorisedHead,
}

/// By what the request's route was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteChoice {
    /// Before filters ran.
    #[default]
    BeforeFilters,
    /// A filter has changed what routes match on (`clear_route_cache`): it is to be chosen again.
    Cleared,
    /// Again, also by the metadata that filters had set.
    AfterFilters,
}

/// The request's head as the RBAC filters evaluated it: newer policies are evaluated on the same
/// head while the request is open.
#[derive(Default)]
pub enum AuthorisedHead {
    /// [`StreamInfo::request`], which was not edited.
    #[default]
    Unedited,
    /// A copy from before the edits.
    Copied(Box<Head>),
    /// Not kept, because there were no RBAC filters.
    Lost,
}

impl StreamInfo {
    /// `start`: when the request's first byte was seen. `response`: an empty head to use.
    pub fn new(
        downstream: Rc<Downstream>,
        manager: Arc<HttpConnectionManager>,
        start: Instant,
        request: Box<Head>,
        response: Box<Head>,
    ) -> Self {
        let client = downstream.peer;
        let is_grpc = request.get(HeaderId::ContentType).is_some_and(is_grpc_type);
        Self {
            downstream,
            manager,
            start,
            times: Times::default(),
            version: request.version(),
            request,
            response,
            trailers: None,
            is_grpc,
            upgraded: false,
            client,
            request_bytes: 0,
            response_bytes: 0,
            flags: ResponseFlags::NONE,
            details: Cow::Borrowed(""),
            denied: false,
            local_reply: false,
            route_choice: RouteChoice::default(),
            route_config: None,
            virtual_host: None,
            route: None,
            cluster: None,
            endpoint: None,
            upstream: None,
            upstream_failure: None,
            attempts: 0,
            set_cookies: Vec::new(),
            filters: StreamFilters::default(),
            draw: 0,
            authorised_by: Cell::default(),
            authorised: AuthorisedHead::default(),
        }
    }

    /// Makes the present head the one that newer policies are evaluated on.
    pub fn set_authorised_head(&mut self, heads: &Heads) {
        if let AuthorisedHead::Copied(older) = std::mem::take(&mut self.authorised) {
            heads.put(older);
        }
    }

    /// Keeps a copy of the head for newer policies; to be called before the head is edited.
    pub fn keep_authorised_head(&mut self, heads: &Heads) {
        if !matches!(self.authorised, AuthorisedHead::Unedited) {
            return;
        }
        self.authorised = if self.manager.authorises() {
            let mut copy = heads.take();
            copy.copy_from(&self.request);
            AuthorisedHead::Copied(copy)
        } else {
            AuthorisedHead::Lost
        };
    }

    /// The virtual host that the request matched.
    pub fn virtual_host(&self) -> Option<&VirtualHost> {
        let index = usize::try_from(self.virtual_host?).ok()?;
        self.route_config.as_ref()?.table.virtual_hosts.get(index)
    }

    /// Status sent downstream, 0 when there was none.
    pub fn code(&self) -> u16 {
        self.response.status()
    }

    /// The status of a gRPC call, from the trailers or (trailers-only) from the head; `None`
    /// without one. Any number, and -1 for a value that is no number, as in Envoy's access logs:
    /// the field is the upstream's choice, and may have blanks.
    pub fn grpc_status(&self) -> Option<i32> {
        let trailers = self.trailers.as_ref().filter(|_| self.is_grpc);
        let head = || self.response.get(HeaderId::GrpcStatus);
        let field = trailers
            .and_then(|t| t.get(HeaderId::GrpcStatus))
            .or_else(|| head().filter(|_| self.is_grpc))?;
        let number = std::str::from_utf8(field).ok().and_then(|s| s.parse().ok());
        Some(number.unwrap_or(NO_NUMBER))
    }

    pub fn now(&self) -> Instant {
        self.downstream.timers.now()
    }

    /// Time since the request's first byte.
    pub fn elapsed(&self) -> Duration {
        self.now().saturating_duration_since(self.start)
    }
}

/// `application/grpc`, also with a `+proto`-like suffix or parameters.
pub fn is_grpc_type(value: &[u8]) -> bool {
    value
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

impl StreamInfo {
    /// The record that access logs and header formats read.
    pub fn record(&self) -> Record<'_> {
        let tls = self.downstream.tls.as_deref();
        let upstream_tls = self.upstream.as_ref().and_then(|up| up.tls.as_deref());
        let mut record = Record::lasted(self.elapsed());
        let since_start = |at: Instant| at.saturating_duration_since(self.start);
        record.duration = self.times.whole;
        record.request_duration = self.times.request_received.map(since_start);
        record.response_duration = self.times.response_head.map(since_start);
        record.bytes_received = self.request_bytes;
        record.bytes_sent = self.response_bytes;
        record.protocol = Some(self.version.name());
        record.code = self.code();
        record.details = (!self.details.is_empty()).then_some(&self.details);
        record.flags = self.flags;
        record.route = self.route.as_ref().map(|route| &*route.name);
        record.cluster = self.cluster.as_ref().map(|cluster| &*cluster.name);
        record.upstream_host = self.endpoint.as_ref().map(|endpoint| endpoint.address);
        record.upstream_local = self.upstream.as_ref().and_then(|up| up.local);
        record.upstream_failure = self.upstream_failure.as_deref();
        record.attempts = self.attempts;
        record.remote = Some(self.client);
        record.direct_remote = Some(self.downstream.peer);
        record.local = Some(self.downstream.local);
        record.sni = tls.and_then(|tls| tls.sni.as_deref());
        record.peer_uri_san = peer(tls);
        record.tls_version = tls.map(|tls| tls.version);
        record.tls_cipher = tls.map(|tls| tls.cipher);
        record.upstream_peer_uri_san = peer(upstream_tls);
        record.connection_id = self.downstream.id;
        // As in Envoy, an answer that is not gRPC's has the status that its own maps to.
        let of_http = || i32::from(grpc::status_of_http(self.code()));
        record.grpc_status = self
            .grpc_status()
            .or_else(|| (self.is_grpc && self.code() > 0).then(of_http));
        record.method = Some(self.request.method_name());
        record.path = Some(self.request.path_and_query());
        record.authority = Some(self.request.authority());
        record.scheme = Some(self.request.scheme());
        record.chain = Some(&self.downstream.chain.name);
        record.request = Some(&*self.request);
        record.response = Some(&*self.response);
        record.trailers = self.trailers.as_deref().map(|t| t as &dyn Headers);
        record.metadata = self.filters.metadata();
        record.is_health_check = self.filters.is_health_check();
        record
    }
}

fn peer(tls: Option<&tls::ConnectionInfo>) -> Option<&str> {
    tls?.peer.as_ref().map(tls::PeerIdentity::as_str)
}

impl Headers for Head {
    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        for value in self.get_all_named(name.id, name.name.as_bytes()) {
            each(value);
        }
    }
}

/// The last step of a request: logs and metrics.
pub fn report(worker: &Worker, info: &StreamInfo) {
    if !info.manager.access_log.is_empty() {
        worker.logs.write(&info.manager.access_log, &info.record());
    }
    if worker.telemetry.taps.any() {
        show(worker, info);
    }
    let call = Call {
        cluster: info.cluster.clone(),
        endpoint: info.endpoint.clone(),
        upstream: info.upstream.as_ref().and_then(|up| up.tls.clone()),
    };
    let grpc = info.is_grpc.then(|| info.grpc_status().and_then(defined));
    let sample = RequestSample {
        code: info.code(),
        grpc: grpc.map_or(-1, |status| status.unwrap_or(GRPC_UNKNOWN)),
        flags: info.flags,
        duration: info.times.whole,
        request_bytes: info.request_bytes,
        response_bytes: info.response_bytes,
        denied: info.denied,
    };
    info.downstream.calls.request(&call, info.is_grpc, sample);
}

/// Offers the request to live taps.
fn show(worker: &Worker, info: &StreamInfo) {
    let mut request = info.request.iter().map(|field| (field.name, field.value));
    let mut response = info.response.iter().map(|field| (field.name, field.value));
    worker.telemetry.taps.offer(TapSource {
        record: info.record(),
        inbound: info.downstream.listener.def.direction == Direction::Inbound,
        request_headers: &mut request,
        response_headers: &mut response,
    });
}

/// The status that gRPC clients assume for a call without one (UNKNOWN).
const GRPC_UNKNOWN: i8 = 2;

/// For `grpc-status` that is no number.
const NO_NUMBER: i32 = -1;

/// A status that gRPC defines: codes 0 to 16.
fn defined(status: i32) -> Option<i8> {
    i8::try_from(status)
        .ok()
        .filter(|code| (0..=16).contains(code))
}
