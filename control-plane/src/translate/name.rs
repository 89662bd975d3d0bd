//! Names of the mesh for the sidecars' DNS.

use xds_proto::anyam::dns::v1 as dns;

use crate::model::Mesh;

/// Seconds. Addresses of services stay; those of headless ones do not.
const TTL: u32 = 30;
const TTL_HEADLESS: u32 = 5;

/// `anyam.dns.v1.Name` of a fully qualified host.
pub fn name(mesh: &Mesh, host: &str) -> Option<dns::Name> {
    let service = mesh.service_by_host(host)?;
    // Left to the resolver outside, which resolves the external name.
    if service.service.external_name.is_some() {
        return None;
    }
    let (addresses, ttl_seconds) = match service.service.headless {
        false => (service.vips.iter().map(ToString::to_string).collect(), TTL),
        true => {
            let publish = service.service.publish_not_ready;
            let live = mesh
                .members(service)
                .filter(|entry| publish || entry.workload.ready);
            let all = live.flat_map(|entry| entry.workload.addresses.iter());
            (all.map(ToString::to_string).collect(), TTL_HEADLESS)
        }
    };
    Some(dns::Name {
        host: host.to_owned(),
        addresses,
        ttl_seconds,
    })
}
