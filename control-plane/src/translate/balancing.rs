//! How calls to a service choose endpoints.

use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as cluster;
use xds_proto::envoy::config::cluster::v3::cluster::LbPolicy;
use xds_proto::envoy::config::route::v3::route_action::{HashPolicy, hash_policy as by};
use xds_proto::envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig;
use xds_proto::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use xds_proto::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;

use super::proto::{duration, extension};
use crate::model::manifest::balancing::{HashOn, LoadBalancer, SourceIp};
use crate::model::manifest::policy::BackendSpec;
use crate::model::manifest::service::Service;

/// Sets the policy of a service's cluster. What is hashed stands in the cluster, not in routes: a
/// route may lead to services with other policies.
pub fn apply(it: &mut cluster::Cluster, spec: &BackendSpec, service: Option<&Service>) {
    let has_affinity = service.is_some_and(|service| service.client_ip_affinity);
    let otherwise = match has_affinity {
        true => LoadBalancer::RingHash,
        false => LoadBalancer::LeastRequest,
    };
    match spec.load_balancer.unwrap_or(otherwise) {
        LoadBalancer::LeastRequest => it.lb_policy = LbPolicy::LeastRequest as i32,
        LoadBalancer::RoundRobin => it.lb_policy = LbPolicy::RoundRobin as i32,
        LoadBalancer::Random => it.lb_policy = LbPolicy::Random as i32,
        LoadBalancer::RingHash => {
            let policy = RingHash {
                consistent_hashing_lb_config: Some(hashing(&spec.hash_on)),
                ..RingHash::default()
            };
            let name = "envoy.load_balancing_policies.ring_hash";
            it.load_balancing_policy = typed(extension(name, &policy));
        }
        LoadBalancer::Maglev => {
            let policy = Maglev {
                consistent_hashing_lb_config: Some(hashing(&spec.hash_on)),
                ..Maglev::default()
            };
            let name = "envoy.load_balancing_policies.maglev";
            it.load_balancing_policy = typed(extension(name, &policy));
        }
    }
}

fn typed(
    extension: xds_proto::envoy::config::core::v3::TypedExtensionConfig,
) -> Option<cluster::LoadBalancingPolicy> {
    let policy = cluster::load_balancing_policy::Policy {
        typed_extension_config: Some(extension),
    };
    Some(cluster::LoadBalancingPolicy {
        policies: vec![policy],
    })
}

fn hashing(hash_on: &[HashOn]) -> ConsistentHashingLbConfig {
    let by_address = HashOn {
        source_ip: Some(SourceIp {}),
        ..HashOn::default()
    };
    let rules = match hash_on {
        [] => std::slice::from_ref(&by_address),
        rules => rules,
    };
    ConsistentHashingLbConfig {
        hash_policy: rules.iter().map(rule).collect(),
        ..ConsistentHashingLbConfig::default()
    }
}

fn rule(on: &HashOn) -> HashPolicy {
    use by::PolicySpecifier as By;
    let specifier = if let Some(name) = &on.header {
        By::Header(by::Header {
            header_name: name.lower(),
            ..by::Header::default()
        })
    } else if let Some(cookie) = &on.cookie {
        By::Cookie(by::Cookie {
            name: cookie.name.0.clone(),
            ttl: duration(cookie.ttl.map_or(Duration::ZERO, |ttl| ttl.0)),
            path: cookie.path.clone().unwrap_or_default(),
            ..by::Cookie::default()
        })
    } else if let Some(name) = &on.query_parameter {
        By::QueryParameter(by::QueryParameter { name: name.clone() })
    } else {
        By::ConnectionProperties(by::ConnectionProperties { source_ip: true })
    };
    HashPolicy {
        terminal: false,
        policy_specifier: Some(specifier),
    }
}
