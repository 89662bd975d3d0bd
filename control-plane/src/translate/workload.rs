//! The workload at an address.

use std::net::IpAddr;

use xds_proto::anyam::workload::v1 as wire;

use crate::model::Mesh;
use crate::model::manifest::workload::Workload;

/// `anyam.workload.v1.Workload` by address.
pub fn workload(mesh: &Mesh, ip: IpAddr) -> Option<wire::Workload> {
    let workload = &mesh.workload_by_ip(ip)?.workload;
    Some(wire::Workload {
        name: workload.meta.name.clone(),
        namespace: workload.meta.namespace.clone(),
        service_account: workload.service_account.clone(),
        trust_domain: mesh.options.trust_domain.clone(),
        addresses: workload.addresses.iter().map(ToString::to_string).collect(),
        canonical_service: workload.canonical_service().to_owned(),
        canonical_revision: workload.canonical_revision().to_owned(),
        cluster: String::new(),
        node: workload.node.clone(),
    })
}

/// Istio's short form in endpoint metadata: name, namespace, canonical service and revision, cluster.
pub fn label(workload: &Workload) -> String {
    format!(
        "{};{};{};{};",
        workload.meta.name,
        workload.meta.namespace,
        workload.canonical_service(),
        workload.canonical_revision()
    )
}
