//! Sidecars that listen elsewhere than usual, by the flags that the redirect rules have too.

use std::net::Ipv4Addr;

use anyam_cli::demo::capture::Capture;

use crate::harness::{CONTROL, Mesh};
use crate::manifests::{STRICT, service, workload};
use crate::traffic::get;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const CART: &str = "240.240.9.1:8080";
const PORTS: [&str; 6] = [
    "--outbound-port",
    "16001",
    "--inbound-port",
    "16006",
    "--dns-port",
    "16053",
];

/// One of them on other ports, the other on the usual ones: each is configured for its own.
#[test]
fn sidecars_listen_where_their_flags_say() {
    let manifests = [
        STRICT,
        &service("cart", "cart", "240.240.9.1"),
        &workload("client", "client", CLIENT),
        &workload("server", "cart", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host_with("server", SERVER, &PORTS);
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar_with("server", SERVER.into(), &server, &PORTS),
    ];
    let _cart = mesh.cart("v1", SERVER, &server);
    let carts = |from| get(from, CART, "/").is_ok_and(|answer| answer == (200, "v1".into()));
    mesh.wait("a call to it", || carts(&client));
    // Out by 16001, and in again by 16006.
    mesh.wait("a call of it", || carts(&server));
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
    assert!(seen.tls_connections > 0, "{seen:?}");
}
