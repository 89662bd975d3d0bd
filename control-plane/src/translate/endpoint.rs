//! Endpoints of services and of single workloads.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::endpoint::v3 as endpoint;

use super::naming::OutboundName;
use super::proto::{address, fields, metadata, text, u32v};
use super::workload::label;
use crate::model::Mesh;
use crate::model::manifest::policy::MtlsMode;
use crate::model::manifest::workload::Locality;
use crate::model::mesh::WorkloadEntry;
use crate::model::mesh::endpoints::Caller;

/// The ClusterLoadAssignment of a service port, for a caller.
pub fn assignment(
    mesh: &Mesh,
    caller: &Caller,
    name: &OutboundName,
) -> Option<endpoint::ClusterLoadAssignment> {
    let service = mesh.service_by_host(&name.host)?;
    let port = service.port(name.port)?;
    let mut localities: BTreeMap<Option<Locality>, Vec<endpoint::LbEndpoint>> = BTreeMap::new();
    for it in mesh.endpoints(service, port, caller) {
        let endpoint = match it.workload {
            Some(entry) => {
                let bypassed = caller.bypassed.contains(&it.at.ip());
                one(mesh, entry, (it.at, bypassed))
            }
            None => plain(it.at),
        };
        let known = it
            .workload
            .and_then(|entry| entry.workload.locality.clone());
        let zone = (!it.zone.is_empty()).then(|| Locality {
            zone: it.zone.to_owned(),
            ..Locality::default()
        });
        let endpoints = localities.entry(known.or(zone)).or_default();
        endpoints.push(endpoint);
    }
    let endpoints =
        localities
            .into_iter()
            .map(|(locality, lb_endpoints)| endpoint::LocalityLbEndpoints {
                locality: Some(locality.as_ref().map(region).unwrap_or_default()),
                lb_endpoints,
                ..endpoint::LocalityLbEndpoints::default()
            });
    Some(endpoint::ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: endpoints.collect(),
        ..endpoint::ClusterLoadAssignment::default()
    })
}

/// An assignment of a single address: an app's own.
pub fn app(cluster: &str, at: SocketAddr) -> endpoint::ClusterLoadAssignment {
    single(cluster, plain(at))
}

/// An assignment of a workload's address; whether the caller's connections bypass its sidecar there.
/// Callers that chose a pod which terminates are to choose anew: their connections end in order.
pub fn of_workload(
    cluster: &str,
    (mesh, entry): (&Mesh, &WorkloadEntry),
    (at, bypassed): (SocketAddr, bool),
) -> endpoint::ClusterLoadAssignment {
    let mut endpoint = one(mesh, entry, (at, bypassed));
    if entry.workload.terminating {
        endpoint.health_status = core::HealthStatus::Draining.into();
    }
    single(cluster, endpoint)
}

fn single(cluster: &str, endpoint: endpoint::LbEndpoint) -> endpoint::ClusterLoadAssignment {
    endpoint::ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..endpoint::LocalityLbEndpoints::default()
        }],
        ..endpoint::ClusterLoadAssignment::default()
    }
}

fn region(locality: &Locality) -> core::Locality {
    core::Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    }
}

fn plain(at: SocketAddr) -> endpoint::LbEndpoint {
    let endpoint = endpoint::Endpoint {
        address: Some(address(at)),
        ..Default::default()
    };
    endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..endpoint::LbEndpoint::default()
    }
}

fn one(
    mesh: &Mesh,
    entry: &WorkloadEntry,
    (at, bypassed): (SocketAddr, bool),
) -> endpoint::LbEndpoint {
    let workload = &entry.workload;
    let who = ("istio", fields(&[("workload", text(label(workload)))]));
    let meta = &workload.meta;
    let mode = mesh.mtls(&meta.namespace, &meta.name, at.port());
    let reached = workload.sidecar && !bypassed && workload.redirected.has_address(at);
    let metadata = match reached && mode != MtlsMode::Disabled {
        true => {
            let mut transports = vec![("anyam", text("mtls"))];
            if workload.tunnels {
                transports.push(("tunnel", text("http")));
            }
            metadata(&[("envoy.transport_socket_match", fields(&transports)), who])
        }
        false => metadata(&[who]),
    };
    endpoint::LbEndpoint {
        metadata: Some(metadata),
        load_balancing_weight: u32v(workload.weight),
        ..plain(at)
    }
}
