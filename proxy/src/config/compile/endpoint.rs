//! Endpoint assignments: checked on their own, then bound to the cluster they are for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::endpoint::v3 as pb;
use xds_proto::google::protobuf::{Struct, value::Kind};

use super::lb_metadata::{self, lb_metadata};
use super::support::{
    At, CompileError, each, ignored, known, required, u32_opt, u32_or, unsupported,
};
use super::values::{filter_metadata, host_port, ip, string_metadata, text};
use crate::config::Name;
use crate::config::cluster::LbEndpoint;
use crate::config::endpoint::{
    AssignmentPolicy, HealthStatus, LbMetadata, TransportMetadata, Workload,
};
use crate::config::health::EndpointCheck;

/// Priorities an assignment may have.
const MAX_PRIORITY: u32 = 128;

/// An assignment that is not bound to a cluster yet. Hosts may be names (DNS clusters).
pub struct Assignment {
    pub hosts: Vec<LbEndpoint>,
    pub policy: AssignmentPolicy,
}

/// envoy.config.endpoint.v3.ClusterLoadAssignment.
pub fn assignment(at: At<'_>, m: &pb::ClusterLoadAssignment) -> Result<Assignment, CompileError> {
    let pb::ClusterLoadAssignment {
        cluster_name,
        endpoints,
        named_endpoints,
        policy,
    } = m;
    unsupported!(at, named_endpoints);
    ignored!("known by the name of the resource", cluster_name);
    let mut interned = Interned::default();
    let mut hosts = Vec::new();
    for (index, m) in endpoints.iter().enumerate() {
        locality(at.index("endpoints", index), m, &mut interned, &mut hosts)?;
    }
    let mut compiled = AssignmentPolicy::default();
    if let Some(m) = policy {
        let at = at.field("policy");
        let pb::cluster_load_assignment::Policy {
            drop_overloads,
            overprovisioning_factor,
            endpoint_stale_after,
            weighted_priority_health,
        } = m;
        unsupported!(at, drop_overloads);
        ignored!(
            "the last good endpoints serve until new ones come",
            endpoint_stale_after
        );
        compiled = AssignmentPolicy {
            overprovisioning: u32_or(overprovisioning_factor, compiled.overprovisioning),
            weighted_priority_health: *weighted_priority_health,
        };
        if compiled.overprovisioning == 0 {
            return at
                .field("overprovisioning_factor")
                .fail("must be above zero");
        }
    }
    Ok(Assignment {
        hosts,
        policy: compiled,
    })
}

/// Values that many endpoints share.
#[derive(Default)]
struct Interned {
    metadata: HashMap<TransportMetadata, Arc<TransportMetadata>>,
    lb_metadata: HashMap<LbMetadata, Arc<LbMetadata>>,
}

/// The locality of endpoints, and its weight.
#[derive(Clone)]
struct EndpointLocality {
    name: Option<Name>,
    weight: u32,
}

fn locality(
    at: At<'_>,
    m: &pb::LocalityLbEndpoints,
    interned: &mut Interned,
    hosts: &mut Vec<LbEndpoint>,
) -> Result<(), CompileError> {
    let pb::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = m;
    unsupported!(at, lb_config);
    ignored!("metadata of localities is not read", metadata);
    ignored!("Envoy does not read it either", proximity);
    if *priority > MAX_PRIORITY {
        return at
            .field("priority")
            .fail(format_args!("is above {MAX_PRIORITY}"));
    }
    let name = locality.as_ref().map(super::values::locality);
    // As in Envoy, the weight of no locality is none.
    let weight = name.as_ref().and(u32_opt(load_balancing_weight));
    let locality = EndpointLocality {
        weight: weight.unwrap_or(0),
        name,
    };
    let compiled = each(at, "lb_endpoints", lb_endpoints, |at, m| {
        endpoint(at, m, *priority, locality.clone(), interned)
    })?;
    hosts.extend(compiled);
    Ok(())
}

