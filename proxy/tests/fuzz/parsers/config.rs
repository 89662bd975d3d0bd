//! Resources as a control plane would send them, mutated: as JSON (fields left out, repeated, of other
//! values or moved elsewhere) and as bytes.

use std::path::Path;

use anyam_proxy::bug;
use anyam_proxy::config::compile::SnapshotStep;
use anyam_proxy::inspect::explain::explain;
use anyam_proxy::snapshot::{Snapshot, Store};
use serde_json::{Value, json};
use xds_proto::anyam::inspect::v1::Explain;
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_proto::envoy::config::listener::v3::Listener;
use xds_proto::envoy::config::route::v3::RouteConfiguration;
use xds_proto::type_url;

use super::{compiler, encoded};
use crate::bootstrap::Places;
use crate::rounds::Rounds;

const ROUNDS: usize = 1200;
/// Steps after which a proxy begins anew.
const LIFE: usize = 100;

/// One resource that compiles.
struct Seed {
    type_url: &'static str,
    json: Value,
}

/// A certificate and its key, where the bootstrap has them.
fn certificate(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["shop".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn seeds(folder: &Path) -> Vec<Seed> {
    let somewhere = ([127, 0, 0, 1], 1).into();
    let bootstrap = Places {
        address: [127, 0, 0, 1].into(),
        folder,
        app: somewhere,
        http1: somewhere,
        http2: somewhere,
        tap: somewhere,
    }
    .bootstrap();
    let resources = &bootstrap["static_resources"];
    let of = |type_url: &'static str, list: &str| {
        let list = resources[list].as_array().unwrap().clone();
        list.into_iter().map(move |json| Seed { type_url, json })
    };
    let routes = json!({"name": "routes", "virtual_hosts": [
        {"name": "one", "domains": ["shop", "*.shop"], "routes": [
            {"match": {"safe_regex": {"regex": "/a+"}}, "route": {"weighted_clusters": {
                "clusters": [{"name": "app", "weight": 1}, {"name": "http1", "weight": 0}]}}},
            {"match": {"path": "/b", "query_parameters": [{"name": "q", "present_match": true}]},
             "redirect": {"host_redirect": "other", "prefix_rewrite": "/c"}},
            {"match": {"path_separated_prefix": "/d", "runtime_fraction": {
                "default_value": {"numerator": 5, "denominator": "MILLION"}}},
             "route": {"cluster": "app", "regex_rewrite": {"pattern": {"regex": "^/d/(.*)$"},
                "substitution": "/\\1"}, "hash_policy": []}},
        ]},
        {"name": "rest", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 404}}]},
    ]});
    let endpoint = |address: &str, weight: u32| {
        json!({"endpoint": {"address": {"socket_address": {
            "address": address, "port_value": 80}}}, "load_balancing_weight": weight})
    };
    let endpoints = json!({"cluster_name": "eds", "endpoints": [
        {"priority": 0, "load_balancing_weight": 3, "locality": {"zone": "a"},
         "lb_endpoints": [endpoint("10.0.0.1", 1), endpoint("10.0.0.2", 5)]},
        {"priority": 1, "lb_endpoints": [endpoint("fd00::1", 1)]},
    ], "policy": {"overprovisioning_factor": 200}});
    let cluster = json!({"name": "eds", "type": "EDS", "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"service_name": "eds", "eds_config": {
            "resource_api_version": "V3", "ads": {}}},
        "circuit_breakers": {"thresholds": [{"max_connections": 5, "max_retries": 1,
            "retry_budget": {"budget_percent": {"value": 20}}}]},
        "outlier_detection": {"consecutive_5xx": 3, "interval": "1s", "max_ejection_percent": 50}});
    let mut all: Vec<Seed> = of(type_url::LISTENER, "listeners").collect();
    all.extend(of(type_url::CLUSTER, "clusters"));
    all.push(Seed {
        type_url: type_url::CLUSTER,
        json: cluster,
    });
    all.push(Seed {
        type_url: type_url::ROUTE,
        json: routes,
    });
    all.push(Seed {
        type_url: type_url::ENDPOINT,
        json: endpoints,
    });
    all.iter_mut()
        .for_each(|seed| without_files(&mut seed.json));
    all
}

/// Logs go to stdout: a mutated path would be made a file.
fn without_files(json: &mut Value) {
    match json {
        Value::Object(fields) => {
            let file = fields.get("@type").is_some_and(|kind| {
                kind.as_str()
                    .is_some_and(|kind| kind.ends_with("FileAccessLog"))
            });
            if file {
                fields.remove("path");
                fields["@type"] = json!(
                    "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
                );
            }
            fields.values_mut().for_each(without_files);
        }
        Value::Array(values) => values.iter_mut().for_each(without_files),
        _ => {}
    }
}

fn bytes_of(seed: &Seed, json: &Value) -> Option<Vec<u8>> {
    match seed.type_url {
        type_url::LISTENER => encoded::<Listener>(json),
        type_url::CLUSTER => encoded::<Cluster>(json),
        type_url::ROUTE => encoded::<RouteConfiguration>(json),
        _ => encoded::<ClusterLoadAssignment>(json),
    }
}

