//! Objects for the property test: few, so that they conflict, and each in many versions.

use std::sync::Arc;

use anyam_control::model::Object;
use anyam_control::model::mesh::change::Origin;
use anyam_control::source::yaml;
use proptest::prelude::*;

const NAMESPACES: [&str; 3] = ["a", "b", "mesh"];

/// Kind and name of an object; there are few, so that they conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Service(usize, usize),
    Slice(usize, usize),
    Workload(usize, usize),
    Route(usize, usize),
    Grant(usize),
    Authorization(usize, usize),
    Mesh(usize, usize),
    Backend(usize, usize),
    Tls(usize, usize),
    ConfigMap(usize),
}

pub fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![
        4 => (0..2usize, 0..3usize).prop_map(|(n, i)| Slot::Service(n, i)),
        3 => (0..2usize, 0..3usize).prop_map(|(n, i)| Slot::Slice(n, i)),
        6 => (0..2usize, 0..4usize).prop_map(|(n, i)| Slot::Workload(n, i)),
        5 => (0..2usize, 0..5usize).prop_map(|(n, i)| Slot::Route(n, i)),
        1 => (0..2usize).prop_map(Slot::Grant),
        2 => (0..3usize, 0..2usize).prop_map(|(n, i)| Slot::Authorization(n, i)),
        2 => (0..3usize, 0..3usize).prop_map(|(n, i)| Slot::Mesh(n, i)),
        1 => (0..2usize, 0..2usize).prop_map(|(n, i)| Slot::Backend(n, i)),
        2 => (0..2usize, 0..2usize).prop_map(|(n, i)| Slot::Tls(n, i)),
        1 => (0..2usize).prop_map(Slot::ConfigMap),
    ]
}

/// One of the manifests that a slot may hold.
struct Said {
    api: &'static str,
    kind: &'static str,
    labels: String,
    /// The fields beside `metadata`.
    body: String,
}

impl Said {
    fn new(api: &'static str, kind: &'static str, spec: String) -> Self {
        Said {
            api,
            kind,
            labels: String::new(),
            body: format!("spec: {{ {spec} }}"),
        }
    }
}

/// One of a list, by some bits of a version.
fn pick<'a>(version: u8, shift: u8, of: &[&'a str]) -> &'a str {
    of[usize::from(version >> shift) % of.len()]
}

fn service(version: u8) -> Said {
    let ports = pick(
        version,
        0,
        &[
            "[{ port: 80, name: http }]",
            "[{ port: 80, name: main }]",
            "[{ port: 80, name: tcp }, { port: 90, name: grpc, targetPort: named }]",
            "[{ port: 80, targetPort: 8080, name: main }, { port: 443, name: https }]",
        ],
    );
    let selectors = ["{ app: x }", "{ app: y }", "{ app: x, tier: t }", "{}"];
    let selector = pick(version, 2, &selectors);
    let ips = ["", "clusterIP: 10.0.0.1, ", "clusterIP: None, ", ""];
    let ip = pick(version, 4, &ips);
    let local = pick(version, 6, &["", "", "internalTrafficPolicy: Local, ", ""]);
    let affinity = pick(version, 5, &["", "sessionAffinity: ClientIP, "]);
    let spec = format!("{ip}{local}{affinity}selector: {selector}, ports: {ports}");
    Said::new("v1", "Service", spec)
}

