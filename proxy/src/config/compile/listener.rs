//! Listeners, filter chains, the TCP proxy.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use xds_proto::envoy::config::listener::v3 as pb;
use xds_proto::envoy::extensions::filters::listener::{
    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
    tls_inspector::v3::TlsInspector,
};
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;

use super::refs::{ClusterNames, RouteNames};
use super::support::{
    At, CompileError, bool_or, decode, each, ignored, known, positive, required, timeout,
    type_name, u32_opt, u32_or, unknown_type, unsupported,
};
use super::{Compiler, chain_match, http, policy, tls, values};
use crate::config::Name;
use crate::config::listener::{
    Direction, FilterChain, Inspect, Listener, ListenerDef, TcpProxy, TcpTarget, Terminal,
};

/// Envoy's default for `per_connection_buffer_limit_bytes`.
const BUFFER: u32 = 1 << 20;
const BACKLOG: u32 = 4096;

/// envoy.config.listener.v3.Listener, not yet linked.
pub fn listener(
    compiler: &Compiler,
    at: At<'_>,
    m: &pb::Listener,
) -> Result<Listener, CompileError> {
    let pb::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = m;
    let (transparent, freebind) = (&bool_or(transparent, false), &bool_or(freebind, false));
    unsupported!(
        at,
        additional_addresses,
        fcds_config,
        filter_chain_matcher,
        per_connection_buffer_high_watermark_timeout,
        transparent,
        freebind,
        socket_options,
        udp_listener_config,
        api_listener,
        enable_mptcp,
        tcp_keepalive,
        listener_specifier,
    );
    ignored!(
        "statistics are kept by edge and by listener name",
        stat_prefix,
        stats_matcher
    );
    ignored!("metadata of listeners is not read", metadata);
    ignored!("every drain is gradual", drain_type);
    ignored!(
        "early data is refused in TLS, and TCP fast open saves nothing without it",
        tcp_fast_open_queue_length
    );
    ignored!(
        "every worker accepts on a socket of its own (SO_REUSEPORT)",
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        max_connections_to_accept_per_socket_event
    );
    ignored!(
        "there is no global connection limit yet",
        ignore_global_conn_limit,
        bypass_overload_manager
    );

    let address = values::socket_address(at.field("address"), required!(at, address))?;
    let name: Arc<str> = match name.as_str() {
        "" => address.to_string().into(),
        name => name.into(),
    };
    let mut scope = Scope {
        compiler,
        clusters: ClusterNames::default(),
        routes: RouteNames::default(),
        secrets: Vec::new(),
    };
    let chains = scope.chains(at, filter_chains)?;
    let default_chain = match default_filter_chain {
        Some(m) => Some(scope.chain(at.field("default_filter_chain"), m, "default")?),
        None => None,
    };
    if chains.is_empty() && default_chain.is_none() {
        return at.field("filter_chains").fail("is required");
    }
    let mut inspect = inspectors(at, listener_filters)?;
    inspect.1.timeout = timeout(
        at.field("listener_filters_timeout"),
        listener_filters_timeout,
        Some(Duration::from_secs(15)),
    )?;
    inspect.1.continue_on_timeout = *continue_on_listener_filters_timeout;
    let bound = deprecated_v1
        .as_ref()
        .map_or(bind_to_port, |old| &old.bind_to_port);
    let metrics = compiler.metrics_of_listener(&name);
    Ok(Listener {
        def: Arc::new(ListenerDef {
            name,
            address,
            bind_to_port: bool_or(bound, true),
            original_dst: inspect.0 || bool_or(use_original_dst, false),
            use_original_dst: bool_or(use_original_dst, false),
            direction: direction(at, *traffic_direction)?,
            inspect: inspect.1,
            chains,
            default_chain,
            per_connection_buffer_limit: u32_or(per_connection_buffer_limit_bytes, BUFFER) as usize,
            max_connections: None,
            backlog: u32_or(tcp_backlog_size, BACKLOG),
            access_log: http::logs(compiler, at, access_log)?,
            metrics,
            secrets: scope.secrets,
        }),
        clusters: scope.clusters.links(),
        routes: scope.routes.links(),
    })
}

fn direction(at: At<'_>, direction: i32) -> Result<Direction, CompileError> {
    use xds_proto::envoy::config::core::v3::TrafficDirection as Kind;
    Ok(match known(at.field("traffic_direction"), direction)? {
        Kind::Unspecified => Direction::Unspecified,
        Kind::Inbound => Direction::Inbound,
        Kind::Outbound => Direction::Outbound,
    })
}