/// Every value of a document, by its path.
fn paths(json: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('~', "~0").replace('/', "~1");
                paths(value, &format!("{path}/{name}"), all);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                paths(value, &format!("{path}/{index}"), all);
            }
        }
        _ => {}
    }
}

fn any_scalar(rng: &mut fastrand::Rng) -> Value {
    let all = [
        json!(0),
        json!(1),
        json!(65_536),
        json!(u32::MAX),
        json!(-1),
        json!(1.5),
        json!(true),
        json!(false),
        json!(null),
        json!(""),
        json!("/"),
        json!("*"),
        json!("%"),
        json!("%REQ(a)%"),
        json!("(a*)*b"),
        json!("[::1]"),
        json!("0s"),
        json!("0.000000001s"),
        json!("315576000000s"),
        json!("-1s"),
        json!("app"),
        json!("eds"),
        json!("a\u{0}b\r\n"),
        json!({}),
        json!([]),
    ];
    all[rng.usize(..all.len())].clone()
}

fn mutate(json: &mut Value, rng: &mut fastrand::Rng) {
    let mut all = Vec::new();
    paths(json, "", &mut all);
    let at = all[rng.usize(..all.len())].clone();
    let Some((parent, name)) = at.rsplit_once('/') else {
        return;
    };
    let elsewhere = json.pointer(&all[rng.usize(..all.len())]).unwrap().clone();
    let scalar = any_scalar(rng);
    let how = rng.u8(..4);
    match json.pointer_mut(parent).unwrap() {
        Value::Object(fields) => {
            let name = name.replace("~1", "/").replace("~0", "~");
            match how {
                0 => drop(fields.remove(&name)),
                1 => fields[&name] = elsewhere,
                _ => fields[&name] = scalar,
            }
        }
        Value::Array(values) => {
            let index: usize = name.parse().unwrap();
            match how {
                0 => drop(values.remove(index)),
                1 => values[index] = elsewhere,
                2 => values.insert(index, values[index].clone()),
                _ => values[index] = scalar,
            }
        }
        _ => {}
    }
}

fn mutate_bytes(bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..4) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, rng.u8(..)),
        _ if at < bytes.len() => drop(bytes.remove(at)),
        _ => {}
    }
}

/// A request, or a connection, as the data path would decide it.
fn use_it(snapshot: &Snapshot, rng: &mut fastrand::Rng) {
    let ports = [1, 80, 8001, 8002, 8003, 8004, 8005];
    let asked = Explain {
        id: "1".into(),
        inbound: rng.bool(),
        address: "127.0.0.1".into(),
        port: ports[rng.usize(..ports.len())],
        method: ["GET", "CONNECT", ""][rng.usize(..3)].into(),
        authority: ["shop", "a.shop:80", ""][rng.usize(..3)].into(),
        path: ["/", "/aaa", "/b?q", "/d/x", "/redirect"][rng.usize(..5)].into(),
        ..Explain::default()
    };
    // A failure is an answer too.
    let _ = explain(snapshot, &asked, None);
}

#[test]
fn every_resource_compiles_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let seeds = seeds(folder.path());
    let before = bug::failures();
    let mut rounds = Rounds::new(ROUNDS);
    let (mut compiler_, mut store) = (compiler(), Store::new(Snapshot::default()));
    let (mut taken, mut round) = (0, 0);
    while let Some(mut rng) = rounds.next() {
        if round % LIFE == 0 {
            (compiler_, store) = (compiler(), Store::new(Snapshot::default()));
            for seed in &seeds {
                let body = bytes_of(seed, &seed.json).unwrap();
                let compiled = compiler_.compile(seed.type_url, &body, &store.load());
                let compiled = compiled.unwrap_or_else(|error| panic!("{error}: {}", seed.json));
                compiler_.publish(&store, [SnapshotStep::Set(compiled)]);
            }
        }
        round += 1;
        let seed = &seeds[rng.usize(..seeds.len())];
        let mut json = seed.json.clone();
        let mut of_bytes = rng.u8(..) < 64;
        for _ in 0..rng.usize(1..4) {
            mutate(&mut json, &mut rng);
        }
        let body = match bytes_of(seed, if of_bytes { &seed.json } else { &json }) {
            Some(body) => body,
            None => {
                of_bytes = true;
                bytes_of(seed, &seed.json).unwrap()
            }
        };
        let mut body = body;
        if of_bytes {
            mutate_bytes(&mut body, &mut rng);
        }
        let current = store.load();
        let compiled = compiler_.compile(seed.type_url, &body, &current);
        let again = compiler_.compile(seed.type_url, &body, &current);
        match (compiled, again) {
            (Ok(compiled), Ok(_)) => {
                taken += 1;
                let name = compiled.name().clone();
                compiler_.publish(&store, [SnapshotStep::Set(compiled)]);
                use_it(&store.load(), &mut rng);
                if rng.bool() {
                    compiler_.publish(&store, [SnapshotStep::Remove(seed.type_url, name)]);
                }
            }
            (Err(one), Err(other)) => {
                assert_eq!(one.to_string(), other.to_string());
                assert!(!one.why.is_empty());
            }
            (one, _) => panic!("compiles only sometimes: {:?}", one.err()),
        }
        use_it(&store.load(), &mut rng);
    }
    assert_eq!(bug::failures(), before);
    assert!(taken > ROUNDS / 20, "{taken} were taken");
}
