//! `envoy.config.bootstrap.v3.Bootstrap`, field by field.

use std::net::SocketAddr;

use xds_proto::envoy::config::bootstrap::v3 as pb;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::config::overload::v3::OverloadManager;

use super::extensions::{extensions, ip};
use super::{Bootstrap, ConnectionLimits, dynamic, runtime};
use crate::config::compile::support::{
    At, CompileError, ignored, port, required, type_name, unsupported,
};

/// `Node.user_agent_name`, sent to the control plane.
const USER_AGENT: &str = "anyam-proxy";

#[allow(clippy::too_many_lines)] // One message, destructured whole: its length is Envoy's.
pub fn bootstrap(at: At<'_>, message: pb::Bootstrap) -> Result<Bootstrap, CompileError> {
    let pb::Bootstrap {
        node,
        node_context_params,
        static_resources,
        dynamic_resources,
        cluster_manager,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        admin,
        overload_manager,
        enable_dispatcher_stats,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = &message;
    unsupported!(
        at,
        node_context_params,
        hds_config,
        flags_path,
        stats_sinks,
        tracing,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        fatal_actions,
        config_sources,
        default_config_source,
        certificate_provider_instances,
        perf_tracing_file_path,
        xds_delegate_extension,
        xds_config_tracker_extension,
    );
    ignored!(
        "series exist while what they count exists, and are named for Prometheus",
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        stats_flush,
        stats_eviction,
        enable_dispatcher_stats
    );
    ignored!(
        "of Envoy's own process, threads and allocator",
        watchdog,
        watchdogs,
        memory_allocator_manager,
        inline_headers,
        grpc_async_client_manager_config,
        enable_worker_cpu_affinity
    );
    ignored!(
        "names are resolved by the system's resolver",
        dns_resolution_config,
        typed_dns_resolver_config
    );
    ignored!(
        "diagnostics are one line each, to standard error",
        application_log_config
    );
    ignored!("listeners are managed in one way", listener_manager);
    socket_interface(at, default_socket_interface)?;
    regex_engine(at, default_regex_engine)?;
    let supported = Supported {
        node,
        static_resources,
        dynamic_resources,
        cluster_manager,
        layered_runtime,
        admin,
        bootstrap_extensions,
        overload_manager,
    };
    let bootstrap = assemble(at, &message, supported)?;
    references(at, &bootstrap)?;
    Ok(bootstrap)
}

/// The fields that have an effect here.
struct Supported<'a> {
    node: &'a Option<core::Node>,
    static_resources: &'a Option<pb::bootstrap::StaticResources>,
    dynamic_resources: &'a Option<pb::bootstrap::DynamicResources>,
    cluster_manager: &'a Option<pb::ClusterManager>,
    layered_runtime: &'a Option<pb::LayeredRuntime>,
    admin: &'a Option<pb::Admin>,
    bootstrap_extensions: &'a [core::TypedExtensionConfig],
    overload_manager: &'a Option<OverloadManager>,
}

fn assemble(
    at: At<'_>,
    message: &pb::Bootstrap,
    fields: Supported<'_>,
) -> Result<Bootstrap, CompileError> {
    let mut limits = ConnectionLimits::default();
    runtime::layers(
        at.field("layered_runtime"),
        fields.layered_runtime,
        &mut limits,
    )?;
    limits.take_overload(at.field("overload_manager"), fields.overload_manager)?;
    let local_cluster = cluster_manager(at.field("cluster_manager"), fields.cluster_manager)?;
    let (listeners, clusters, secrets) = match fields.static_resources {
        Some(pb::bootstrap::StaticResources {
            listeners,
            clusters,
            secrets,
        }) => (listeners.clone(), clusters.clone(), secrets.clone()),
        None => Default::default(),
    };
    let named = |name: &str| clusters.iter().any(|cluster| cluster.name == name);
    if !local_cluster.is_empty() && !named(&local_cluster) {
        let at = at.field("cluster_manager");
        return at.field("local_cluster_name").fail(format_args!(
            "no cluster {local_cluster:?} is among the static ones"
        ));
    }
    let dynamic = at.field("dynamic_resources");
    let ads = dynamic::resources(dynamic, fields.dynamic_resources, &named)?;
    Ok(Bootstrap {
        node: self_description(at.field("node"), fields.node, ads.is_some())?,
        admin: match fields.admin {
            Some(admin) => self::admin(at.field("admin"), admin)?,
            None => None,
        },
        extensions: extensions(at, fields.bootstrap_extensions)?,
        listeners,
        clusters,
        secrets,
        local_cluster,
        ads,
        limits,
        message: message.clone(),
    })
}

