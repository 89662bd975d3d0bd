//! Routes, endpoints and certificates change under load, and nothing is lost: HTTP/1, HTTP/2, gRPC
//! streams, WebSockets and TCP, short exchanges and ones that outlast every change, with retries off.
//!
//! `servers` → `clients` → `traffic` (all of them together, and what they saw)

mod clients;
mod servers;
mod traffic;

use std::net::Ipv4Addr;

use servers::Servers;
use traffic::{Kind, Traffic};

use crate::harness::Mesh;
use crate::manifests::STRICT;
use crate::traffic::get;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVERS: [(&str, Ipv4Addr); 2] = [
    ("blue", Ipv4Addr::new(10, 77, 2, 2)),
    ("green", Ipv4Addr::new(10, 77, 3, 2)),
];
const ADMIN: &str = "127.0.0.1:15000";
/// Changes of each kind; certificates change by themselves meanwhile.
const ROUNDS: usize = 4;
/// Exchanges of each kind that must come through after a change.
const ENOUGH: u64 = 20;

/// `app` is called and has routes; `blue` and `green` are where those lead.
fn services() -> String {
    let service = |name: &str, selector: &str, vip: &str| {
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ {selector} }}
  ports:
    - {{ name: http, port: 8080, appProtocol: http }}
    - {{ name: grpc, port: 8081, appProtocol: grpc }}
    - {{ name: data, port: 8082, appProtocol: tcp }}
---
apiVersion: mesh.anyam.dev/v1alpha1
kind: BackendPolicy
metadata: {{ name: {name}, namespace: shop }}
spec:
  targetRefs: [{{ group: \"\", kind: Service, name: {name} }}]
  retry: {{ attempts: 0 }}
"
        )
    };
    [
        service("app", "app: server", "240.240.9.1"),
        service("blue", "color: blue", "240.240.9.2"),
        service("green", "color: green", "240.240.9.3"),
        // Its endpoints change.
        service("pool", "member: \"yes\"", "240.240.9.4"),
    ]
    .concat()
}

/// The server named `member` is in the pool, the other one is not.
fn workloads(member: &str) -> String {
    let mut all = format!(
        "apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: client, namespace: shop, labels: {{ app: client }} }}
spec: {{ addresses: [{CLIENT}], serviceAccount: client }}
"
    );
    for (name, address) in SERVERS {
        let is_member = if name == member { "yes" } else { "no" };
        all += &format!(
            "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata:
  name: {name}
  namespace: shop
  labels: {{ app: server, color: {name}, member: \"{is_member}\" }}
spec:
  addresses: [{address}]
  serviceAccount: {name}
  ports:
    - {{ name: http, port: 8080, appProtocol: http }}
    - {{ name: grpc, port: 8081, appProtocol: grpc }}
    - {{ name: data, port: 8082, appProtocol: tcp }}
"
        );
    }
    all
}

/// Everything that is sent to `app` goes to the service `to`.
fn routes(to: &str) -> String {
    ["HTTPRoute 8080", "GRPCRoute 8081"]
        .map(|route| {
            let (kind, port) = route.split_once(' ').unwrap();
            format!(
                "---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: app-{port}, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: app, port: {port} }}]
  rules:
    - backendRefs: [{{ name: {to}, port: {port} }}]
"
            )
        })
        .concat()
}

/// The serial numbers that a sidecar's admin page shows.
fn certificate(mesh: &Mesh, host: &anyam_cli::demo::netns::Namespace) -> String {
    let mut seen = String::new();
    mesh.wait("the admin page", || {
        get(host, ADMIN, "/certs").is_ok_and(|(status, body)| {
            seen = body;
            status == 200
        })
    });
    let certificates: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let serial = &certificates["certificates"][0]["cert_chain"][0]["serial_number"];
    serial
        .as_str()
        .unwrap_or_else(|| panic!("{seen}"))
        .to_owned()
}

#[test]
fn changes_under_load_lose_nothing() {
    let mut mesh = Mesh::start_with(
        &[STRICT, &services()].concat(),
        &["--certificate-ttl", "10s"],
    );
    mesh.configure("workloads.yaml", &workloads("blue"));
    mesh.configure("routes.yaml", &routes("blue"));
    let client = mesh.host("client", CLIENT);
    let mut sidecars = vec![mesh.sidecar("client", CLIENT, &client)];
    let mut servers = Vec::new();
    for (name, address) in SERVERS {
        let host = mesh.host(name, address);
        sidecars.push(mesh.sidecar(name, address, &host));
        servers.push(Servers::start(&host, name, address));
    }
    let traffic = Traffic::start(&client, "240.240.9.1", "240.240.9.4");
    let flows = |what: &str| {
        let before = Kind::ALL.map(|kind| traffic.count(kind));
        for (kind, before) in Kind::ALL.into_iter().zip(before) {
            mesh.wait(&format!("{kind:?} {what}"), || {
                traffic.count(kind) >= before + ENOUGH || !traffic.failures().is_empty()
            });
        }
        let failures = traffic.failures();
        assert!(
            failures.is_empty(),
            "{what}: {failures:#?}\n{}",
            mesh.logs()
        );
    };
    flows("at first");

    let mut serials = vec![certificate(&mesh, &client)];
    for round in 0..ROUNDS {
        let (name, _) = SERVERS[(round + 1) % 2];
        mesh.configure("routes.yaml", &routes(name));
        for kind in [Kind::Http1, Kind::Http2] {
            mesh.wait("the route's change", || {
                traffic.reached(kind, name) || !traffic.failures().is_empty()
            });
        }
        flows("after a route changed");
        mesh.configure("workloads.yaml", &workloads(name));
        mesh.wait("the endpoints' change", || {
            traffic.reached(Kind::Tcp, name) || !traffic.failures().is_empty()
        });
        flows("after endpoints changed");
        mesh.wait("another certificate", || {
            let now = certificate(&mesh, &client);
            let is_new = serials.last() != Some(&now);
            if is_new {
                serials.push(now);
            }
            is_new
        });
        flows("after a certificate changed");
    }
    let outcome = traffic.finish();
    assert_eq!(outcome, Vec::<String>::new(), "{}", mesh.logs());
}
