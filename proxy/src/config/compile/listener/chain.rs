//! Filter chains and their network filters. The TCP proxy: `tcp`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use xds_proto::envoy::config::core::v3::TransportSocket;
use xds_proto::envoy::config::listener::v3 as pb;

use super::scope::Scope;
use super::{chain_match, http, tcp};
use crate::config::compile::support::{
    At, CompileError, bool_or, decode, each, ignored, positive, required, type_name, unknown_type,
    unsupported,
};
use crate::config::compile::{policy, tls};
use crate::config::listener::{FilterChain, TerminalFilter};
use crate::tls::ServerContext;

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

    /// The context of a previous chain with the same settings.
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
    ) -> Result<(Vec<Arc<crate::config::policy::Rbac>>, TerminalFilter), CompileError> {
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
                    let proxy = tcp::proxy(self, inner, &decode(inner, any)?)?;
                    terminal = Some(TerminalFilter::Tcp(Arc::new(proxy)));
                }
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" =>
                {
                    let m = decode(inner, any)?;
                    let manager = http::manager(self, inner, &m)?;
                    terminal = Some(TerminalFilter::Http(Arc::new(manager)));
                }
                "anyam.tunnel.v1.Tunnel" => {
                    let options = tcp::tunnel(inner, &decode(inner, any)?)?;
                    terminal = Some(TerminalFilter::Tunnel(Arc::new(options)));
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
}

/// Of the whole message, so that a certificate in line that changes is another context.
fn digest(socket: &Option<TransportSocket>) -> u64 {
    let mut hasher = DefaultHasher::new();
    let bytes = socket.as_ref().map(Message::encode_to_vec);
    bytes.hash(&mut hasher);
    hasher.finish()
}