/// Whether the original destination is asked for, and who looks at the first bytes.
fn inspectors(at: At<'_>, filters: &[pb::ListenerFilter]) -> Result<(bool, Inspect), CompileError> {
    let mut original_dst = false;
    let mut inspect = Inspect::default();
    for (index, m) in filters.iter().enumerate() {
        let at = at.index("listener_filters", index);
        let pb::ListenerFilter {
            name,
            filter_disabled,
            config_type,
        } = m;
        ignored!("the type says what the extension is", name);
        let any = match required!(at, config_type) {
            pb::listener_filter::ConfigType::TypedConfig(any) => any,
            pb::listener_filter::ConfigType::ConfigDiscovery(_) => {
                return at
                    .field("config_discovery")
                    .fail("is not supported by this proxy");
            }
        };
        let inner = at.field("typed_config");
        match type_name(any) {
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
                let OriginalDst {} = decode(inner, any)?;
                original_dst = true;
            }
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
                let m: TlsInspector = decode(inner, any)?;
                check_tls_inspector(inner, &m)?;
                // Envoy's way to leave ports out of inspection; Istio uses it for server-first
                // ports. Waiting for the client never holds such a connection up here.
                ignored!("a port is told apart without delay", filter_disabled);
                inspect.tls = true;
                continue;
            }
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
                let HttpInspector {} = decode(inner, any)?;
                inspect.http = true;
                ignored!("a port is told apart without delay", filter_disabled);
                continue;
            }
            _ => return unknown_type(at, any),
        }
        unsupported!(at, filter_disabled);
    }
    Ok((original_dst, inspect))
}

fn check_tls_inspector(at: At<'_>, m: &TlsInspector) -> Result<(), CompileError> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = m;
    let enable_ja3_fingerprinting = &bool_or(enable_ja3_fingerprinting, false);
    let enable_ja4_fingerprinting = &bool_or(enable_ja4_fingerprinting, false);
    unsupported!(at, enable_ja3_fingerprinting, enable_ja4_fingerprinting);
    ignored!(
        "reads go into pooled buffers that hold any ClientHello",
        initial_read_buffer_size,
        max_client_hello_size
    );
    ignored!(
        "what is no ClientHello is not TLS, and the chains decide",
        close_connection_on_client_hello_parsing_errors
    );
    Ok(())
}

/// What the chains of one listener share while they compile.
struct Scope<'a> {
    compiler: &'a Compiler,
    clusters: ClusterNames,
    routes: RouteNames,
    /// Secrets that come over SDS.
    secrets: Vec<Name>,
}

