//! An app that does not listen any more while its sidecar still does, as for a moment in each rolling
//! update: its requests are answered by another endpoint.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::{get, within};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVING: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const STOPPED: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);
const CART: &str = "240.240.9.1:8080";

#[test]
fn requests_that_no_app_received_go_to_another_endpoint() {
    let manifests = [
        STRICT,
        &service("cart", "cart", "240.240.9.1"),
        &workload("client", "client", CLIENT),
        &workload("serving", "cart", SERVING),
        &workload("stopped", "cart", STOPPED),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let serving = mesh.host("serving", SERVING);
    let stopped = mesh.host("stopped", STOPPED);
    let _sidecars = [
        mesh.sidecar("stopped", STOPPED, &stopped),
        mesh.sidecar("serving", SERVING, &serving),
        mesh.sidecar("client", CLIENT, &client),
    ];
    let cart = mesh.cart("v1", SERVING, &serving);
    mesh.wait("the app", || {
        within(&serving, || TcpStream::connect((SERVING, 8080)).is_ok())
    });
    // More than it takes until the endpoint is ejected for its failures.
    for _ in 0..20 {
        assert_eq!(get(&client, CART, "/").unwrap(), (200, "v1".to_owned()));
    }

    // Without another endpoint the failure is forwarded as it is, and what sidecars say is not.
    drop(cart);
    let head = response(&client);
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(!head.contains("x-anyam-"), "{head}");

    // An app that says it is not believed.
    let lying = within(&serving, || TcpListener::bind((SERVING, 8080)).unwrap());
    std::thread::spawn(move || {
        for mut tcp in lying.incoming().flatten() {
            let _ = tcp.read(&mut [0; 1024]);
            let said =
                "HTTP/1.1 503 No\r\nx-anyam-unprocessed: true\r\ncontent-length: 4\r\n\r\nlied";
            let _ = tcp.write_all(said.as_bytes());
        }
    });
    mesh.wait("the app's own failure", || {
        let head = response(&client);
        assert!(!head.contains("x-anyam-"), "{head}");
        head.ends_with("lied")
    });
}

/// A response to the client, head and body.
fn response(client: &Namespace) -> String {
    let to: SocketAddr = CART.parse().unwrap();
    within(client, || {
        let mut tcp = TcpStream::connect(to).unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {CART}\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        tcp.read_to_end(&mut response).unwrap();
        String::from_utf8_lossy(&response).into_owned()
    })
}