/// Checks that the clusters named by our extensions exist.
fn references(at: At<'_>, bootstrap: &Bootstrap) -> Result<(), CompileError> {
    let extensions = &bootstrap.extensions;
    let identity = extensions
        .identity
        .as_ref()
        .map(|identity| &identity.cluster);
    let inspect = extensions.inspect.as_ref().map(|inspect| &inspect.cluster);
    for name in identity.into_iter().chain(inspect) {
        if !bootstrap
            .clusters
            .iter()
            .any(|cluster| cluster.name == *name)
        {
            let why = format_args!("no cluster {name:?} in static_resources.clusters");
            return at.field("bootstrap_extensions").fail(why);
        }
    }
    if extensions.on_demand.is_some() && bootstrap.ads.is_none() {
        let why = "anyam.bootstrap.v1.OnDemand needs dynamic_resources.ads_config to ask";
        return at.field("bootstrap_extensions").fail(why);
    }
    Ok(())
}

fn self_description(
    at: At<'_>,
    node: &Option<core::Node>,
    dynamic: bool,
) -> Result<core::Node, CompileError> {
    let mut node = node.clone().unwrap_or_default();
    if dynamic && node.id.is_empty() {
        return at
            .field("id")
            .fail("is required with dynamic_resources; set it or --service-node");
    }
    if node.user_agent_name.is_empty() {
        node.user_agent_name = USER_AGENT.to_owned();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        node.user_agent_version_type =
            Some(core::node::UserAgentVersionType::UserAgentVersion(version));
    }
    Ok(node)
}

fn socket_interface(at: At<'_>, name: &str) -> Result<(), CompileError> {
    match name {
        "" | "envoy.extensions.network.socket_interface.default_socket_interface" => Ok(()),
        name => {
            let why = format_args!("{name} is not supported; remove it");
            at.field("default_socket_interface").fail(why)
        }
    }
}

fn regex_engine(
    at: At<'_>,
    engine: &Option<core::TypedExtensionConfig>,
) -> Result<(), CompileError> {
    let Some(core::TypedExtensionConfig { name, typed_config }) = engine else {
        return Ok(());
    };
    let at = at.field("default_regex_engine");
    match typed_config.as_ref().map(type_name) {
        // Linear time too, and the same syntax for what RE2 has.
        Some("envoy.extensions.regex_engines.v3.GoogleRE2") => Ok(()),
        _ => at.fail(format_args!("{name} is not supported; leave it out")),
    }
}

fn admin(at: At<'_>, admin: &pb::Admin) -> Result<Option<SocketAddr>, CompileError> {
    let pb::Admin {
        access_log,
        access_log_path,
        profile_path,
        address,
        socket_options,
        ignore_global_conn_limit,
        allow_paths,
    } = admin;
    unsupported!(at, socket_options, allow_paths);
    ignored!("admin requests are not logged", access_log, access_log_path);
    ignored!("there is no CPU profiler in the process", profile_path);
    ignored!(
        "admin connections never count against the limit",
        ignore_global_conn_limit
    );
    match address {
        None => Ok(None),
        Some(address) => socket(at.field("address"), address).map(Some),
    }
}

/// An address that something of ours listens at.
fn socket(at: At<'_>, address: &core::Address) -> Result<SocketAddr, CompileError> {
    use core::address::Address;
    use core::socket_address::PortSpecifier;
    let core::Address { address } = address;
    let core::SocketAddress {
        protocol,
        address,
        port_specifier,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
    } = match required!(at, address) {
        Address::SocketAddress(address) => address,
        Address::Pipe(_) => {
            return at
                .field("pipe")
                .fail("is not supported; use socket_address");
        }
        Address::EnvoyInternalAddress(_) => {
            return at
                .field("envoy_internal_address")
                .fail("is not supported; use socket_address");
        }
    };
    let at = at.field("socket_address");
    unsupported!(at, resolver_name, network_namespace_filepath);
    ignored!(
        "an IPv6 address takes IPv4 too when the system says so",
        ipv4_compat
    );
    if *protocol != core::socket_address::Protocol::Tcp as i32 {
        return at.field("protocol").fail("has to be TCP");
    }
    let number = match port_specifier {
        Some(PortSpecifier::PortValue(value)) => port(at.field("port_value"), *value)?,
        Some(PortSpecifier::NamedPort(_)) => {
            return at
                .field("named_port")
                .fail("is not supported; use port_value");
        }
        None => return at.field("port_value").fail("is required"),
    };
    Ok(SocketAddr::new(ip(at.field("address"), address)?, number))
}

/// The name of the local cluster; empty: there is none.
fn cluster_manager(
    at: At<'_>,
    manager: &Option<pb::ClusterManager>,
) -> Result<String, CompileError> {
    let Some(pb::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    }) = manager
    else {
        return Ok(String::new());
    };
    unsupported!(
        at,
        outlier_detection,
        upstream_bind_config,
        load_stats_config
    );
    ignored!(
        "clusters cost next to nothing before they are used",
        enable_deferred_cluster_creation
    );
    Ok(local_cluster_name.clone())
}
