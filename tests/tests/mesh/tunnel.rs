//! TCP inside few HTTP/2 connections, switched on by a MeshPolicy.

use std::net::Ipv4Addr;

use anyam_cli::demo::capture::Capture;
use anyam_cli::demo::netns::Namespace;

use crate::harness::{CONTROL, Mesh};
use crate::manifests::STRICT;
use crate::traffic::get;

const FRONT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const CART: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const OLD: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);

const TUNNELS: &str = "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: { name: tunnels, namespace: anyam-system }
spec:
  defaults: { tcpTransport: Tunnel }
";

/// The cart may be called by `front` and itself only.
const ONLY_FRONT: &str = "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: only-front, namespace: shop }
spec:
  targetRefs: [{ group: mesh.anyam.dev, kind: Workload, name: cart }]
  rules:
    - from: [{ principals: [anyam.local/ns/shop/sa/front, anyam.local/ns/shop/sa/cart] }]
      to: [{ ports: [8080] }]
";

/// A service whose port is declared TCP, whatever its app's protocol.
fn service(name: &str, vip: &str) -> String {
    crate::manifests::service(name, name, vip).replace("appProtocol: http", "appProtocol: tcp")
}

fn workload(name: &str, address: Ipv4Addr, tunnels: bool) -> String {
    let declared = crate::manifests::workload(name, name, address);
    let declared = declared.replace("appProtocol: http", "appProtocol: tcp");
    format!("{declared}  tunnels: {tunnels}\n")
}

/// A counter of the inbound listener of a sidecar, as its admin port shows it.
fn inbound(host: &Namespace, name: &str) -> u64 {
    let (_, text) = get(host, "127.0.0.1:15000", "/stats/prometheus").unwrap();
    let line = format!("anyam_listener_{name}{{listener=\"inbound\"}} ");
    let value = text.lines().find_map(|it| it.strip_prefix(&line));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[test]
fn tcp_travels_in_tunnels_to_those_who_take_them() {
    let manifests = [
        STRICT,
        TUNNELS,
        ONLY_FRONT,
        &service("cart", "240.240.9.1"),
        &service("old", "240.240.9.2"),
        &workload("front", FRONT, true),
        &workload("cart", CART, true),
        &workload("old", OLD, false),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let hosts = [
        mesh.host("front", FRONT),
        mesh.host("cart", CART),
        mesh.host("old", OLD),
    ];
    let [front, cart, old] = &hosts;
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecars = [
        mesh.sidecar("front", FRONT, front),
        mesh.sidecar("cart", CART, cart),
        mesh.sidecar("old", OLD, old),
    ];
    let _apps = [mesh.cart("cart", CART, cart), mesh.cart("old", OLD, old)];
    let answers = |from: &Namespace, to: &str, answer: &str| {
        let mut last = None;
        mesh.wait(&format!("{answer} answering"), || {
            last = Some(get(from, to, "/"));
            matches!(&last, Some(Ok((200, body))) if body == answer)
        });
    };
    answers(front, "240.240.9.1:8080", "cart");
    let inside = "tunnels_total";
    let before = inbound(cart, inside);
    assert!(before > 0);
    for _ in 0..50 {
        assert_eq!(get(front, "240.240.9.1:8080", "/").unwrap().1, "cart");
    }
    assert_eq!(inbound(cart, inside), before + 50);
    // One connection for each of the caller's two workers carries them all.
    assert!(inbound(cart, "connections_total") <= 2);
    // A call of the app to its own service takes the same way.
    answers(cart, "240.240.9.1:8080", "cart");
    // To a sidecar that takes no tunnels, each connection is a TLS connection of its own.
    answers(front, "240.240.9.2:8080", "old");
    assert_eq!(inbound(old, inside), 0);
    // The identity inside is that of the connection around it.
    assert!(get(old, "240.240.9.1:8080", "/").is_err());
    assert!(inbound(cart, "rbac_denied_total") > 0);
    assert!(inbound(cart, "tunnels_refused_total") > 0);
    let seen = capture.seen();
    assert!(seen.tls_connections > 0);
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
}
