//! Stock Envoy as a peer: configured by the control plane over ADS, with mTLS to and from a
//! sidecar of ours.

use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::Path;

use anyam_cli::demo::capture::Capture;
use anyam_cli::demo::netns::Namespace;

use crate::harness::{CONTROL, Mesh, PROXY_UID};
use crate::manifests::{STRICT, service, workload};
use crate::process::Process;
use crate::stock_envoy;
use crate::traffic::get;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const ENVOYS: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

fn bootstrap(certificates: &Path) -> String {
    let file = |name: &str| certificates.join(name).display().to_string();
    let (cert, key, root) = (file("cert.pem"), file("key.pem"), file("root.pem"));
    format!(
        r#"
node:
  id: sidecar~{ENVOYS}~envoy.shop~anyam.local
  cluster: envoy
  metadata:
    NAME: envoy
    NAMESPACE: shop
    SERVICE_ACCOUNT: envoy
    TLS_CERT_CHAIN: {cert}
    TLS_KEY: {key}
    TLS_ROOT_CERT: {root}
admin:
  address: {{ socket_address: {{ address: 127.0.0.1, port_value: 15000 }} }}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{ envoy_grpc: {{ cluster_name: control }} }}]
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: control
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: control
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {CONTROL}, port_value: 15012 }} }} }}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: anyam-control
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates:
          - certificate_chain: {{ filename: {cert} }}
            private_key: {{ filename: {key} }}
          validation_context:
            trusted_ca: {{ filename: {root} }}
            match_typed_subject_alt_names:
            - san_type: DNS
              matcher: {{ exact: anyam-control }}
"#
    )
}

/// A stock Envoy in place of the sidecar of `shop/envoy`, with a certificate of its own.
pub fn start(mesh: &Mesh, host: &Namespace) -> Process {
    let folder = mesh.private("envoy");
    let certificates = folder.join("certificates");
    let out = certificates.display().to_string();
    mesh.control_command(&["certificate", "--workload", "shop/envoy", "--out", &out]);
    let config = folder.join("bootstrap.yaml");
    std::fs::write(&config, bootstrap(&certificates)).unwrap();
    for path in [&certificates, &config] {
        chown(path, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
    }
    for entry in std::fs::read_dir(&certificates).unwrap() {
        chown(entry.unwrap().path(), Some(PROXY_UID), Some(PROXY_UID)).unwrap();
    }
    let program = folder.join("envoy");
    std::fs::copy(stock_envoy::program(), &program).unwrap();
    let config = config.display().to_string();
    let arguments = [
        "-c",
        &config,
        "--concurrency",
        "1",
        "--log-level",
        "warning",
    ];
    let arguments = [&arguments[..], &["--disable-hot-restart"]].concat();
    mesh.spawn("envoy", host, &program, &arguments, PROXY_UID)
}

#[test]
fn stock_envoy_and_a_sidecar_use_mtls_both_ways() {
    let manifests = [
        STRICT,
        &service("ours", "ours", "240.240.9.1"),
        &service("envoys", "envoys", "240.240.9.2"),
        &workload("ours", "ours", OURS),
        &workload("envoy", "envoys", ENVOYS),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let our_host = mesh.host("ours", OURS);
    let envoy_host = mesh.host("envoy", ENVOYS);
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecar = mesh.sidecar("ours", OURS, &our_host);
    let _envoy = start(&mesh, &envoy_host);
    let _carts = [
        mesh.cart("ours", OURS, &our_host),
        mesh.cart("envoys", ENVOYS, &envoy_host),
    ];
    mesh.wait_synced("envoy");
    for (from, to, answer) in [
        (&our_host, "240.240.9.2:8080", "envoys"),
        (&envoy_host, "240.240.9.1:8080", "ours"),
    ] {
        let before = capture.seen().tls_connections;
        let mut last = None;
        mesh.wait(&format!("{answer} answering"), || {
            last = Some(get(from, to, "/"));
            matches!(&last, Some(Ok((200, body))) if body == answer)
        });
        // The capture reads frames after they passed.
        mesh.wait("TLS on the wire", || {
            capture.seen().tls_connections > before
        });
    }
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
}
