//! The resources of the tests, as YAML.

pub const HTTP: &str = r#"
name: http
address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: http
      route_config:
        name: local
        virtual_hosts:
        - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: cart}}]}
      http_filters:
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

pub const CHAINED: &str = r#"
name: inbound
address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
bind_to_port: false
traffic_direction: INBOUND
listener_filters_timeout: 0s
listener_filters:
- {name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
- {name: b, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
- {name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}
filter_chains:
- name: mtls
  filter_chain_match:
    destination_port: 5432
    prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 16}]
    transport_protocol: tls
    application_protocols: [anyam-tcp]
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      require_client_certificate: true
      common_tls_context:
        tls_params: {tls_minimum_protocol_version: TLSv1_3}
        alpn_protocols: [anyam-tcp]
        tls_certificate_sds_secret_configs: [{name: default}]
        validation_context_sds_secret_config: {name: ROOTCA}
  filters:
  - name: rbac
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
      stat_prefix: tcp
      rules:
        action: DENY
        policies:
          no one:
            permissions: [{any: true}]
            principals: [{not_id: {authenticated: {principal_name: {prefix: "spiffe://mesh/"}}}}]
  - name: tcp
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: tcp
      idle_timeout: 0s
      weighted_clusters:
        clusters: [{name: "inbound|5432||", weight: 1}, {name: "inbound|5433||", weight: 3}]
- name: web
  filter_chain_match: {destination_port: 8080}
  filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: http
      normalize_path: true
      merge_slashes: true
      forward_client_cert_details: SANITIZE_SET
      set_current_client_cert_details: {uri: true}
      upgrade_configs: [{upgrade_type: websocket}]
      proxy_status_config: {}
      http_protocol_options:
        header_key_format:
          stateful_formatter:
            name: case
            typed_config: {"@type": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}
      access_log:
      - name: stdout
        filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: x}}}}
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
          log_format: {json_format: {code: "%RESPONSE_CODE%", path: "%REQ(:PATH)%"}}
      route_config:
        virtual_hosts:
        - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: "inbound|8080||"}}]}
      http_filters:
      - name: authz
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          rules:
            policies:
              readers:
                permissions: [{and_rules: {rules: [{header: {name: ":method", string_match: {exact: GET}}}, {url_path: {path: {prefix: /}}}]}}]
                principals: [{any: true}]
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
default_filter_chain:
  filters:
  - name: tcp
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      stat_prefix: passthrough
      cluster: passthrough
"#;

pub const ROUTES: &str = r#"
name: shop
virtual_hosts:
- name: shop
  domains: ["shop.example:80", "*.shop.example"]
  request_headers_to_add: [{header: {key: X-Via, value: "%PROTOCOL%"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
  routes:
  - match: {path_separated_prefix: /cart}
    typed_per_filter_config:
      authz: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}
    route:
      timeout: 0s
      weighted_clusters: {clusters: [{name: cart-v1, weight: 90}, {name: cart-v2, weight: 10}]}
      retry_policy:
        retry_on: 5xx,unavailable
        num_retries: 2
        retry_host_predicate: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]
  - match: {prefix: /, headers: [{name: x-team, string_match: {exact: blue}}]}
    route: {cluster: blue, prefix_rewrite: /v2/}
  - match: {prefix: /}
    direct_response: {status: 418, body: {inline_string: teapot}}
- name: rest
  domains: ["*"]
  routes:
  - match: {safe_regex: {regex: "/old/.*"}}
    redirect: {host_redirect: new.example, response_code: PERMANENT_REDIRECT}
"#;

pub const CLUSTER: &str = r#"
name: cart
type: EDS
eds_cluster_config: {eds_config: {ads: {}}}
connect_timeout: 1s
lb_policy: LEAST_REQUEST
least_request_lb_config: {choice_count: 3}
common_lb_config: {healthy_panic_threshold: {value: 0}}
circuit_breakers: {thresholds: [{max_connections: 7}]}
outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 50}
metadata:
  filter_metadata:
    istio: {services: [{host: cart.shop.svc.cluster.local, name: cart, namespace: shop}]}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
transport_socket_matches:
- name: mtls
  match: {anyam: mtls}
  transport_socket:
    name: tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: cart
      common_tls_context:
        alpn_protocols: [anyam-h2]
        tls_certificate_sds_secret_configs: [{name: default}]
        combined_validation_context:
          default_validation_context:
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "spiffe://mesh/ns/shop/sa/cart"}}]
          validation_context_sds_secret_config: {name: ROOTCA}
- name: plain
  match: {}
  transport_socket:
    name: raw
    typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}
"#;

pub const EDS: &str = r#"
cluster_name: cart
endpoints:
- locality: {region: eu, zone: a}
  lb_endpoints:
  - endpoint: {address: {socket_address: {address: 10.9.0.1, port_value: 80}}}
    metadata:
      filter_metadata:
        envoy.transport_socket_match: {anyam: mtls}
        istio: {workload: "cart-1;shop;cart;v1;local"}
  - endpoint: {address: {socket_address: {address: 10.9.0.2, port_value: 80}}}
"#;
