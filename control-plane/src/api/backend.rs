//! A cluster as a backend of a route.

use prost::Message;
use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_proto::type_url::ENDPOINT;

use crate::ads::{Scope, View};
use crate::types::RouteBackend;

/// `outbound|80|v2|web.shop.svc.cluster.local` → (80, `v2`, host).
pub fn parts(name: &str) -> Option<(u32, &str, &str)> {
    let mut parts = name.split('|');
    let (Some("outbound"), Some(port), Some(subset), Some(host), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return None;
    };
    Some((port.parse().ok()?, subset, host))
}

pub fn backend(view: &dyn View, scope: &Scope, cluster: &str, weight: u32) -> RouteBackend {
    let (port, _, host) = parts(cluster).unwrap_or((0, "", cluster));
    let assignment = view
        .get(ENDPOINT, cluster, scope)
        .and_then(|resource| ClusterLoadAssignment::decode(resource.body).ok());
    let count = |assignment: ClusterLoadAssignment| {
        let counts = assignment
            .endpoints
            .iter()
            .map(|locality| locality.lb_endpoints.len());
        u32::try_from(counts.sum::<usize>()).unwrap_or(u32::MAX)
    };
    RouteBackend {
        cluster: cluster.to_owned(),
        service: host.to_owned(),
        port,
        weight,
        endpoints: assignment.map_or(0, count),
    }
}
