//! `anyam-proxy sidecar`: an Envoy bootstrap from a pod's environment.
//!
//! It has no listeners: `inbound` and `outbound` come from the control plane, everything else by
//! name when it is first needed. One cluster, the control plane, carries ADS, CA and Inspect.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use xds_proto::envoy::config::bootstrap::v3::Bootstrap;
use xds_proto::json;

use super::error::BootstrapError;
use crate::args::{Sidecar, UnknownDestinations};

/// The control plane's cluster.
const CONTROL: &str = "anyam-control";

/// The bootstrap of this sidecar.
///
/// # Errors
/// When what was given makes no bootstrap.
pub fn bootstrap(sidecar: &Sidecar) -> Result<Bootstrap, BootstrapError> {
    let resolvers = Resolvers::of(sidecar, Path::new("/etc/resolv.conf"));
    let value = value(sidecar, &resolvers)?;
    json::decode_json(&value).map_err(|error| BootstrapError::Json {
        source_name: "sidecar".to_owned(),
        error,
    })
}

/// The bootstrap as YAML, for `--print-bootstrap`.
///
/// # Errors
/// As [`bootstrap`].
pub fn print(sidecar: &Sidecar) -> Result<String, BootstrapError> {
    let message = bootstrap(sidecar)?;
    let value = json::encode_json(&message).map_err(|error| BootstrapError::Json {
        source_name: "sidecar".to_owned(),
        error,
    })?;
    Ok(xds_proto::yaml::write(&value))
}

/// The resolvers for names outside the mesh.
struct Resolvers {
    upstream: Vec<String>,
    search: Vec<String>,
}

impl Resolvers {
    fn of(sidecar: &Sidecar, resolv_conf: &Path) -> Self {
        // Without the file there are no resolvers: names outside the mesh are refused then.
        let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
        let mut resolvers = Self {
            upstream: sidecar.ports.dns_upstream.clone(),
            search: Vec::new(),
        };
        let given = !resolvers.upstream.is_empty();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if !given => resolvers.upstream.extend(
                    words
                        .next()
                        .and_then(|word| word.parse().ok())
                        .map(|address| std::net::SocketAddr::new(address, 53).to_string()),
                ),
                // The last line of its kind counts.
                Some("search" | "domain") => {
                    resolvers.search = words.map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        resolvers
    }
}

fn value(sidecar: &Sidecar, resolvers: &Resolvers) -> Result<Value, BootstrapError> {
    let admin = match sidecar.ports.admin_port {
        0 => Value::Null,
        port => json!({"address": address("127.0.0.1", port)}),
    };
    let ads = json!({
        "initial_fetch_timeout": "15s",
        "resource_api_version": "V3",
        "ads": {},
    });
    Ok(json!({
        "node": node(sidecar)?,
        "admin": admin,
        "static_resources": {"clusters": [control_cluster(sidecar)]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL}}],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "bootstrap_extensions": extensions(sidecar, resolvers),
    }))
}

fn node(sidecar: &Sidecar) -> Result<Value, BootstrapError> {
    let Sidecar {
        workload,
        namespace,
        service_account,
        trust_domain,
        ..
    } = sidecar;
    let address = sidecar
        .addresses
        .first()
        .ok_or_else(|| BootstrapError::Sidecar("--address is required".to_owned()))?;
    let addresses: Vec<String> = sidecar.addresses.iter().map(ToString::to_string).collect();
    let labels: serde_json::Map<String, Value> = sidecar
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    let app = sidecar.labels.iter().find(|(name, _)| name == "app");
    let cluster = app.map_or(workload, |(_, app)| app);
    Ok(json!({
        "id": format!("sidecar~{address}~{workload}.{namespace}~{trust_domain}"),
        "cluster": format!("{cluster}.{namespace}"),
        "metadata": {
            "NAME": workload,
            "NAMESPACE": namespace,
            "SERVICE_ACCOUNT": service_account,
            "ANYAM": "true",
            "LABELS": labels,
            "INSTANCE_IPS": addresses.join(","),
            "INBOUND_PORT": sidecar.ports.inbound_port.to_string(),
            "OUTBOUND_PORT": sidecar.ports.outbound_port.to_string(),
        },
    }))
}

