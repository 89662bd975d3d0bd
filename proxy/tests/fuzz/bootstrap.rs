//! A bootstrap with everything on: every log operator in text and in JSON, a tap, request ids,
//! retries, mirrors, HTTP filters, TLS beside plain bytes on one port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::filters::{buffered_filters, coded_filters, plain_filters};

pub const TYPE: &str = "type.googleapis.com/envoy.extensions";

pub const ADMIN: u16 = 8000;
/// To the app.
pub const PLAIN: u16 = 8001;
/// To the app, with whole bodies, decoded paths, stripped ports.
pub const BUFFERED: u16 = 8002;
/// To an HTTP/1 and to an HTTP/2 upstream that send mutated answers.
pub const HOSTILE_HTTP1: u16 = 8003;
pub const HOSTILE_HTTP2: u16 = 8004;
/// TLS to the app; other bytes, and other TLS, to the hostile HTTP/1 upstream.
pub const DETECTED: u16 = 8005;
/// TLS with a certificate of the client's, to the app. What the client says of certificates is
/// extended with what TLS proved; over HTTP/2 it may say how names are spelled.
pub const PROVEN: u16 = 8006;
/// The identity in `cert.pem`, which both sides show there.
pub const IDENTITY: &str = "spiffe://fuzz/shop";
/// The protocols of [`PROVEN`].
pub const PROVEN_ALPN: [&str; 2] = ["anyam-h2-case", "http/1.1"];

/// First and last of each line of the text log.
pub const BEGIN: &str = "BEGIN|";
pub const END: &str = "|END";

pub const OPERATORS: [&str; 46] = [
    "START_TIME",
    "START_TIME(%s.%3f)",
    "DURATION",
    "REQUEST_DURATION",
    "RESPONSE_DURATION",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "PROTOCOL",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "CONNECTION_TERMINATION_DETAILS",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "ROUTE_NAME",
    "VIRTUAL_CLUSTER_NAME",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "REQUESTED_SERVER_NAME",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "CONNECTION_ID",
    "HOSTNAME",
    "GRPC_STATUS",
    "FILTER_CHAIN_NAME",
    "REQ(:METHOD)",
    "REQ(:PATH):200",
    "REQ(:AUTHORITY)",
    "REQ(X-FORWARDED-FOR?USER-AGENT)",
    "REQ(CONTENT-TYPE)",
    "RESP(CONTENT-TYPE?SERVER):20",
    "TRAILER(GRPC-STATUS)",
    "DYNAMIC_METADATA(envoy.filters.http.rbac)",
];

/// Where everything is.
pub struct Places<'a> {
    pub address: Ipv4Addr,
    pub folder: &'a Path,
    pub app: SocketAddr,
    pub http1: SocketAddr,
    pub http2: SocketAddr,
    pub tap: SocketAddr,
}