/// Some with an address of a workload, one with an address that several workloads may have, and
/// some with an address that none has.
fn slice(version: u8) -> Said {
    let service = pick(version, 0, &["s0", "s1", "s0", "s2"]);
    let labels = match version % 7 {
        0 => String::new(),
        _ => format!("kubernetes.io/service-name: {service}"),
    };
    let ports = pick(
        version,
        2,
        &[
            "[{ name: http, port: 8080 }]",
            "[{ name: main, port: 8080 }, { name: tcp, port: 7000 }]",
            "[{ name: main, port: 80 }, { name: http, port: 7000 }, { name: u, port: 53, protocol: UDP }]",
        ],
    );
    let target = "targetRef: { kind: Pod, name: w1 }";
    let endpoints = [
        "{ addresses: [10.0.0.1] }, { addresses: [10.0.0.2] }".to_owned(),
        format!("{{ addresses: [10.9.9.9], {target} }}, {{ addresses: [10.8.0.1] }}"),
        "{ addresses: [10.1.0.2], conditions: { ready: false } }, { addresses: [10.8.0.2], hostname: h }"
            .to_owned(),
        "{ addresses: [10.1.0.1], conditions: { ready: false, serving: true, terminating: true } }"
            .to_owned(),
        "{ addresses: [10.0.0.1], hints: { forZones: [{ name: z1 }] } }, \
         { addresses: [10.8.0.1], hints: { forZones: [{ name: z2 }] } }"
            .to_owned(),
    ];
    let endpoints = &endpoints[usize::from(version >> 3) % endpoints.len()];
    let (kind, endpoints) = match version % 11 {
        0 => (
            "IPv6",
            "{ addresses: [\"fd00:0::1\"] }, { addresses: [\"fd00:8::1\"] }",
        ),
        _ => ("IPv4", endpoints.as_str()),
    };
    Said {
        api: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        labels,
        body: format!("addressType: {kind}\nports: {ports}\nendpoints: [{endpoints}]"),
    }
}

fn workload(namespace: usize, index: usize, version: u8) -> Said {
    let labels = ["app: x", "app: y", "app: x, tier: t", "tier: t"];
    let account = pick(version, 2, &["one", "two"]);
    let host = index + 1;
    let addresses = match pick(version, 3, &["own", "own", "both", "shared"]) {
        "own" => format!("10.{namespace}.0.{host}"),
        "both" => format!("10.{namespace}.0.{host}, \"fd00:{namespace}::{host}\""),
        _ => "10.9.9.9".to_owned(),
    };
    let rest = pick(
        version,
        5,
        &[
            "ready: true",
            "ready: false",
            "sidecar: false",
            "ports: [{ port: 7000, name: named }]",
            "ports: [{ port: 8080, name: tcp }]",
        ],
    );
    let names = [
        "",
        ", hostname: h, subdomain: s0",
        ", hostname: i, subdomain: s0",
        ", hostname: h, subdomain: s1",
    ];
    let name = pick(version, 4, &names);
    let places = ["", ", locality: { zone: z1 }", ", node: n1", ", node: n2"];
    let zone = pick(version, 6, &places);
    let spec = format!("addresses: [{addresses}], serviceAccount: {account}, {rest}{name}{zone}");
    Said {
        labels: pick(version, 0, &labels).to_owned(),
        ..Said::new(OWN, "Workload", spec)
    }
}

fn route(kind: &'static str, version: u8) -> Said {
    let parent = pick(version, 0, &["s0", "s1"]);
    let near = pick(version, 1, &["a", "b"]);
    let port = pick(version, 2, &["", ", port: 80"]);
    let to = pick(version, 3, &["s0", "s1", "s2", "none"]);
    let far = pick(version, 5, &["a", "b"]);
    let cors = "filters: [{ type: CORS, cors: { allowOrigins: ['*'] } }], ";
    let filters = match kind {
        "HTTPRoute" => pick(version, 6, &["", cors]),
        _ => "",
    };
    let session = pick(version, 7, &["", "sessionPersistence: {}, "]);
    let spec = format!(
        "parentRefs: [{{ group: \"\", kind: Service, name: {parent}, namespace: {near}{port} }}], \
         rules: [{{ {filters}{session}backendRefs: [{{ name: {to}, namespace: {far}, port: 80 }}] }}]"
    );
    Said::new(GATEWAY, kind, spec)
}

