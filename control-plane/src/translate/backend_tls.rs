//! Clusters of ports for which a BackendTLSPolicy holds.

use xds_proto::envoy::config::cluster::v3 as cluster;

use super::cluster::{discovery, no_endpoint};
use super::naming::Carries;
use super::protocol::Upstream;
use super::tls;
use crate::ads::resources::Scope;
use crate::model::manifest::service::AppProtocol;
use crate::model::mesh::backend_tls::{BackendTls, Trust};

/// The TLS that a cluster of a port originates, whose apps speak `tls`. Clusters of callers' own TLS
/// originate none: on a port that declares nothing no other bytes get to them.
pub fn originated(
    tls: Option<&BackendTls>,
    protocol: AppProtocol,
    carries: Carries,
) -> Option<&BackendTls> {
    tls.filter(|_| match carries {
        Carries::Declared => protocol != AppProtocol::Tls,
        Carries::Http2 | Carries::Http1 => true,
        Carries::Tcp => false,
    })
}

/// Makes a cluster originate TLS to the apps. False: nothing can verify them, so that it has no
/// endpoint.
pub fn originate(
    it: &mut cluster::Cluster,
    scope: &Scope,
    wanted: &BackendTls,
    upstream: &Upstream,
) -> bool {
    let socket = tls::to_app(scope, wanted, upstream.app_alpn());
    if socket.is_none() {
        it.cluster_discovery_type = discovery(cluster::cluster::DiscoveryType::Static);
        it.load_assignment = Some(no_endpoint(&it.name));
        return false;
    }
    // Whatever an endpoint's sidecar takes, the TLS is the app's.
    it.transport_socket_matches.clear();
    it.transport_socket = socket;
    true
}

/// What but a wrong declaration explains failures of calls.
pub fn explanation(carries: Carries, originated: Option<&BackendTls>) -> String {
    match (originated, carries) {
        (Some(tls), _) if tls.trust == Trust::Nothing => {
            let policy = &tls.policy;
            format!(", and BackendTLSPolicy {policy} has no valid CA certificate")
        }
        (None, Carries::Http1) => ", but HTTP without TLS was sent".to_owned(),
        _ => String::new(),
    }
}
