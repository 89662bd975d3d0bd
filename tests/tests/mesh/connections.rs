//! TCPRoutes and TLSRoutes: connections by weight and by server name.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyam_cli::demo::netns::Namespace;

use crate::certificates::Authority;
use crate::harness::Mesh;
use crate::manifests::STRICT;
use crate::traffic::within;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const BLUE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const GREEN: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);
const EDGE: &str = "240.240.9.1";
const TIMEOUT: Duration = Duration::from_secs(15);
/// Connections by weight. A share of a quarter is 50 of them, with a deviation of 6.
const CONNECTIONS: usize = 200;

fn service(name: &str, vip: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ app: {name} }}
  ports: [{{ name: tcp, port: 5432 }}, {{ name: tls, port: 443, targetPort: 8443 }}]
"
    )
}

fn workload(name: &str, address: Ipv4Addr) -> String {
    format!(
        "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {name} }} }}
spec: {{ addresses: [{address}], serviceAccount: {name} }}
"
    )
}

/// In front of two services; no workload of its own. Endpoints accept mTLS of the mesh alone.
fn manifests() -> String {
    [
        STRICT,
        &service("edge", EDGE),
        &service("blue", "240.240.9.2"),
        &service("green", "240.240.9.3"),
        &workload("client", CLIENT),
        &workload("blue", BLUE),
        &workload("green", GREEN),
    ]
    .concat()
}

fn tcp_route(backends: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{ name: edge, namespace: shop }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: edge, port: 5432 }}]
  rules: [{{ backendRefs: [{backends}] }}]
"
    )
}

fn tls_route(name: &str, hostnames: &str) -> String {
    format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ group: '', kind: Service, name: edge, port: 443 }}]
  hostnames: [{hostnames}]
  rules: [{{ backendRefs: [{{ name: {name}, port: 443 }}] }}]
"
    )
}

/// Sends `greeting` on each connection. Ends with the test.
fn greet(host: &Namespace, at: Ipv4Addr, greeting: &'static str) {
    let listener = within(host, || TcpListener::bind((at, 5432)).unwrap());
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            // A client that has left is none of the server's.
            let _ = tcp.write_all(greeting.as_bytes());
        }
    });
}

/// What the server says; nothing where the connection is closed.
fn greeting(host: &Namespace) -> String {
    within(host, || {
        let to: SocketAddr = format!("{EDGE}:5432").parse().unwrap();
        let mut said = String::new();
        if let Ok(mut tcp) = TcpStream::connect_timeout(&to, TIMEOUT) {
            tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
            // A reset is no greeting either.
            let _ = tcp.read_to_string(&mut said);
        }
        said
    })
}

fn greetings(host: &Namespace) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for _ in 0..CONNECTIONS {
        *all.entry(greeting(host)).or_default() += 1;
    }
    all
}

#[test]
fn connections_are_distributed_by_weight_and_those_of_a_missing_backend_closed() {
    let mut mesh = Mesh::start(&manifests());
    let client = mesh.host("client", CLIENT);
    let [blue, green] = [("blue", BLUE), ("green", GREEN)].map(|(name, at)| mesh.host(name, at));
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("blue", BLUE, &blue),
        mesh.sidecar("green", GREEN, &green),
    ];
    greet(&blue, BLUE, "blue");
    greet(&green, GREEN, "green");
    assert_eq!(greeting(&client), "", "edge has no workload of its own");

    mesh.configure("route.yaml", &tcp_route("{ name: blue, port: 5432 }"));
    mesh.wait("the route", || greeting(&client) == "blue");
    let shares = "{ name: blue, port: 5432, weight: 1 }, { name: green, port: 5432, weight: 2 }, \
        { name: gone, port: 5432, weight: 1 }, { name: blue, port: 5432, weight: 0 }";
    mesh.configure("route.yaml", &tcp_route(shares));
    mesh.wait("its weights", || greeting(&client) == "green");
    let all = greetings(&client);
    let expected = [("blue", 20..80), ("green", 70..130), ("", 20..80)];
    for (name, range) in expected {
        let count = all.get(name).copied().unwrap_or(0);
        assert!(range.contains(&count), "{name}: {all:?}\n{}", mesh.logs());
    }
    assert_eq!(all.len(), 3, "{all:?}");
    let found = "{ name: gone, port: 5432, weight: 1 }";
    assert!(shares.contains(found));
    let missing = "spec.rules[0].backendRefs[2]: there is no Service shop/gone";
    assert!(
        mesh.cli(&["check"]).contains(missing),
        "{}",
        mesh.cli(&["check"])
    );
    let routes = mesh.cli(&["routes", "shop/edge"]);
    assert!(routes.contains("TCPRoute/shop/edge/0"), "{routes}");

    // Nothing valid is left, and open connections are none: what is new is closed.
    mesh.configure("route.yaml", &tcp_route("{ name: gone, port: 5432 }"));
    // By the weights before, one of four was closed too.
    let all_closed = || (0..20).all(|_| greeting(&client).is_empty());
    mesh.wait("its end", all_closed);
    assert_eq!(greetings(&client).len(), 1);
}

/// The subject of the certificate that a server shows who is asked for `name`, if there is one.
fn shown(mesh: &Mesh, host: &Namespace, name: &str) -> Option<String> {
    let to = format!("{EDGE}:443");
    let arguments = ["s_client", "-connect", &to, "-servername", name, "-brief"];
    let output = mesh.output(host, Path::new("openssl"), &arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("Peer certificate: "));
    line.map(str::to_owned)
}

#[test]
fn tls_goes_by_server_name_to_the_app_that_has_the_certificate() {
    let authority = Authority::new("apps");
    let mut mesh = Mesh::start(&manifests());
    let client = mesh.host("client", CLIENT);
    let [blue, green] = [("blue", BLUE), ("green", GREEN)].map(|(name, at)| mesh.host(name, at));
    let _processes = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("blue", BLUE, &blue),
        mesh.sidecar("green", GREEN, &green),
        authority.serve(&mesh, "blue", BLUE, &blue),
        authority.serve(&mesh, "green", GREEN, &green),
    ];
    let routes = [
        tls_route("blue", "blue.example, '*.blue.example'"),
        tls_route("green", "green.example, '*.in.blue.example'"),
    ];
    mesh.configure("routes.yaml", &routes.concat());
    for (name, subject) in [
        ("blue.example", "CN = blue"),
        ("green.example", "CN = green"),
        ("a.blue.example", "CN = blue"),
        ("a.b.blue.example", "CN = blue"),
        ("a.in.blue.example", "CN = green"),
    ] {
        let is = |shown: Option<String>| {
            shown.is_some_and(|it| it.replace('=', " = ").replace("  ", " ") == subject)
        };
        mesh.wait(name, || is(shown(&mesh, &client, name)));
    }
    // No route matches it.
    assert_eq!(shown(&mesh, &client, "red.example"), None);
    // What is no TLS has no place on a port that declares it.
    let plain = within(&client, || {
        let to: SocketAddr = format!("{EDGE}:443").parse().unwrap();
        let mut tcp = TcpStream::connect_timeout(&to, TIMEOUT).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // A reset is none.
        let _ = tcp.read_to_end(&mut answer);
        answer
    });
    assert_eq!(plain, b"");
    let routes = mesh.cli(&["routes", "shop/edge"]);
    assert!(
        routes.contains("server name = *.in.blue.example"),
        "{routes}"
    );
}
