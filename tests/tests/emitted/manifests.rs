//! Meshes made up at random, as manifests that the model takes: services, workloads, routes and
//! policies in two namespaces, with every kind of field there is. Here what they are made of,
//! services and workloads; the others in `routes` and `policies`.

mod policies;
mod routes;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

const NAMESPACES: [&str; 2] = ["a", "b"];
const NAMES: [&str; 4] = ["front", "cart", "audit", "rpc"];
/// Every service has these, so that references by number resolve to something.
const PORTS: [u16; 3] = [80, 9000, 5432];
const ADDRESSES: [&str; 6] = [
    "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "10.0.0.3", "fd00::3",
];

pub fn any_mesh() -> impl Strategy<Value = Vec<Value>> {
    let objects = (
        vec(service(), 8),
        workloads(),
        vec(
            prop_oneof![
                routes::route(false),
                routes::route(true),
                routes::connection_route(false),
                routes::connection_route(true),
            ],
            0..6,
        ),
        vec(routes::grant(), 0..3),
        vec(policies::authorization(), 0..4),
        vec(policies::mesh_policy(), 0..3),
        vec(policies::backend_policy(), 0..3),
        vec(policies::backend_tls_policy(), 0..3),
    );
    objects.prop_map(
        |(services, workloads, routes, grants, rules, mesh, backend, tls)| {
            let mut all = Vec::new();
            let keys = NAMESPACES
                .into_iter()
                .flat_map(|namespace| NAMES.map(|name| (namespace, name.to_owned())));
            for ((namespace, name), spec) in keys.zip(services) {
                all.push(object("v1", "Service", namespace, &name, spec));
            }
            let kinds = [workloads, routes, grants, rules, mesh, backend, tls];
            for made in kinds.into_iter().flatten().enumerate() {
                let (number, (version, kind, namespace, spec)) = made;
                let name = format!("{}-{number}", kind.to_lowercase());
                all.push(object(version, kind, namespace, &name, spec));
            }
            all
        },
    )
}

/// API version, kind, namespace and `spec`; names are numbered afterwards.
type Made = (&'static str, &'static str, &'static str, Value);

fn object(version: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let app = spec["x-app"].clone();
    let mut metadata = json!({"name": name, "namespace": namespace});
    let mut spec = spec;
    if let (Some(app), Some(fields)) = (app.as_str(), spec.as_object_mut()) {
        metadata["labels"] = json!({"app": app, "version": "v1"});
        fields.remove("x-app");
    }
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn namespace() -> impl Strategy<Value = &'static str> {
    select(&NAMESPACES[..])
}

fn name() -> impl Strategy<Value = &'static str> {
    select(&NAMES[..])
}

/// An object of those of `fields` that came out.
fn with(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let optional: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| option::of(value).prop_map(move |value| (name, value)))
        .collect();
    optional
        .prop_map(|fields| {
            let fields = fields.into_iter();
            let given = fields.filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(given.collect::<Map<_, _>>())
        })
        .boxed()
}

fn one_of(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    select(values).prop_map(Value::from).boxed()
}

fn number(range: std::ops::Range<u32>) -> BoxedStrategy<Value> {
    range.prop_map(Value::from).boxed()
}

fn list(of: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    vec(of, 0..=most).prop_map(Value::from).boxed()
}

fn some(of: BoxedStrategy<Value>, most: usize) -> BoxedStrategy<Value> {
    vec(of, 1..=most).prop_map(Value::from).boxed()
}

fn span() -> BoxedStrategy<Value> {
    one_of(&["10ms", "5s", "1m30s", "2h"])
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

fn service() -> impl Strategy<Value = Value> {
    let protocol = || {
        select(
            &[
                "http",
                "http2",
                "grpc",
                "tcp",
                "redis",
                "kubernetes.io/h2c",
                "https",
                "odd",
            ][..],
        )
    };
    let port = |number: u16, name: &'static str| {
        let target = prop_oneof![Just(json!(8080)), Just(json!("main")), Just(json!(number))];
        (option::of(protocol()), option::of(target)).prop_map(move |(protocol, target)| {
            let mut port = json!({"port": number, "name": name});
            if let Some(protocol) = protocol {
                port["appProtocol"] = protocol.into();
            }
            if let Some(target) = target {
                port["targetPort"] = target;
            }
            port
        })
    };
    let ports = (
        port(PORTS[0], "x"),
        port(PORTS[1], "grpc-y"),
        port(PORTS[2], "tcp"),
    );
    (name(), ports, 0..4, flag()).prop_map(|(app, (one, two, three), kind, ready)| {
        let mut spec = json!({"selector": {"app": app}, "ports": [one, two, three]});
        spec["publishNotReadyAddresses"] = ready;
        match kind {
            0 => spec["clusterIP"] = "None".into(),
            1 => spec["type"] = "LoadBalancer".into(),
            _ => {}
        }
        spec
    })
}

fn workloads() -> impl Strategy<Value = Vec<Made>> {
    let one = (
        namespace(),
        name(),
        with(vec![
            ("serviceAccount", one_of(&["front", "cart"])),
            ("sidecar", flag()),
            ("ready", flag()),
            ("weight", number(1..100)),
            ("node", one_of(&["n1"])),
            ("locality", with(vec![("region", one_of(&["eu"])), ("zone", one_of(&["1"]))])),
            (
                "ports",
                one_of(&["http", "grpc", "tcp"])
                    .prop_map(|protocol| {
                        json!([{"port": 8080, "name": "main", "appProtocol": protocol}, {"port": 7}])
                    })
                    .boxed(),
            ),
        ]),
    );
    let addresses = subsequence(&ADDRESSES[..], 2..=ADDRESSES.len());
    (vec(one, 1..=3), addresses).prop_map(|(workloads, addresses)| {
        // Each address is one workload's; those that are left over make the last dual-stack.
        let count = workloads.len().min(addresses.len());
        let made = workloads.into_iter().take(count).enumerate();
        let made = made.map(|(index, (namespace, app, mut spec))| {
            let own = match index + 1 == count {
                true => &addresses[index..],
                false => &addresses[index..=index],
            };
            spec["addresses"] = own.into();
            spec["x-app"] = app.into();
            ("mesh.anyam.dev/v1alpha1", "Workload", namespace, spec)
        });
        made.collect()
    })
}

fn header_name() -> BoxedStrategy<Value> {
    one_of(&["x-a", "X-Version", "x-b"])
}
