//! Clusters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::balancing::{LocalityPolicy, SlowStart, SubsetSettings};
use super::endpoint::{AssignmentPolicy, HealthStatus, LbMetadata, TransportMetadata, Workload};
use super::hash::HashPolicy;
use super::health::{EndpointCheck, HealthCheck};
use super::http::Http2Options;
use super::outlier::OutlierConfig;
use super::route::RetryPolicy;
use crate::metrics::edge::Service;
use crate::tls::ClientContext;

/// envoy.config.cluster.v3.Cluster, compiled: its settings.
pub struct ClusterDef {
    pub name: Name,
    pub discovery: Discovery,
    pub connect_timeout: Duration,
    pub lb: LbPolicy,
    pub slow_start: Option<SlowStart>,
    pub locality: LocalityPolicy,
    /// `None`: there are no subsets.
    pub subsets: Option<Arc<SubsetSettings>>,
    /// How requests are hashed, in place of the routes' own hash policies.
    pub hash_policy: Option<Arc<HashPolicy>>,
    /// `common_lb_config.override_host_status`: what a session's endpoint may be.
    pub session_health: SessionHealth,
    pub transport: Vec<TransportMatch>,
    /// Secrets that come over SDS.
    pub secrets: Vec<Name>,
    /// The longest that any of its sources may take (`initial_fetch_timeout`).
    pub initial_fetch_timeout: Option<Duration>,
    pub protocol: UpstreamProtocol,
    pub http1: UpstreamHttp1,
    pub http2: Http2Options,
    /// Upstream idle connections are closed after this; Envoy's default is one hour.
    pub idle_timeout: Option<Duration>,
    /// `None`: no bound.
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    pub max_response_headers_count: usize,
    /// Decoded bytes of a response head. Envoy's default is 60 KiB.
    pub max_response_headers_bytes: usize,
    pub keepalive: Option<Keepalive>,
    pub outlier: Option<Arc<OutlierConfig>>,
    /// Active health checks.
    pub health: Option<Arc<HealthCheck>>,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`.
    pub ignores_new_hosts: bool,
    /// Endpoints that discovery does not have any more go at once, and not only once they fail
    /// their health checks: `ignore_health_on_host_removal`.
    pub removes_healthy_hosts: bool,
    /// Circuit breakers.
    pub thresholds: Thresholds,
    /// `common_lb_config`: requests get no connection from before endpoints came or went.
    pub close_connections_on_host_set_change: bool,
    /// `common_lb_config.healthy_panic_threshold` in percent; Envoy's default is 50.
    pub panic_threshold: u8,
    /// Route-level default when a route has no retry policy of its own.
    pub retry: Option<Arc<RetryPolicy>>,
    /// The service this cluster stands for, for telemetry: from `filter_metadata`, Istio's
    /// `istio: {services: [{host, name, namespace}]}`.
    pub service: Option<Arc<Service>>,
    /// Who declared its port and as what, in words for errors: from `filter_metadata`,
    /// `anyam: {declared_by: …}`.
    pub declared_by: Option<Arc<str>>,
    /// `upstream_bind_config`. Inbound clusters dial the app from 127.0.0.6 (IPv6: ::6), by which
    /// netfilter distinguishes a delivery to the app from a call of the app to itself.
    pub bind_source: BindSource,
}

/// Upper bounds; defaults are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    pub requests: u32,
    pub retries: RetryLimit,
}

/// How many retries may be in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RetryLimit {
    Fixed(u32),
    /// A share of what is active or pending, but never fewer than `min`.
    Budget {
        percent: f64,
        min: u32,
    },
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: RetryLimit::Fixed(3),
        }
    }
}

pub enum Discovery {
    Static {
        hosts: Vec<LbEndpoint>,
        policy: AssignmentPolicy,
    },
    Eds {
        service_name: Name,
    },
    /// Resolved again and again; `logical`: one endpoint, whatever the number of addresses.
    Dns {
        logical: bool,
        hosts: Vec<LbEndpoint>,
        policy: AssignmentPolicy,
        refresh: Duration,
        family: AddressFamily,
    },
    OriginalDst {
        port_override: Option<u16>,
    },
}

/// An endpoint as configured: its host may be a name.
#[derive(Clone)]
pub struct LbEndpoint {
    pub host: Box<str>,
    pub port: u16,
    pub host_name: Option<Name>,
    /// At least 1.
    pub weight: u32,
    pub priority: u32,
    pub locality: Option<Name>,
    /// The weight of its locality; 0 where it has none.
    pub locality_weight: u32,
    /// What subsets are formed by.
    pub lb_metadata: Option<Arc<LbMetadata>>,
    pub transport_metadata: Arc<TransportMetadata>,
    pub tunnel_port: Option<u16>,
    /// `filter_metadata`, Envoy's `envoy.lb: {hash_key: …}`.
    pub hash_key: Option<Box<str>>,
    pub health: HealthStatus,
    pub check: Option<Arc<EndpointCheck>>,
    pub workload: Option<Arc<Workload>>,
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamily {
    V4,
    V6,
    /// IPv4, or IPv6 when there is none.
    PreferV4,
    /// IPv6, or IPv4 when there is none.
    PreferV6,
    All,
}

/// What a load balancer does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LbPolicy {
    RoundRobin,
    /// Power of N choices by active requests; `bias` as in Envoy's `active_request_bias`.
    LeastRequest {
        choices: u32,
        bias: f64,
    },
    Random,
    /// By the hash of a request or connection; without one, at random.
    ConsistentHash(ConsistentHashing),
}

impl LbPolicy {
    /// Whether requests are hashed.
    pub fn is_hash(&self) -> bool {
        matches!(self, Self::ConsistentHash(_))
    }

    /// Whether a pick depends on how much is in flight in the whole cluster.
    pub fn bounds_load(&self) -> bool {
        matches!(self, Self::ConsistentHash(hashing) if hashing.balance_factor.is_some())
    }
}

/// RING_HASH or MAGLEV.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsistentHashing {
    pub table: HashTableKind,
    /// Endpoints are hashed by their host names, not by their addresses.
    pub use_hostname: bool,
    /// Percent of its share of the load that an endpoint carries at most; `None`: no bound.
    pub balance_factor: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTableKind {
    /// Points on the ring, of all endpoints.
    Ring {
        minimum: u32,
        maximum: u32,
        function: HashFunction,
    },
    Maglev {
        /// A prime.
        size: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    XxHash,
    MurmurHash2,
}

/// The states of health in which an endpoint keeps its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionHealth {
    pub healthy: bool,
    pub degraded: bool,
    pub draining: bool,
    pub unhealthy: bool,
}

impl Default for SessionHealth {
    /// Envoy's.
    fn default() -> Self {
        Self {
            healthy: true,
            degraded: true,
            draining: false,
            unhealthy: false,
        }
    }
}

impl SessionHealth {
    pub fn allows(&self, status: HealthStatus) -> bool {
        match status {
            HealthStatus::Healthy => self.healthy,
            HealthStatus::Degraded => self.degraded,
            HealthStatus::Draining => self.draining,
            HealthStatus::Unhealthy => self.unhealthy,
        }
    }
}

/// `transport_socket_matches`: the first entry whose every pair stands in the endpoint's metadata.
#[derive(Clone)]
pub struct TransportMatch {
    pub name: Name,
    pub criteria: Vec<(Box<str>, Box<str>)>,
    /// One of the criteria is `tunnel`: TCP travels inside HTTP/2 connections to the endpoint's
    /// tunnel port.
    pub tunnel: bool,
    pub transport: Transport,
}

#[derive(Clone)]
pub enum Transport {
    RawBuffer,
    Tls(Arc<ClientContext>),
}

/// envoy.extensions.upstreams.http.v3.HttpProtocolOptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// By ALPN when the transport is TLS, else HTTP/1.1.
    Auto,
    /// As the request came in.
    Downstream,
}

#[derive(Clone, Copy, Debug)]
pub struct UpstreamHttp1 {
    pub preserve_case: bool,
    /// Responses keep their reason phrase. Off in Envoy, on by our translate.
    pub forward_reason: bool,
}

/// envoy.config.core.v3.BindConfig: the source address for each family of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BindSource {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl BindSource {
    /// Takes an address for its family; the first one of a family counts, as in Envoy.
    pub fn offer(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(source) => _ = self.v4.get_or_insert(source),
            IpAddr::V6(source) => _ = self.v6.get_or_insert(source),
        }
    }

    /// From where `address` is dialled. `None`: the kernel chooses.
    pub fn towards(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub time: Duration,
    pub interval: Duration,
    pub probes: u32,
}