fn tcp_route(version: u8) -> Said {
    let parent = pick(version, 0, &["s0", "s1"]);
    let near = pick(version, 1, &["a", "b"]);
    let port = pick(version, 2, &["", ", port: 80", ", sectionName: main"]);
    let to = pick(version, 3, &["s0", "s1", "s2", "none"]);
    let far = pick(version, 5, &["a", "b"]);
    let number = pick(version, 6, &["80", "443"]);
    let spec = format!(
        "parentRefs: [{{ group: \"\", kind: Service, name: {parent}, namespace: {near}{port} }}], \
         rules: [{{ backendRefs: [{{ name: {to}, namespace: {far}, port: {number} }}, {{ name: s0, port: 80, weight: 3 }}] }}]"
    );
    Said::new(GATEWAY, "TCPRoute", spec)
}

fn tls_route(version: u8) -> Said {
    let names = pick(
        version,
        2,
        &["a.example", "\"*.example\", a.example", "b.example", ""],
    );
    let tcp = tcp_route(version);
    Said {
        kind: "TLSRoute",
        body: tcp
            .body
            .replace("rules:", &format!("hostnames: [{names}], rules:")),
        ..tcp
    }
}

fn grant(version: u8) -> Said {
    let from = pick(version, 0, &["a", "b"]);
    let kind = pick(
        version,
        1,
        &["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"],
    );
    let spec = format!(
        "from: [{{ group: gateway.networking.k8s.io, kind: {kind}, namespace: {from} }}], \
         to: [{{ group: \"\", kind: Service }}]"
    );
    Said::new(GATEWAY, "ReferenceGrant", spec)
}

fn authorization(version: u8) -> Said {
    let targets = [
        "",
        "targetRefs: [{ kind: Service, name: s0 }], ",
        "targetRefs: [{ kind: Service, name: s1, sectionName: main }], ",
        "targetRefs: [{ kind: Workload, name: w0 }, { kind: Workload, name: w1 }], ",
        "selector: { matchLabels: { app: x } }, ",
        "selector: { matchLabels: { tier: t } }, ",
    ];
    let target = pick(version, 0, &targets);
    let action = pick(version, 2, &["Allow", "Deny"]);
    let spec = format!("{target}action: {action}, rules: [{{}}]");
    Said::new(OWN, "AuthorizationPolicy", spec)
}

fn mesh_policy(version: u8) -> Said {
    let target = pick(
        version,
        0,
        &[
            "",
            "targetRefs: [{ kind: Workload, name: w0 }], ",
            "selector: { matchLabels: { app: x } }, ",
            "selector: { matchLabels: { app: y } }, ",
            "selector: { matchLabels: { app: x, tier: t } }, ",
        ],
    );
    let mode = pick(version, 2, &["Strict", "Disabled", "Permissive"]);
    let log = pick(version, 4, &["Text", "Json"]);
    let spec = format!("{target}mtls: {{ mode: {mode} }}, accessLog: {{ format: {log} }}");
    Said::new(OWN, "MeshPolicy", spec)
}

fn backend_policy(version: u8) -> Said {
    let target = pick(version, 0, &["s0", "s1"]);
    let timeout = pick(version, 1, &["1s", "2s"]);
    let spec =
        format!("targetRefs: [{{ kind: Service, name: {target} }}], connectTimeout: {timeout}");
    Said::new(OWN, "BackendPolicy", spec)
}

fn tls_policy(version: u8) -> Said {
    let targets = [
        "{ group: '', kind: Service, name: s0 }",
        "{ group: '', kind: Service, name: s1 }",
        "{ group: '', kind: Service, name: s0, sectionName: main }",
        "{ group: '', kind: Service, name: s0 }, { group: '', kind: Service, name: s1, sectionName: http }",
    ];
    let target = pick(version, 0, &targets);
    let trust = [
        "wellKnownCACertificates: System",
        "caCertificateRefs: [{ group: '', kind: ConfigMap, name: ca }]",
        "caCertificateRefs: [{ group: '', kind: ConfigMap, name: ca }, { group: '', kind: Secret, name: x }]",
    ];
    let trust = pick(version, 2, &trust);
    let spec = format!("targetRefs: [{target}], validation: {{ hostname: a.example, {trust} }}");
    Said::new(GATEWAY, "BackendTLSPolicy", spec)
}