impl Places<'_> {
    pub fn bootstrap(&self) -> Value {
        let options = |protocol: &str| {
            json!({"typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{TYPE}.upstreams.http.v3.HttpProtocolOptions"),
                    "common_http_protocol_options": {"idle_timeout": "2s"},
                    "explicit_http_config": {(protocol): {}},
            }}})
        };
        let [http1, http2] = ["http_protocol_options", "http2_protocol_options"].map(options);
        json!({
            "admin": {"address": self.socket(ADMIN)},
            "bootstrap_extensions": [{"name": "inspect", "typed_config": {
                "@type": "type.googleapis.com/anyam.bootstrap.v1.InspectAgent",
                "cluster": "tap", "report_interval": "1s"}}],
            "static_resources": {
                "listeners": [
                    self.http_listener(PLAIN, "app", plain_filters(), &json!({})),
                    self.http_listener(BUFFERED, "app", buffered_filters(), &json!({
                        "proxy_100_continue": true,
                        "strip_any_host_port": true,
                        "strip_trailing_host_dot": true,
                        "proxy_status_config": {},
                        "use_remote_address": true,
                    })),
                    self.http_listener(HOSTILE_HTTP1, "http1", coded_filters(), &json!({})),
                    self.http_listener(HOSTILE_HTTP2, "http2", coded_filters(), &json!({})),
                    self.detected(),
                    self.proven(),
                ],
                "clusters": [
                    cluster("app", self.app, &http1),
                    cluster("http1", self.http1, &http1),
                    cluster("http2", self.http2, &http2),
                    cluster("tap", self.tap, &http2),
                ],
            },
        })
    }

    fn socket(&self, port: u16) -> Value {
        json!({"socket_address": {"address": self.address, "port_value": port}})
    }

    fn access_logs(&self) -> Value {
        let operators = OPERATORS.map(|operator| format!("%{operator}%"));
        let text = format!("{BEGIN}{}{END}\n", operators.join("|"));
        let fields: Map<String, Value> = operators
            .iter()
            .enumerate()
            .map(|(index, operator)| (format!("field{index}"), json!(operator)))
            .collect();
        let log = |name: &str, format: Value| {
            json!({"name": name, "typed_config": {
                "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
                "path": self.folder.join(name), "log_format": format}})
        };
        json!([
            log(
                "text",
                json!({"text_format_source": {"inline_string": text}})
            ),
            log("json", json!({"json_format": fields})),
        ])
    }

    fn manager(&self, cluster: &str, filters: Vec<Value>, more: &Value) -> Value {
        let mut manager = json!({
            "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http",
            "access_log": self.access_logs(),
            "http_filters": filters,
            "normalize_path": true,
            "merge_slashes": true,
            "path_with_escaped_slashes_action": "REJECT_REQUEST",
            "always_set_request_id_in_response": true,
            "generate_request_id": true,
            "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
            "request_headers_timeout": "1s",
            "request_timeout": "3s",
            "stream_idle_timeout": "2s",
            "common_http_protocol_options": {"idle_timeout": "2s"},
            "http_protocol_options": {"enable_trailers": true, "accept_http_10": true},
            "http2_protocol_options": {"allow_connect": true},
            "route_config": {"name": "all", "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "include_request_attempt_count": true,
                "include_attempt_count_in_response": true,
                "routes": routes(cluster),
            }]},
        });
        merge(&mut manager, more);
        manager
    }

    fn http_listener(&self, port: u16, cluster: &str, filters: Vec<Value>, more: &Value) -> Value {
        let manager = self.manager(cluster, filters, more);
        json!({
            "name": format!("port-{port}"),
            "address": self.socket(port),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        })
    }

    fn pem(&self, name: &str) -> Value {
        json!({"filename": self.folder.join(name)})
    }

    fn tls(&self, alpn: &[&str], more: &Value) -> Value {
        let mut context = json!({
            "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": alpn,
                "tls_certificates": [{
                    "certificate_chain": self.pem("cert.pem"),
                    "private_key": self.pem("key.pem"),
                }],
            },
        });
        merge(&mut context["common_tls_context"], more);
        json!({"name": "tls", "typed_config": context})
    }

    fn proven(&self) -> Value {
        let trust = json!({"validation_context": {"trusted_ca": self.pem("cert.pem")}});
        let mut tls = self.tls(&PROVEN_ALPN, &trust);
        tls["typed_config"]["require_client_certificate"] = true.into();
        let manager = self.manager(
            "app",
            plain_filters(),
            &json!({
                "forward_client_cert_details": "APPEND_FORWARD",
                "set_current_client_cert_details": {"uri": true},
            }),
        );
        json!({
            "name": "proven",
            "address": self.socket(PROVEN),
            "filter_chains": [{
                "transport_socket": tls,
                "transport_socket_connect_timeout": "5s",
                "filters": [{"name": "http", "typed_config": manager}],
            }],
        })
    }

    fn detected(&self) -> Value {
        let tls = self.tls(&["h2", "http/1.1"], &json!({}));
        let inspector = |name: &str| {
            json!({"name": name, "typed_config": {
            "@type": format!("{TYPE}.filters.listener.{name}.v3.{}", match name {
                "tls_inspector" => "TlsInspector",
                _ => "HttpInspector",
            })}})
        };
        let tcp = json!({"name": "tcp", "typed_config": {
            "@type": format!("{TYPE}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": "tcp", "cluster": "http1", "idle_timeout": "2s",
            "access_log": self.access_logs()}});
        let manager = self.manager("app", plain_filters(), &json!({}));
        let http = json!({"name": "http", "typed_config": manager});
        json!({
            "name": "detected",
            "address": self.socket(DETECTED),
            "listener_filters_timeout": "1s",
            "continue_on_listener_filters_timeout": true,
            "listener_filters": [inspector("tls_inspector"), inspector("http_inspector")],
            "filter_chains": [
                {
                    "name": "tls",
                    "filter_chain_match": {"transport_protocol": "tls", "server_names": ["shop"]},
                    "transport_socket": tls,
                    "transport_socket_connect_timeout": "1s",
                    "filters": [&http],
                },
                {
                    "name": "http",
                    "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]},
                    "filters": [&http],
                },
            ],
            "default_filter_chain": {"name": "tcp", "filters": [tcp]},
        })
    }
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().unwrap() {
        into[name] = value.clone();
    }
}

fn cluster(name: &str, address: SocketAddr, more: &Value) -> Value {
    let address = json!({"socket_address": {
        "address": address.ip(), "port_value": address.port()}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    });
    merge(&mut cluster, more);
    cluster
}

fn routes(cluster: &str) -> Value {
    let shadows = match cluster {
        "http1" => "http2",
        _ => "http1",
    };
    let action = json!({
        "cluster": cluster,
        "timeout": "2s",
        "retry_policy": {
            "retry_on": "5xx,reset,connect-failure,refused-stream,retriable-4xx,cancelled,unavailable",
            "num_retries": 2,
            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
        },
        "request_mirror_policies": [{"cluster": shadows}],
    });
    json!([
        {"match": {"prefix": "/redirect"}, "redirect": {"https_redirect": true, "path_redirect": "/to?a=b"}},
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
        {"match": {"connect_matcher": {}}, "route": action},
        {"match": {"prefix": "/", "headers": [{"name": "x-weighted", "present_match": true}]},
         "route": action},
        {"match": {"prefix": "/"}, "route": action,
         "request_headers_to_add": [{"header": {"key": "x-own", "value": "%REQ(:path)% %PROTOCOL%"}}],
         "response_headers_to_add": [{"header": {"key": "x-own", "value": "%RESPONSE_CODE%"}}]},
    ])
}
