//! A hop as an Envoy bootstrap; Anyam and Envoy are given the same file.
//!
//! `full` is the sidecar of a mesh: ten authorisation rules, a JSON access log, outlier detection,
//! armed retries, request ids, forwarded trace headers. Standard metrics are Anyam's own; a stock
//! Envoy build keeps its own statistics instead.

use std::path::Path;

use serde_json::{Value, json};

use crate::hop::{Hop, Wire};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

/// The bootstrap; certificates lie in `folder`, logs go there. `admin`: a port.
pub fn bootstrap(hop: &Hop, folder: &Path, admin: u16) -> String {
    let mut listener = json!({
        "name": "front",
        "address": socket_address(hop.listen),
        "filter_chains": [{"filters": filters(hop, folder)}],
    });
    if hop.tls_down {
        let mut context = tls("Downstream", "server", "client", hop, hop.down, folder);
        context["typed_config"]["require_client_certificate"] = true.into();
        listener["filter_chains"][0]["transport_socket"] = context;
    }
    json!({
        "admin": {"address": socket_address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [cluster(hop, folder)]},
    })
    .to_string()
}

fn socket_address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn filters(hop: &Hop, folder: &Path) -> Value {
    if hop.down == Wire::Tcp {
        let mut proxy = json!({
            "@type": format!("{FILTERS}.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "front",
            "cluster": "to",
        });
        if hop.up == Wire::Tunnel {
            proxy["tunneling_config"] = json!({"hostname": "app:80"});
        }
        return json!([{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]);
    }
    let mut route = json!({"cluster": "to", "timeout": "0s"});
    let mut matches = json!({"prefix": "/"});
    if hop.down == Wire::Tunnel {
        matches = json!({"connect_matcher": {}});
        route["upgrade_configs"] = json!([{"upgrade_type": "CONNECT", "connect_config": {}}]);
    }
    if hop.full {
        route["retry_policy"] = json!({"retry_on": "5xx,reset,connect-failure", "num_retries": 2});
    }
    let mut http_filters = vec![json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": format!("{FILTERS}.http.router.v3.Router"),
            "suppress_envoy_headers": true,
        },
    })];
    if hop.full && hop.tls_down {
        http_filters.insert(0, rbac());
    }
    let mut manager = json!({
        "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "codec_type": if hop.down == Wire::Http1 { "HTTP1" } else { "HTTP2" },
        "generate_request_id": hop.full,
        "route_config": {
            "name": "front",
            "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": matches, "route": route}],
            }],
        },
        "http_filters": http_filters,
    });
    if hop.down == Wire::Tunnel {
        manager["upgrade_configs"] = json!([{"upgrade_type": "CONNECT"}]);
        manager["http2_protocol_options"] = json!({"allow_connect": true});
    }
    if hop.full {
        manager["access_log"] = access_log(hop, folder);
    }
    json!([{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": manager,
    }])
}

/// Ten rules, of which the last lets the caller in.
fn rbac() -> Value {
    let policies: serde_json::Map<String, Value> = (0..10)
        .map(|number| {
            let who = match number {
                9 => "spiffe://bench/ns/default/sa/client".to_owned(),
                _ => format!("spiffe://bench/ns/other/sa/caller-{number}"),
            };
            let policy = json!({
                "permissions": [{"url_path": {"path": {"prefix": "/"}}}],
                "principals": [{"authenticated": {"principal_name": {"exact": who}}}],
            });
            (format!("rule-{number}"), policy)
        })
        .collect();
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": format!("{FILTERS}.http.rbac.v3.RBAC"),
            "rules": {"action": "ALLOW", "policies": policies},
        },
    })
}

/// The fields of Istio's JSON log.
fn access_log(hop: &Hop, folder: &Path) -> Value {
    let file = folder.join(format!("{}-access.log", hop.name));
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file.display().to_string(),
            "log_format": {"json_format": {
                "start_time": "%START_TIME%",
                "method": "%REQ(:METHOD)%",
                "path": "%REQ(:PATH)%",
                "protocol": "%PROTOCOL%",
                "response_code": "%RESPONSE_CODE%",
                "response_flags": "%RESPONSE_FLAGS%",
                "response_code_details": "%RESPONSE_CODE_DETAILS%",
                "bytes_received": "%BYTES_RECEIVED%",
                "bytes_sent": "%BYTES_SENT%",
                "duration": "%DURATION%",
                "user_agent": "%REQ(USER-AGENT)%",
                "request_id": "%REQ(X-REQUEST-ID)%",
                "authority": "%REQ(:AUTHORITY)%",
                "upstream_host": "%UPSTREAM_HOST%",
                "upstream_cluster": "%UPSTREAM_CLUSTER%",
                "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
                "downstream_peer": "%DOWNSTREAM_PEER_URI_SAN%",
                "route_name": "%ROUTE_NAME%",
            }},
        },
    }])
}

fn cluster(hop: &Hop, folder: &Path) -> Value {
    let mut cluster = json!({
        "name": "to",
        "type": "STATIC",
        // Ample: in callgrind a handshake takes its time.
        "connect_timeout": "10s",
        // Idle connections by the thousand are more than either lets through by itself.
        "circuit_breakers": {"thresholds": [{
            "max_connections": 100_000,
            "max_pending_requests": 100_000,
            "max_requests": 100_000,
        }]},
        "load_assignment": {
            "cluster_name": "to",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(hop.to)}}]}],
        },
    });
    if matches!(hop.up, Wire::Http2 | Wire::Tunnel) {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    if hop.tls_up {
        cluster["transport_socket"] = tls("Upstream", "client", "server", hop, hop.up, folder);
    }
    if hop.full {
        cluster["outlier_detection"] = json!({"consecutive_5xx": 5, "interval": "10s"});
    }
    cluster
}

fn tls(side: &str, own: &str, peer: &str, hop: &Hop, wire: Wire, folder: &Path) -> Value {
    let file = |name: String| json!({"filename": folder.join(name).display().to_string()});
    let group = match hop.post_quantum {
        true => "X25519MLKEM768",
        false => "X25519",
    };
    let mut common = json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": [group],
        },
        "tls_certificates": [{
            "certificate_chain": file(format!("{own}.crt")),
            "private_key": file(format!("{own}.key")),
        }],
        "validation_context": {
            "trusted_ca": file("ca.crt".into()),
            "match_typed_subject_alt_names": [{
                "san_type": "URI",
                "matcher": {"exact": format!("spiffe://bench/ns/default/sa/{peer}")},
            }],
        },
    });
    match wire {
        Wire::Http2 | Wire::Tunnel => common["alpn_protocols"] = json!(["h2"]),
        Wire::Http1 => common["alpn_protocols"] = json!(["http/1.1"]),
        Wire::Tcp => {}
    }
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TLS}.{side}TlsContext"),
            "common_tls_context": common,
        },
    })
}