fn config_map(version: u8) -> Said {
    let golden = include_str!("../golden/backend-tls/mesh.yaml");
    let begin = golden.find("-----BEGIN CERTIFICATE-----\n    M").unwrap();
    let end = golden[begin..].find("-----END CERTIFICATE-----").unwrap();
    let pem = golden[begin..][..end].replace("\n    ", "\\n");
    let data = match version % 3 {
        0 => "{}".to_owned(),
        1 => "{ ca.crt: \"no PEM\" }".to_owned(),
        _ => format!("{{ ca.crt: \"{pem}-----END CERTIFICATE-----\\n\" }}"),
    };
    Said {
        api: "v1",
        kind: "ConfigMap",
        labels: String::new(),
        body: format!("data: {data}"),
    }
}

/// Ages differ, so that nothing depends on the order of arrival.
fn manifest(slot: Slot, version: u8) -> String {
    let (said, namespace, name) = match slot {
        Slot::Service(n, i) => (service(version), n, format!("s{i}")),
        Slot::Slice(n, i) => (slice(version), n, format!("e{i}")),
        Slot::Workload(n, i) => (workload(n, i, version), n, format!("w{i}")),
        Slot::Route(n, 4) => (tls_route(version), n, "r4".to_owned()),
        Slot::Route(n, 3) => (tcp_route(version), n, "r3".to_owned()),
        Slot::Route(n, 2) => (route("GRPCRoute", version), n, "r2".to_owned()),
        Slot::Route(n, i) => (route("HTTPRoute", version), n, format!("r{i}")),
        Slot::Grant(n) => (grant(version), n, "g".to_owned()),
        Slot::Authorization(n, i) => (authorization(version), n, format!("p{i}")),
        Slot::Mesh(n, i) => (mesh_policy(version), n, format!("m{i}")),
        Slot::Backend(n, i) => (backend_policy(version), n, format!("b{i}")),
        Slot::Tls(n, i) => (tls_policy(version), n, format!("t{i}")),
        Slot::ConfigMap(n) => (config_map(version), n, "ca".to_owned()),
    };
    let Said {
        api,
        kind,
        labels,
        body,
    } = said;
    let namespace = NAMESPACES[namespace];
    let age = 100 + u32::from(version) * 7 % 60;
    let unique = number(slot);
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  \
         creationTimestamp: \"2026-01-01T00:00:00.{age}{unique}Z\"\n  labels: {{ {labels} }}\n{body}\n",
    )
}

/// Of three digits, another one for each slot.
fn number(slot: Slot) -> usize {
    let (kind, namespace, index) = match slot {
        Slot::Service(n, i) => (1, n, i),
        Slot::Workload(n, i) => (2, n, i),
        Slot::Route(n, i) => (3, n, i),
        Slot::Grant(n) => (4, n, 0),
        Slot::Authorization(n, i) => (5, n, i),
        Slot::Mesh(n, i) => (6, n, i),
        Slot::Backend(n, i) => (7, n, i),
        Slot::Slice(n, i) => (8, n, i),
        Slot::Tls(n, i) => (9, n, i),
        Slot::ConfigMap(n) => (9, n, 9),
    };
    kind * 100 + namespace * 10 + index
}

const OWN: &str = "mesh.anyam.dev/v1alpha1";
const GATEWAY: &str = "gateway.networking.k8s.io/v1";

pub fn object(slot: Slot, version: u8) -> (Object, Origin) {
    let text = manifest(slot, version);
    let mut read = yaml::parse("mesh.yaml", &text).unwrap_or_else(|e| panic!("{text}\n{e:#?}"));
    let origin = Origin::File {
        file: "mesh.yaml".into(),
        line: 1,
    };
    let mut object = read.remove(0).object;
    if let Object::Workload(workload) = &mut object {
        let workload = Arc::make_mut(workload);
        workload.pod = version.is_multiple_of(5);
        if version.is_multiple_of(3) {
            workload.redirected.exclude_sources = vec!["10.0.0.0/24".parse().unwrap()];
        }
    }
    (object, origin)
}
