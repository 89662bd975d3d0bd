//! Go's HTTP and grpc-go on both ends, and between them two sidecars, or a sidecar and a stock Envoy.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyam_cli::demo::capture::Capture;
use anyam_cli::demo::netns::Namespace;

use crate::harness::{CONTROL, Mesh};
use crate::manifests::STRICT;
use crate::process::Process;
use crate::{envoy, traffic};

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// The program of `tests/peers/go`, built by `tests/peers/build.sh`.
pub(crate) fn program() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/peer");
    let path = std::env::var_os("ANYAM_PEER").map_or(default, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: run tests/prerequisites.sh root test and tests/peers/build.sh",
        path.display()
    );
    path
}

/// A workload and its service of the same name: HTTP/1 (`http1`), HTTP/2 and gRPC.
fn side(name: &str, address: Ipv4Addr, vip: &str) -> String {
    let ports = "
    - { name: http, port: 8080, appProtocol: http }
    - { name: http2, port: 8082, targetPort: 8080, appProtocol: kubernetes.io/h2c }
    - { name: grpc, port: 8081, appProtocol: grpc }";
    let own = ports
        .replace(", targetPort: 8080", "")
        .replace("http2, port: 8082", "http2, port: 8083");
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ app: {name} }}
  ports:{ports}
---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}
spec:
  addresses: [{address}]
  serviceAccount: {name}
  ports:{own}
"
    )
}

fn serve(mesh: &Mesh, name: &str, address: Ipv4Addr, host: &Namespace) -> Process {
    let address = address.to_string();
    mesh.spawn(
        name,
        host,
        &mesh.folder.join("peer"),
        &["serve", &address],
        0,
    )
}

/// Every check of `kind` from `host`; what it printed.
fn call(mesh: &Mesh, host: &Namespace, kind: &str, to: &str) -> String {
    let output = mesh.output(host, &mesh.folder.join("peer"), &["call", kind, to]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{kind} to {to}: {complaint}after\n{text}\n{}",
        mesh.logs()
    );
    text
}

fn reachable(mesh: &Mesh, from: &Namespace, to: &str) {
    mesh.wait(&format!("an answer from {to}"), || {
        traffic::get(from, to, "/echo").is_ok_and(|(status, _)| status == 200)
    });
}

#[test]
fn go_clients_reach_go_servers_through_two_sidecars() {
    let manifests = [
        STRICT,
        &side("left", LEFT, "240.240.9.1"),
        &side("right", RIGHT, "240.240.9.2"),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    std::fs::copy(program(), mesh.folder.join("peer")).unwrap();
    let (left, right) = (mesh.host("left", LEFT), mesh.host("right", RIGHT));
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecars = [
        mesh.sidecar("left", LEFT, &left),
        mesh.sidecar("right", RIGHT, &right),
    ];
    let _server = serve(&mesh, "right-app", RIGHT, &right);
    reachable(&mesh, &left, "240.240.9.2:8080");
    for (kind, port, last) in [
        ("http1", 8080, "http1 upgrade"),
        ("http2", 8082, "http2 cancelled"),
        ("grpc", 8081, "grpc a cancellation reaches the server"),
    ] {
        let text = call(&mesh, &left, kind, &format!("240.240.9.2:{port}"));
        assert!(text.trim_end().ends_with(last), "{text}");
    }
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
}

#[test]
fn grpc_passes_a_stock_envoy_on_either_side() {
    let manifests = [
        STRICT,
        &side("ours", LEFT, "240.240.9.1"),
        &side("envoy", RIGHT, "240.240.9.2"),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    std::fs::copy(program(), mesh.folder.join("peer")).unwrap();
    let (ours, envoys) = (mesh.host("ours", LEFT), mesh.host("envoy", RIGHT));
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecar = mesh.sidecar("ours", LEFT, &ours);
    let _envoy = envoy::start(&mesh, &envoys);
    let _servers = [
        serve(&mesh, "our-app", LEFT, &ours),
        serve(&mesh, "envoys-app", RIGHT, &envoys),
    ];
    mesh.wait_synced("envoy");
    for (from, vip) in [(&ours, "240.240.9.2"), (&envoys, "240.240.9.1")] {
        reachable(&mesh, from, &format!("{vip}:8080"));
        call(&mesh, from, "grpc-by-envoy", &format!("{vip}:8081"));
    }
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
}