impl Scope<'_> {
    fn chains(
        &mut self,
        at: At<'_>,
        chains: &[pb::FilterChain],
    ) -> Result<Vec<Arc<FilterChain>>, CompileError> {
        let compiled = each(at, "filter_chains", chains, |at, m| self.chain(at, m, ""))?;
        let mut seen = std::collections::HashSet::new();
        for (index, m) in chains.iter().enumerate() {
            let matches = m
                .filter_chain_match
                .clone()
                .unwrap_or_default()
                .encode_to_vec();
            if !seen.insert(matches) {
                let at = at.index("filter_chains", index);
                return at
                    .field("filter_chain_match")
                    .fail("is the same as another chain's");
            }
        }
        Ok(compiled)
    }

    fn chain(
        &mut self,
        at: At<'_>,
        m: &pb::FilterChain,
        name_otherwise: &str,
    ) -> Result<Arc<FilterChain>, CompileError> {
        let pb::FilterChain {
            filter_chain_match,
            filters,
            use_proxy_proto,
            metadata,
            transport_socket,
            transport_socket_connect_timeout,
            name,
        } = m;
        let use_proxy_proto = &bool_or(use_proxy_proto, false);
        unsupported!(at, use_proxy_proto);
        ignored!("metadata of chains is not read", metadata);
        let matches = match filter_chain_match {
            Some(m) => chain_match::chain_match(at.field("filter_chain_match"), m)?,
            None => crate::config::listener::ChainMatch::default(),
        };
        let tls = match transport_socket {
            Some(m) => tls::server(
                self.compiler,
                at.field("transport_socket"),
                m,
                &mut self.secrets,
            )?,
            None => None,
        };
        let (rbac, terminal) = self.filters(at, filters)?;
        let name = if name.is_empty() {
            name_otherwise
        } else {
            name
        };
        Ok(Arc::new(FilterChain {
            name: name.into(),
            matches,
            tls,
            handshake_timeout: positive(
                at.field("transport_socket_connect_timeout"),
                transport_socket_connect_timeout,
                Duration::from_secs(15),
            )?,
            rbac,
            terminal,
        }))
    }

    #[allow(clippy::type_complexity)] // A pair, destructured at once.
    fn filters(
        &mut self,
        at: At<'_>,
        filters: &[pb::Filter],
    ) -> Result<(Vec<Arc<crate::config::policy::Rbac>>, Terminal), CompileError> {
        let mut rbac = Vec::new();
        let mut terminal = None;
        for (index, m) in filters.iter().enumerate() {
            let at = at.index("filters", index);
            if terminal.is_some() {
                return at.fail("stands after the filter that ends the chain");
            }
            let pb::Filter { name, config_type } = m;
            ignored!("the type says what the extension is", name);
            let any = match required!(at, config_type) {
                pb::filter::ConfigType::TypedConfig(any) => any,
                pb::filter::ConfigType::ConfigDiscovery(_) => {
                    return at
                        .field("config_discovery")
                        .fail("is not supported by this proxy");
                }
            };
            let inner = at.field("typed_config");
            match type_name(any) {
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
                    let proxy = self.tcp_proxy(inner, &decode(inner, any)?)?;
                    terminal = Some(Terminal::Tcp(Arc::new(proxy)));
                }
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" =>
                {
                    let m = decode(inner, any)?;
                    let manager = http::manager(self.compiler, inner, &m, &mut self.routes)?;
                    terminal = Some(Terminal::Http(Arc::new(manager)));
                }
                "envoy.extensions.filters.network.rbac.v3.RBAC" => {
                    rbac.push(policy::network_rbac(inner, &decode(inner, any)?)?);
                }
                _ => return unknown_type(at, any),
            }
        }
        match terminal {
            Some(terminal) => Ok((rbac, terminal)),
            None => at
                .field("filters")
                .fail("end in neither tcp_proxy nor http_connection_manager"),
        }
    }

    fn tcp_proxy(&mut self, at: At<'_>, m: &tcp::TcpProxy) -> Result<TcpProxy, CompileError> {
        let tcp::TcpProxy {
            stat_prefix,
            on_demand,
            metadata_match,
            idle_timeout,
            downstream_idle_timeout,
            upstream_idle_timeout,
            access_log,
            max_connect_attempts,
            backoff_options,
            hash_policy,
            tunneling_config,
            max_downstream_connection_duration,
            max_downstream_connection_duration_jitter_percentage,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
            upstream_connect_mode,
            max_early_data_bytes,
            check_drain_close,
            cluster_specifier,
        } = m;
        unsupported!(
            at,
            on_demand,
            metadata_match,
            downstream_idle_timeout,
            upstream_idle_timeout,
            backoff_options,
            tunneling_config,
            access_log_flush_interval,
            flush_access_log_on_connected,
            access_log_options,
            proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy,
        );
        ignored!("clusters that balance by hash are refused", hash_policy);
        ignored!(
            "connections begin at different times; that is jitter enough",
            max_downstream_connection_duration_jitter_percentage
        );
        ignored!(
            "the upstream is dialled early when it may speak first, with a bound of our own",
            upstream_connect_mode,
            max_early_data_bytes
        );
        ignored!(
            "a drain cuts TCP connections at its deadline",
            check_drain_close
        );
        Ok(TcpProxy {
            stat_prefix: stat_prefix.as_str().into(),
            target: self.tcp_target(at, required!(at, cluster_specifier))?,
            idle_timeout: timeout(
                at.field("idle_timeout"),
                idle_timeout,
                Some(Duration::from_secs(3600)),
            )?,
            max_duration: timeout(
                at.field("max_downstream_connection_duration"),
                max_downstream_connection_duration,
                None,
            )?,
            max_connect_attempts: u32_opt(max_connect_attempts).unwrap_or(1).max(1),
            access_log: http::logs(self.compiler, at, access_log)?,
        })
    }

    fn tcp_target(
        &mut self,
        at: At<'_>,
        specifier: &tcp::tcp_proxy::ClusterSpecifier,
    ) -> Result<TcpTarget, CompileError> {
        use tcp::tcp_proxy::ClusterSpecifier as Spec;
        match specifier {
            Spec::Cluster(name) if name.is_empty() => at.field("cluster").fail("is empty"),
            Spec::Cluster(name) => Ok(TcpTarget::Cluster(self.clusters.refer(name))),
            Spec::WeightedClusters(m) => {
                let at = at.field("weighted_clusters");
                let tcp::tcp_proxy::WeightedCluster { clusters } = m;
                let mut bound = 0;
                let weighted = each(at, "clusters", clusters, |at, m| {
                    let tcp::tcp_proxy::weighted_cluster::ClusterWeight {
                        name,
                        weight,
                        metadata_match,
                    } = m;
                    unsupported!(at, metadata_match);
                    if *weight == 0 {
                        return at.field("weight").fail("must be above zero");
                    }
                    bound += u64::from(*weight);
                    Ok((bound, self.clusters.refer(name)))
                })?;
                if weighted.is_empty() {
                    return at.field("clusters").fail("is required");
                }
                Ok(TcpTarget::Weighted(weighted))
            }
        }
    }
}