/// Its certificate is verified with the mesh's own bundle, once there is one; until then, with the
/// hash of the root in the join token.
fn control_cluster(sidecar: &Sidecar) -> Value {
    let (host, port) = &sidecar.control_plane;
    let kind = match host.parse::<std::net::IpAddr>() {
        Ok(_) => "STATIC",
        Err(_) => "STRICT_DNS",
    };
    let name = &sidecar.control_plane_name;
    json!({
        "name": CONTROL,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": CONTROL,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host, *port)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": url("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": url("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": name,
                "common_tls_context": {
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [{"name": "default"}],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [
                                {"san_type": "DNS", "matcher": {"exact": name}},
                            ],
                        },
                        "validation_context_sds_secret_config": {"name": "ROOTCA"},
                    },
                },
            },
        },
    })
}

fn extensions(sidecar: &Sidecar, resolvers: &Resolvers) -> Vec<Value> {
    let Sidecar {
        namespace,
        service_account,
        trust_domain,
        ports,
        egress,
        ..
    } = sidecar;
    let mut list = vec![
        extension(
            "Identity",
            json!({
                "spiffe_id": format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"),
                "ca_cluster": CONTROL,
                "token_file": sidecar.token_file,
                "ca_file": sidecar.ca_file,
                "state_dir": sidecar.state_dir,
                "certificate_ttl": sidecar.certificate_ttl_s.map(|seconds| format!("{seconds}s")),
            }),
        ),
        extension(
            "OnDemand",
            json!({
                "wait": format!("{}.{:03}s", egress.wait_ms / 1000, egress.wait_ms % 1000),
                "miss_ttl": format!("{}s", egress.miss_ttl_s),
                "unknown": match egress.unknown {
                    UnknownDestinations::Passthrough => "PASSTHROUGH",
                    UnknownDestinations::Block => "BLOCK",
                },
                "mesh_cidrs": egress.mesh_cidrs,
            }),
        ),
        extension(
            "InspectAgent",
            json!({"cluster": CONTROL, "report_interval": "5s"}),
        ),
        extension(
            "ConnectionLimit",
            json!({
                "listener": "inbound",
                "max_connections": ports.max_inbound_connections,
            }),
        ),
    ];
    if ports.dns_port != 0 {
        list.push(extension(
            "DnsProxy",
            json!({
                "listen_address": "127.0.0.1",
                "listen_port": ports.dns_port,
                "upstream": resolvers.upstream,
                "search": resolvers.search,
                "cluster_domain": ports.cluster_domain,
            }),
        ));
    }
    if sidecar.app.status_port != 0 {
        list.push(extension(
            "StatusPort",
            json!({
                "listen_address": any_address(&sidecar.addresses),
                "listen_port": sidecar.app.status_port,
                "app_address": sidecar.addresses.first(),
                "probes": sidecar.app.app_probes,
                "metrics": sidecar.app.app_metrics,
            }),
        ));
    }
    if ports.metrics_port != 0 || ports.health_port != 0 {
        list.push(extension(
            "Probes",
            json!({
                "listen_address": any_address(&sidecar.addresses),
                "metrics_port": ports.metrics_port,
                "health_port": ports.health_port,
            }),
        ));
    }
    list
}

/// `::` takes IPv4 too; where there is no IPv6 it cannot be bound.
fn any_address(addresses: &[IpAddr]) -> &'static str {
    match addresses.iter().any(IpAddr::is_ipv6) {
        true => "::",
        false => "0.0.0.0",
    }
}

/// One of anyam.bootstrap.v1.
fn extension(message: &str, mut config: Value) -> Value {
    let name = format!("anyam.bootstrap.v1.{message}");
    if let Some(config) = config.as_object_mut() {
        config.insert("@type".to_owned(), url(&name).into());
    }
    json!({"name": name, "typed_config": config})
}

fn url(message: &str) -> String {
    format!("{}{message}", xds_proto::type_url::PREFIX)
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}
