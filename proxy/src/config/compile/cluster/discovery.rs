//! Where a cluster's endpoints come from.

use std::time::Duration;

use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily;
use xds_proto::envoy::extensions::clusters::dns::v3::DnsCluster;
use xds_proto::google::protobuf as google;

use crate::config::Name;
use crate::config::cluster::{AddressFamily, Discovery};
use crate::config::compile::endpoint::assignment;
use crate::config::compile::refs::Fetches;
use crate::config::compile::support::{
    At, CompileError, decode, ignored, known, port, positive, required, type_name, unknown_type,
    unsupported,
};
use crate::config::compile::values::over_ads;

/// Envoy's default for `dns_refresh_rate`.
const REFRESH: Duration = Duration::from_secs(5);

/// The discovery of `m`; only its fields about discovery are read here.
pub fn discovery(
    at: At<'_>,
    m: &pb::Cluster,
    fetches: &mut Fetches,
) -> Result<Discovery, CompileError> {
    use pb::cluster::{ClusterDiscoveryType as How, DiscoveryType as Type};
    let kind = match &m.cluster_discovery_type {
        None => Type::Static,
        Some(How::Type(kind)) => known(at.field("type"), *kind)?,
        Some(How::ClusterType(custom)) => return custom_type(at, custom, m),
    };
    match kind {
        Type::Static => {
            let Some(load) = &m.load_assignment else {
                return at
                    .field("load_assignment")
                    .fail("is required by a STATIC cluster");
            };
            let at = at.field("load_assignment");
            let compiled = assignment(at, load)?;
            compiled.addresses(at)?;
            Ok(Discovery::Static {
                hosts: compiled.hosts,
                policy: compiled.policy,
            })
        }
        Type::Eds => eds(at, m, fetches),
        Type::StrictDns | Type::LogicalDns => {
            let refresh = positive(at.field("dns_refresh_rate"), &m.dns_refresh_rate, REFRESH)?;
            let family = family(at.field("dns_lookup_family"), m.dns_lookup_family)?;
            dns(at, m, kind == Type::LogicalDns, refresh, family)
        }
        Type::OriginalDst => Ok(Discovery::OriginalDst {
            port_override: match &m.lb_config {
                Some(pb::cluster::LbConfig::OriginalDstLbConfig(m)) => {
                    original_dst(at.field("original_dst_lb_config"), m)?
                }
                _ => None,
            },
        }),
    }
}

fn eds(at: At<'_>, m: &pb::Cluster, fetches: &mut Fetches) -> Result<Discovery, CompileError> {
    let Some(config) = &m.eds_cluster_config else {
        return at
            .field("eds_cluster_config")
            .fail("is required by an EDS cluster");
    };
    let at = at.field("eds_cluster_config");
    let pb::cluster::EdsClusterConfig {
        eds_config,
        service_name,
    } = config;
    let source = required!(at, eds_config);
    fetches.wait(over_ads(at.field("eds_config"), source)?);
    let service_name = if service_name.is_empty() {
        &m.name
    } else {
        service_name
    };
    Ok(Discovery::Eds {
        service_name: service_name.as_str().into(),
    })
}

fn dns(
    at: At<'_>,
    m: &pb::Cluster,
    logical: bool,
    refresh: Duration,
    family: AddressFamily,
) -> Result<Discovery, CompileError> {
    let Some(load) = &m.load_assignment else {
        return at
            .field("load_assignment")
            .fail("is required by a DNS cluster");
    };
    let at = at.field("load_assignment");
    let mut compiled = assignment(at, load)?;
    for host in &mut compiled.hosts {
        // As in Envoy: what is resolved is the host's name, unless it is given another.
        if host.host_name.is_none() {
            host.host_name = Some(Name::from(&*host.host));
        }
    }
    if logical && compiled.hosts.len() != 1 {
        return at.fail("a LOGICAL_DNS cluster has exactly one endpoint");
    }
    Ok(Discovery::Dns {
        logical,
        hosts: compiled.hosts,
        policy: compiled.policy,
        refresh,
        family,
    })
}

fn family(at: At<'_>, family: i32) -> Result<AddressFamily, CompileError> {
    use pb::cluster::DnsLookupFamily as Family;
    Ok(match known(at, family)? {
        // Envoy's AUTO prefers IPv6.
        Family::Auto => AddressFamily::PreferV6,
        Family::V4Only => AddressFamily::V4,
        Family::V6Only => AddressFamily::V6,
        Family::V4Preferred => AddressFamily::PreferV4,
        Family::All => AddressFamily::All,
    })
}

/// The port that is dialled in place of the destination's.
pub fn original_dst(
    at: At<'_>,
    m: &pb::cluster::OriginalDstLbConfig,
) -> Result<Option<u16>, CompileError> {
    let pb::cluster::OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = m;
    unsupported!(at, use_http_header, http_header_name, metadata_key);
    match upstream_port_override {
        Some(number) => port(at.field("upstream_port_override"), number.value).map(Some),
        None => Ok(None),
    }
}

fn custom_type(
    at: At<'_>,
    custom: &pb::cluster::CustomClusterType,
    m: &pb::Cluster,
) -> Result<Discovery, CompileError> {
    let at_type = at.field("cluster_type");
    let pb::cluster::CustomClusterType { name, typed_config } = custom;
    ignored!("the type says what the extension is", name);
    let any: &google::Any = required!(at_type, typed_config);
    if type_name(any) != "envoy.extensions.clusters.dns.v3.DnsCluster" {
        return unknown_type(at_type, any);
    }
    let inner = at_type.field("typed_config");
    let config: DnsCluster = decode(inner, any)?;
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = &config;
    ignored!(
        "names are resolved by the system's resolver, whose answers carry no TTL",
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_min_refresh_rate
    );
    let refresh = positive(inner.field("dns_refresh_rate"), dns_refresh_rate, REFRESH)?;
    let family = match known(inner.field("dns_lookup_family"), *dns_lookup_family)? {
        DnsLookupFamily::Unspecified | DnsLookupFamily::Auto => AddressFamily::PreferV6,
        DnsLookupFamily::V4Only => AddressFamily::V4,
        DnsLookupFamily::V6Only => AddressFamily::V6,
        DnsLookupFamily::V4Preferred => AddressFamily::PreferV4,
        DnsLookupFamily::All => AddressFamily::All,
    };
    dns(at, m, *all_addresses_in_single_endpoint, refresh, family)
}
