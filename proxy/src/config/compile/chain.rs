//! Filter chains, their network filters and the TCP proxy.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use xds_proto::envoy::config::core::v3::TransportSocket;
use xds_proto::envoy::config::listener::v3 as pb;
use xds_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;

use super::refs::{ClusterNames, Fetches, RouteNames};
use super::support::{
    At, CompileError, bool_or, decode, each, ignored, positive, required, timeout, type_name,
    u32_opt, unknown_type, unsupported,
};
use super::{Compiler, chain_match, http, policy, tls};
use crate::config::listener::{FilterChain, ListenerDef, TcpProxy, TcpTarget, Terminal};
use crate::tls::ServerContext;

/// What the chains of one listener share while they compile.
pub struct Scope<'a> {
    pub compiler: &'a Compiler,
    pub clusters: ClusterNames,
    pub routes: RouteNames,
    pub fetches: Fetches,
    /// The chains of the version before, whose TLS contexts, with the sessions that can be resumed,
    /// live on where nothing about them changed.
    pub before: Option<&'a ListenerDef>,
}

impl Scope<'_> {
    pub fn chains(
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

    pub fn chain(
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
                &mut self.fetches,
            )?,
            None => None,
        };
        let transport_key = digest(transport_socket);
        let (rbac, terminal) = self.filters(at, filters)?;
        let name = if name.is_empty() {
            name_otherwise
        } else {
            name
        };
        Ok(Arc::new(FilterChain {
            name: name.into(),
            matches,
            tls: tls.map(|made| self.standing(transport_key).unwrap_or(made)),
            transport_key,
            handshake_timeout: positive(
                at.field("transport_socket_connect_timeout"),
                transport_socket_connect_timeout,
                Duration::from_secs(15),
            )?,
            rbac,
            terminal,
        }))
    }

    /// The context of a chain before that was made of the same settings.
    fn standing(&self, key: u64) -> Option<Arc<ServerContext>> {
        let before = self.before?;
        let mut chains = before.chains.iter().chain(&before.default_chain);
        let chain = chains.find(|chain| chain.tls.is_some() && chain.transport_key == key);
        chain?.tls.clone()
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
                    let manager = http::manager(self, inner, &m)?;
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
        ignored!(
            "statistics are kept by edge and by listener name",
            stat_prefix
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

/// Of the whole message, so that a certificate in line that changes is another context.
fn digest(socket: &Option<TransportSocket>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let bytes = socket.as_ref().map(Message::encode_to_vec);
    bytes.hash(&mut hasher);
    hasher.finish()
}
