//! Requests that a route also sends to another service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::{get, within};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const AUDIT: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);
const CART: &str = "240.240.9.1:8080";
const TIMEOUT: Duration = Duration::from_secs(30);

const ROUTE: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: cart, namespace: shop }
spec:
  parentRefs: [{ group: '', kind: Service, name: cart }]
  rules:
    - filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: audit, port: 8080 } } }]
      backendRefs: [{ name: cart, port: 8080 }]
";

#[test]
fn a_mirror_gets_the_request_and_its_answer_is_ignored() {
    let manifests = [
        STRICT,
        &service("cart", "cart", "240.240.9.1"),
        &service("audit", "audit", "240.240.9.2"),
        &workload("client", "client", CLIENT),
        &workload("server", "cart", SERVER),
        &workload("audit", "audit", AUDIT),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let audit = mesh.host("audit", AUDIT);
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
        mesh.sidecar("audit", AUDIT, &audit),
    ];
    let _cart = mesh.cart("v1", SERVER, &server);
    let listener = within(&audit, || TcpListener::bind((AUDIT, 8080)).unwrap());
    let (heads, mirrored) = channel();
    // Ends with the test's process: `accept` has nothing else to wait for.
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let heads = heads.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.extend(byte);
                }
                let answer = b"HTTP/1.1 503 Nope\r\nx-from: audit\r\ncontent-length: 4\r\n\r\nnope";
                let answered = stream.write_all(answer);
                // The test may be over.
                let _ = answered.map(|()| heads.send(String::from_utf8_lossy(&head).into_owned()));
            });
        }
    });
    let asked = |path| get(&client, CART, path).is_ok_and(|answer| answer == (200, "v1".into()));
    mesh.wait("an answer without the route", || asked("/before"));
    assert!(mirrored.try_recv().is_err(), "nothing is mirrored unasked");

    mesh.configure("route.yaml", ROUTE);
    let mut all = Vec::new();
    mesh.wait("a mirrored request", || {
        // Every answer is the service's own, whatever the mirror answers.
        let answer = get(&client, CART, "/copied");
        assert_eq!(answer.unwrap(), (200, "v1".into()));
        all.extend(mirrored.try_recv());
        !all.is_empty()
    });
    all.extend(mirrored.recv_timeout(TIMEOUT));
    for head in &all {
        assert!(head.starts_with("GET /copied HTTP/1.1\r\n"), "{head}");
    }
}
