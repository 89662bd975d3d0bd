//! What a resource refers to that comes over the stream too.

use prost::Message;
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::core::v3::TransportSocket;
use xds_proto::envoy::config::core::v3::transport_socket::ConfigType;
use xds_proto::envoy::config::listener::v3::Listener;
use xds_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use xds_proto::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
};

use super::kind::{Key, Kind};
use crate::config::cluster::{Cluster as Compiled, Discovery};
use crate::config::snapshot::{Link, RouteLink};

/// Clusters and route configurations by their links.
pub(crate) fn of_links(clusters: &[Link<Compiled>], routes: &[RouteLink]) -> Vec<Key> {
    let cluster = |link: &Link<Compiled>| Key::new(Kind::Cluster, &*link.name);
    let mut refs: Vec<Key> = clusters.iter().map(cluster).collect();
    for link in routes {
        match link {
            RouteLink::Inline(routes) => refs.extend(routes.clusters.iter().map(cluster)),
            RouteLink::Named(link) => refs.push(Key::new(Kind::Route, &*link.name)),
        }
    }
    refs
}

/// The endpoints of an EDS cluster.
pub(crate) fn of_discovery(discovery: &Discovery) -> Option<Key> {
    match discovery {
        Discovery::Eds { service_name } => Some(Key::new(Kind::Endpoint, &**service_name)),
        Discovery::Static { .. } | Discovery::Dns { .. } | Discovery::OriginalDst { .. } => None,
    }
}

/// Secrets that the chains of a listener take from SDS.
pub(crate) fn listener_secrets(listener: &Listener) -> Vec<Key> {
    let chains = listener.filter_chains.iter();
    let sockets = chains
        .chain(&listener.default_filter_chain)
        .filter_map(|chain| chain.transport_socket.as_ref());
    secrets(sockets)
}

/// Secrets that the transport sockets of a cluster take from SDS.
pub(crate) fn cluster_secrets(cluster: &Cluster) -> Vec<Key> {
    let matches = cluster.transport_socket_matches.iter();
    let sockets = matches.filter_map(|entry| entry.transport_socket.as_ref());
    secrets(sockets.chain(&cluster.transport_socket))
}

fn secrets<'a>(sockets: impl Iterator<Item = &'a TransportSocket>) -> Vec<Key> {
    let contexts = sockets.filter_map(tls_context);
    let mut keys = Vec::new();
    for context in contexts {
        let certificates = context.tls_certificate_sds_secret_configs.iter();
        keys.extend(certificates.filter_map(over_sds));
        match &context.validation_context_type {
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
                keys.extend(over_sds(config));
            }
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                let config = combined.validation_context_sds_secret_config.as_ref();
                keys.extend(config.and_then(over_sds));
            }
            _ => {}
        }
    }
    keys
}

/// Without a source the secret is the bootstrap's or the identity agent's.
fn over_sds(config: &SdsSecretConfig) -> Option<Key> {
    config.sds_config.as_ref()?;
    Some(Key::new(Kind::Secret, config.name.as_str()))
}

fn tls_context(socket: &TransportSocket) -> Option<CommonTlsContext> {
    let ConfigType::TypedConfig(any) = socket.config_type.as_ref()?;
    match xds_proto::any::type_name(any) {
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
            DownstreamTlsContext::decode(any.value.as_slice())
                .ok()?
                .common_tls_context
        }
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            UpstreamTlsContext::decode(any.value.as_slice())
                .ok()?
                .common_tls_context
        }
        _ => None,
    }
}
