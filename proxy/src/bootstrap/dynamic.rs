//! `dynamic_resources`: one aggregated stream, or none.

use std::time::Duration;

use xds_proto::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::core::v3::api_config_source::ApiType;
use xds_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use xds_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};

use super::Ads;
use crate::config::compile::support::{At, CompileError, ignored, known, unsupported};
use crate::config::compile::values::fetch_timeout;
use crate::xds::message::ProtocolVariant;

const ONLY_ADS: &str = "is not supported; use `ads: {}` with dynamic_resources.ads_config";

pub fn resources(
    at: At<'_>,
    resources: &Option<DynamicResources>,
    named: &dyn Fn(&str) -> bool,
) -> Result<Option<Ads>, CompileError> {
    let Some(DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    }) = resources
    else {
        return Ok(None);
    };
    unsupported!(at, lds_resources_locator, cds_resources_locator);
    let listeners = over_ads(at.field("lds_config"), lds_config)?;
    let clusters = over_ads(at.field("cds_config"), cds_config)?;
    let Some(ads_config) = ads_config else {
        if listeners.is_some() || clusters.is_some() {
            return at
                .field("ads_config")
                .fail("is required by the `ads` of lds_config or cds_config");
        }
        return Ok(None);
    };
    let (protocol, cluster) = stream(at.field("ads_config"), ads_config)?;
    if !named(&cluster) {
        let why = format_args!("no cluster {cluster:?} in static_resources.clusters");
        return at.field("ads_config").fail(why);
    }
    let longest = listeners.max(clusters);
    Ok(Some(Ads {
        cluster,
        protocol,
        listeners: listeners.is_some(),
        clusters: clusters.is_some(),
        init_timeout: longest,
    }))
}

/// `None`: not asked for; else how long it may take at first.
fn over_ads(
    at: At<'_>,
    source: &Option<core::ConfigSource>,
) -> Result<Option<Duration>, CompileError> {
    let Some(core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    }) = source
    else {
        return Ok(None);
    };
    unsupported!(at, authorities);
    version(at.field("resource_api_version"), *resource_api_version)?;
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})) => {
            let at = at.field("initial_fetch_timeout");
            fetch_timeout(at, initial_fetch_timeout).map(Some)
        }
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
            at.field("api_config_source").fail(ONLY_ADS)
        }
        Some(ConfigSourceSpecifier::Path(_)) => at.field("path").fail(ONLY_ADS),
        Some(ConfigSourceSpecifier::PathConfigSource(_)) => {
            at.field("path_config_source").fail(ONLY_ADS)
        }
        Some(ConfigSourceSpecifier::Self_(_)) => at.field("self").fail(ONLY_ADS),
        None => at.field("ads").fail("is required"),
    }
}

/// The protocol and the cluster of a gRPC stream.
fn stream(
    at: At<'_>,
    source: &core::ApiConfigSource,
) -> Result<(ProtocolVariant, String), CompileError> {
    let core::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = source;
    unsupported!(at, cluster_names, config_validators);
    ignored!("only of the REST transport", refresh_delay, request_timeout);
    ignored!(
        "requests follow responses one by one, and reconnecting backs off",
        rate_limit_settings
    );
    ignored!(
        "the node is always sent on the first message only",
        set_node_on_first_message_only
    );
    let protocol = match known(at.field("api_type"), *api_type)? {
        ApiType::Grpc => ProtocolVariant::Sotw,
        ApiType::DeltaGrpc => ProtocolVariant::Delta,
        other => {
            let why = format_args!(
                "{} is not supported; use GRPC or DELTA_GRPC",
                other.as_str_name()
            );
            return at.field("api_type").fail(why);
        }
    };
    version(at.field("transport_api_version"), *transport_api_version)?;
    let [service] = grpc_services.as_slice() else {
        let why = format_args!("has to hold one service, holds {}", grpc_services.len());
        return at.field("grpc_services").fail(why);
    };
    let cluster = service_cluster(at.index("grpc_services", 0), service)?;
    Ok((protocol, cluster))
}

fn service_cluster(at: At<'_>, service: &core::GrpcService) -> Result<String, CompileError> {
    let core::GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = service;
    unsupported!(at, initial_metadata);
    ignored!(
        "a stream that ends is opened again with back-off",
        timeout,
        retry_policy
    );
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers,
    } = match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => grpc,
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            return at
                .field("google_grpc")
                .fail("is not supported; use envoy_grpc");
        }
        None => return at.field("envoy_grpc").fail("is required"),
    };
    let at = at.field("envoy_grpc");
    unsupported!(at, authority);
    ignored!(
        "a stream that ends is opened again with back-off",
        retry_policy
    );
    ignored!("messages are bounded at 64 MiB", max_receive_message_length);
    ignored!("none are sent", skip_envoy_headers);
    if cluster_name.is_empty() {
        return at.field("cluster_name").fail("is required");
    }
    Ok(cluster_name.clone())
}

fn version(at: At<'_>, version: i32) -> Result<(), CompileError> {
    match known(at, version)? {
        core::ApiVersion::V3 => Ok(()),
        core::ApiVersion::Auto | core::ApiVersion::V2 => {
            at.fail("has to be V3: version 2 of xDS is gone")
        }
    }
}