fn endpoint(
    at: At<'_>,
    m: &pb::LbEndpoint,
    priority: u32,
    locality: EndpointLocality,
    interned: &mut Interned,
) -> Result<LbEndpoint, CompileError> {
    let pb::LbEndpoint {
        health_status,
        metadata,
        load_balancing_weight,
        host_identifier,
    } = m;
    let m = match required!(at, host_identifier) {
        pb::lb_endpoint::HostIdentifier::Endpoint(m) => m,
        pb::lb_endpoint::HostIdentifier::EndpointName(_) => {
            return at
                .field("endpoint_name")
                .fail("is not supported by this proxy");
        }
    };
    let weight = match u32_opt(load_balancing_weight) {
        Some(0) => return at.field("load_balancing_weight").fail("must be above zero"),
        Some(weight) => weight,
        None => 1,
    };
    let health = health(at, *health_status)?;
    let at = at.field("endpoint");
    let pb::Endpoint {
        address,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name,
    } = m;
    unsupported!(at, additional_addresses);
    ignored!("endpoints are labelled by workload", observability_name);
    let (host, port) = host_port(at.field("address"), required!(at, address))?;
    let check = match health_check_config {
        Some(m) => check(at.field("health_check_config"), m)?,
        None => None,
    };
    let filters = metadata.as_ref().map(filter_metadata);
    let pairs = filters
        .and_then(|f| f.get("envoy.transport_socket_match"))
        .map(string_metadata)
        .unwrap_or_default();
    let shared = interned.metadata.entry(pairs.into());
    let transport_metadata = shared.or_insert_with_key(|p| Arc::new(p.clone())).clone();
    let tunnel_port = match filters.and_then(|f| f.get("anyam.tunnel")) {
        Some(m) => Some(tunnel_port(
            at.key("metadata.filter_metadata", "anyam.tunnel"),
            m,
        )?),
        None => None,
    };
    let hash_key = filters
        .and_then(|f| f.get("envoy.lb")?.fields.get("hash_key"))
        .and_then(text)
        .filter(|key| !key.is_empty());
    let lb_metadata = match metadata.as_ref().and_then(lb_metadata::fields) {
        Some(m) if !m.fields.is_empty() => {
            let at = at.key("metadata.filter_metadata", "envoy.lb");
            let shared = interned.lb_metadata.entry(lb_metadata(at, m)?);
            Some(shared.or_insert_with_key(|m| Arc::new(m.clone())).clone())
        }
        _ => None,
    };
    let workload = filters
        .and_then(|f| f.get("istio")?.fields.get("workload"))
        .and_then(text)
        .map(|label| Arc::new(workload(label)));
    Ok(LbEndpoint {
        host: host.into(),
        port,
        host_name: (!hostname.is_empty()).then(|| hostname.as_str().into()),
        weight,
        priority,
        locality: locality.name,
        locality_weight: locality.weight,
        lb_metadata,
        transport_metadata,
        tunnel_port,
        hash_key: hash_key.map(Into::into),
        health,
        check,
        workload,
    })
}

/// `None`: nothing special.
fn check(
    at: At<'_>,
    m: &pb::endpoint::HealthCheckConfig,
) -> Result<Option<Arc<EndpointCheck>>, CompileError> {
    let pb::endpoint::HealthCheckConfig {
        port_value,
        hostname,
        address,
        disable_active_health_check,
    } = m;
    let port = match port_value {
        0 => None,
        port => Some(super::support::port(at.field("port_value"), *port)?),
    };
    let mut check = EndpointCheck {
        port,
        address: None,
        host_name: None,
        disabled: *disable_active_health_check,
    };
    if let Some(m) = address {
        let at = at.field("address");
        let (host, own_port) = host_port(at, m)?;
        check.address = Some(ip(at.field("socket_address").field("address"), host)?);
        // As in Envoy, the port beside it counts first.
        check.port = check.port.or((own_port > 0).then_some(own_port));
    }
    if !hostname.is_empty() {
        if !hostname.bytes().all(|byte| byte.is_ascii_graphic()) {
            let at = at.field("hostname");
            return at.fail("has characters that no authority may have");
        }
        check.host_name = Some(hostname.as_str().into());
    }
    Ok((check != EndpointCheck::default()).then(|| Arc::new(check)))
}

fn tunnel_port(at: At<'_>, m: &Struct) -> Result<u16, CompileError> {
    match m.fields.get("port").and_then(|port| port.kind.as_ref()) {
        Some(Kind::NumberValue(port)) if port.fract() == 0.0 && (1.0..=65535.0).contains(port) => {
            // Within the range that was just looked at.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Ok(*port as u16)
        }
        _ => at.field("port").fail("has to be a port"),
    }
}

fn health(at: At<'_>, status: i32) -> Result<HealthStatus, CompileError> {
    use core::HealthStatus as Status;
    Ok(match known(at.field("health_status"), status)? {
        Status::Unknown | Status::Healthy => HealthStatus::Healthy,
        Status::Degraded => HealthStatus::Degraded,
        Status::Draining => HealthStatus::Draining,
        Status::Unhealthy | Status::Timeout => HealthStatus::Unhealthy,
    })
}

/// Istio's `name;namespace;canonical service;canonical revision;cluster`.
fn workload(label: &str) -> Workload {
    let mut parts = label.split(';').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Workload {
        name: next(),
        namespace: next(),
        canonical_service: next(),
        canonical_revision: next(),
        cluster: next(),
        ..Workload::default()
    }
}

impl Assignment {
    /// Every host has to be an address.
    pub fn addresses(&self, at: At<'_>) -> Result<Vec<(SocketAddr, &LbEndpoint)>, CompileError> {
        let address = |host: &'_ LbEndpoint| Ok(SocketAddr::new(ip(at, &host.host)?, host.port));
        self.hosts
            .iter()
            .map(|host| Ok((address(host)?, host)))
            .collect()
    }
}
