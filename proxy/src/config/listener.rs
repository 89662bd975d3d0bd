//! Listeners, filter chains and what a chain ends in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Name;
use super::access_log::{AccessLog, Format};
use super::balancing::SubsetCriteria;
use super::cidr::Cidr;
use super::http::HttpConnectionManager;
use super::policy::Rbac;
use crate::config::ClusterRef;
use crate::connection_limit::ConnectionLimit;
use crate::metrics::ListenerMetrics;
use crate::tls::ServerContext;

/// Which way traffic flows, from the workload's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// envoy.config.core.v3.SocketAddress.Protocol, as far as it is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketProtocol {
    Tcp,
}

/// A socket that a listener serves. Listeners of different protocols may share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    pub protocol: SocketProtocol,
    pub address: SocketAddr,
}

impl ListenerKey {
    pub fn tcp(address: SocketAddr) -> Self {
        let protocol = SocketProtocol::Tcp;
        ListenerKey { protocol, address }
    }
}

/// The part of a listener that does not change when what it refers to does.
pub struct ListenerDef {
    pub name: Name,
    /// Of all its addresses.
    pub protocol: SocketProtocol,
    pub address: SocketAddr,
    /// `additional_addresses`.
    pub more_addresses: Vec<SocketAddr>,
    /// False: only reached through another listener's `use_original_dst`.
    pub bind_to_port: bool,
    /// Recover the address dialled before the netfilter redirect.
    pub original_dst: bool,
    /// Hand the connection to the listener at its original destination, when there is one.
    pub use_original_dst: bool,
    pub direction: Direction,
    pub inspect: ListenerFilters,
    pub chains: Vec<Arc<FilterChain>>,
    pub default_chain: Option<Arc<FilterChain>>,
    /// Bytes a connection may buffer in each direction before it stops reading.
    pub per_connection_buffer_limit: usize,
    /// Limits of open connections: the listener's own, and the process's.
    pub connection_limits: Vec<Arc<ConnectionLimit>>,
    /// Limit of connections to upstreams that are opened for this listener's connections. One
    /// HTTP/2 connection may need as many as it has streams. `None`: only the clusters' limits
    /// apply.
    pub upstream_limit: Option<Arc<ConnectionLimit>>,
    pub backlog: u32,
    pub access_log: Vec<Arc<AccessLog>>,
    /// Who declared what it carries, in words for errors: from `filter_metadata`,
    /// `anyam: {declared_by: …}`.
    pub declared_by: Option<Arc<str>>,
    /// Responses that the proxy makes say why in sentences, where Envoy's are else the same: from
    /// `filter_metadata`, `anyam: {local_replies: reasons}`.
    pub gives_reasons: bool,
    pub metrics: Arc<ListenerMetrics>,
    /// Secrets that come over SDS.
    pub secrets: Vec<Name>,
    /// The longest that any of its sources may take (`initial_fetch_timeout`).
    pub initial_fetch_timeout: Option<Duration>,
}

impl ListenerDef {
    /// Its idle connections end when nearly as many as may be are open.
    pub fn closes_idle(&self) -> bool {
        self.connection_limits
            .iter()
            .any(|limit| limit.closes_idle())
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        std::iter::once(self.address).chain(self.more_addresses.iter().copied())
    }

    /// Its sockets, bound or not.
    pub fn keys(&self) -> impl Iterator<Item = ListenerKey> + '_ {
        let protocol = self.protocol;
        self.addresses()
            .map(move |address| ListenerKey { protocol, address })
    }
}

/// Which listener filters look at the first bytes, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerFilters {
    pub tls: bool,
    pub http: bool,
    /// `listener_filters_timeout`; `None` waits for ever (Envoy's 0).
    pub timeout: Option<Duration>,
    /// On time-out go on with what is known, instead of closing.
    pub continue_on_timeout: bool,
}

/// envoy.config.listener.v3.FilterChain.
pub struct FilterChain {
    pub name: Name,
    pub matches: ChainMatch,
    /// `None`: raw_buffer.
    pub tls: Option<Arc<ServerContext>>,
    /// Digest of the transport socket: while it stays, so does `tls`.
    pub transport_key: u64,
    pub handshake_timeout: Duration,
    /// Network RBAC, in order, before the terminal filter.
    pub rbac: Vec<Arc<Rbac>>,
    pub terminal: TerminalFilter,
}

/// envoy.config.listener.v3.FilterChainMatch. Envoy's order of evaluation: destination port,
/// destination prefix, server name, transport protocol, application protocols, direct source
/// prefix, source type, source prefix, source port. The most specific wins at each step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub prefix_ranges: Vec<Cidr>,
    /// Lower case; `*.example.com` is kept with its leading `*`.
    pub server_names: Vec<Box<str>>,
    pub transport_protocol: Option<TransportProtocol>,
    pub application_protocols: Vec<Box<[u8]>>,
    pub direct_source_prefix_ranges: Vec<Cidr>,
    pub source_type: SourceType,
    pub source_prefix_ranges: Vec<Cidr>,
    pub source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportProtocol {
    RawBuffer,
    Tls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// The filter that ends a chain.
pub enum TerminalFilter {
    Tcp(Arc<TcpProxy>),
    Http(Arc<HttpConnectionManager>),
    /// Connections inside an HTTP/2 connection; each is served as if it had come in by itself.
    Tunnel(Arc<TunnelOptions>),
}

impl TerminalFilter {
    /// Whether `other` is a filter of the same kind: a TCP proxy would relay requests that HTTP
    /// filters check.
    pub fn is_alike(&self, other: &TerminalFilter) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// anyam.tunnel.v1.Tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelOptions {
    pub max_concurrent_streams: u32,
    /// Bytes of one stream that may be under way.
    pub stream_window: u32,
    /// Without a stream for so long the connection is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

impl TunnelOptions {
    /// The sum of all streams' windows, so that a stream that is not read cannot block the others.
    pub fn connection_window(&self) -> u32 {
        let room = self
            .stream_window
            .saturating_mul(self.max_concurrent_streams);
        room.min(i32::MAX as u32)
    }
}

/// envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
pub struct TcpProxy {
    pub target: TcpTarget,
    /// For clusters that have subsets.
    pub subset: Option<Arc<SubsetCriteria>>,
    /// `None` when switched off by 0.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`; `None`: no bound.
    pub max_duration: Option<Duration>,
    /// At least 1.
    pub max_connect_attempts: u32,
    /// `hash_policy: [{source_ip: {}}]`: connections of one client go to one endpoint, where the
    /// cluster balances by hash.
    pub hash_source_ip: bool,
    /// Connections travel inside HTTP/2 connections to every endpoint.
    pub tunneling: Option<Tunneling>,
    pub access_log: Vec<Arc<AccessLog>>,
}

/// envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig.
pub struct Tunneling {
    /// The CONNECT's authority.
    pub hostname: Format,
    pub headers: Vec<(Box<str>, Format)>,
}

pub enum TcpTarget {
    Cluster(ClusterRef),
    /// Cumulative weights: the first entry whose bound exceeds a number drawn below the last.
    Weighted(Vec<WeightedTcpCluster>),
}

pub struct WeightedTcpCluster {
    /// Cumulative.
    pub bound: u64,
    pub cluster: ClusterRef,
    /// The proxy's own included; `None`: as the proxy has it.
    pub subset: Option<Arc<SubsetCriteria>>,
}
