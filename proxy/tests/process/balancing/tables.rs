//! Rings and Maglev's tables.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    POLICIES, Pair, Setup, by_user, cluster, endpoint, from, get, header, route, upstreams,
    weighted,
};
use crate::filters::side::Side;

const WEIGHTS: [u32; 7] = [1, 1, 2, 5, 3, 1, 8];
const KEYS: usize = 40;

/// As `load_balancing_policy`.
fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{POLICIES}.{kind}").into();
    let extension = json!({"name": "policy", "typed_config": config});
    json!({"load_balancing_policy": {"policies": [{"typed_extension_config": extension}]}})
}

fn ring(config: Value) -> Value {
    json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": config})
}

fn by_host_name() -> Value {
    json!({"consistent_hashing_lb_config": {"use_hostname_for_hashing": true}})
}

/// A name, and how the cluster balances.
fn policies() -> Vec<(&'static str, Value)> {
    let hash_key = json!({"lb_policy": "MAGLEV"});
    let mut ring_by_name = ring(json!({}));
    ring_by_name["common_lb_config"] = by_host_name();
    vec![
        ("ring", json!({"lb_policy": "RING_HASH"})),
        (
            "ring-small",
            ring(json!({"minimum_ring_size": 10, "maximum_ring_size": 20})),
        ),
        ("ring-large", ring(json!({"minimum_ring_size": 5000}))),
        ("murmur", ring(json!({"hash_function": "MURMUR_HASH_2"}))),
        ("ring-name", ring_by_name),
        ("maglev", json!({"lb_policy": "MAGLEV"})),
        (
            "maglev-small",
            json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 101}}),
        ),
        ("keyed", hash_key),
        (
            "typed-ring",
            typed(
                "ring_hash.v3.RingHash",
                json!({"minimum_ring_size": 50, "hash_function": "MURMUR_HASH_2"}),
            ),
        ),
        ("typed-maglev", typed("maglev.v3.Maglev", by_host_name())),
        (
            "own-policy",
            typed(
                "ring_hash.v3.RingHash",
                json!({"consistent_hashing_lb_config": {
                    "hash_policy": [{"query_parameter": {"name": "user"}}],
                }}),
            ),
        ),
        (
            "bounded",
            typed(
                "maglev.v3.Maglev",
                json!({"consistent_hashing_lb_config": {"hash_balance_factor": 150}}),
            ),
        ),
    ]
}

fn key(cluster: &str, number: usize) -> String {
    get(
        &format!("/{cluster}?user=u{number}"),
        &format!("x-user: user-{number}\r\n"),
    )
}

/// A STRICT_DNS cluster of Envoy serves from the first name on that is resolved: waits until all of its
/// endpoints do.
fn are_resolved(pair: &Pair, name: &str) {
    pair.stock.until("all names to be resolved", |stock| {
        let keys = 0..20 * KEYS;
        let seen: HashSet<String> = keys.map(|n| from(&stock.ask(&key(name, n)))).collect();
        (seen.len() == WEIGHTS.len()).then_some(())
    });
}

/// Every key of every cluster; of each several endpoints are chosen.
fn compare(clusters: Vec<Value>) {
    let by_names = clusters
        .iter()
        .filter(|cluster| cluster["type"] == "STRICT_DNS");
    let by_names: HashSet<Value> = by_names.map(|cluster| cluster["name"].clone()).collect();
    let names: Vec<String> = clusters
        .iter()
        .map(|cluster| cluster["name"].as_str().unwrap().to_owned())
        .collect();
    let routes = names.iter().map(|name| {
        route(
            &format!("/{name}?"),
            name,
            json!({"hash_policy": by_user()}),
        )
    });
    let routes = routes.map(|mut route| {
        let path = route["match"]["prefix"].as_str().unwrap();
        route["match"] = json!({"path": path.trim_end_matches('?')});
        route
    });
    let pair = Setup::new(clusters, routes.collect()).start();
    for name in names {
        if by_names.contains(&json!(name)) {
            are_resolved(&pair, &name);
        }
        let chosen: HashSet<String> = (0..KEYS).map(|n| pair.same(&key(&name, n))).collect();
        assert!(chosen.len() > 1, "{name}: {chosen:?}");
    }
}

#[test]
fn keys_go_to_the_endpoints_that_envoy_sends_them_to() {
    let upstreams = upstreams(WEIGHTS.len());
    let clusters = policies().into_iter().map(|(name, more)| {
        let endpoints = upstreams.iter().zip(WEIGHTS).zip(0..);
        let endpoints = endpoints.map(|((at, weight), number)| {
            let mut endpoint = weighted(*at, weight);
            endpoint["endpoint"]["hostname"] = format!("host-{number}").into();
            if name == "keyed" {
                let key = json!({"hash_key": format!("key-{number}")});
                endpoint["metadata"] = json!({"filter_metadata": {"envoy.lb": key}});
            }
            endpoint
        });
        let mut cluster = cluster(name, &[endpoints.collect()], more);
        if matches!(name, "ring-name" | "typed-maglev") {
            // Envoy hashes by host names in these only.
            cluster["type"] = "STRICT_DNS".into();
        }
        cluster
    });
    compare(clusters.collect());
}

#[test]
fn health_and_priorities_choose_the_table() {
    let upstreams = upstreams(7);
    let mut clusters = Vec::new();
    for policy in ["RING_HASH", "MAGLEV"] {
        let health = |sick: &[usize]| -> Vec<Value> {
            let one = |(index, at): (usize, &std::net::SocketAddr)| {
                let mut endpoint = endpoint(*at);
                if sick.contains(&index) {
                    endpoint["health_status"] = "UNHEALTHY".into();
                }
                endpoint
            };
            upstreams.iter().enumerate().map(one).collect()
        };
        let mut add = |name: &str, endpoints: &[Vec<Value>]| {
            let name = format!("{name}-{}", policy.to_ascii_lowercase());
            clusters.push(cluster(&name, endpoints, json!({"lb_policy": policy})));
        };
        add("sick", &[health(&[0, 3])]);
        add("panic", &[health(&[0, 1, 2, 3, 4])]);
        // Half of the first priority is left, and takes 70 % of the load.
        let first = health(&[0, 1])[..4].to_vec();
        let second = health(&[])[4..].to_vec();
        add("spilt", &[first, second.clone()]);
        // Both priorities are in panic: shares go by numbers of endpoints.
        let first = health(&[0, 1, 2, 3])[..4].to_vec();
        let second = health(&[4, 5])[4..].to_vec();
        add("panics", &[first, second]);
    }
    compare(clusters);
}

/// An endpoint that fails is ejected: its keys go elsewhere, and most others stay where they were. Not all,
/// because the rest share the places of the ring anew.
#[test]
fn an_ejected_endpoint_loses_its_keys_and_few_others_move() {
    let mut all = upstreams(4);
    let failing = crate::proxy::upstream(|mut tcp| {
        use std::io::{Read, Write};
        let own = tcp.local_addr().unwrap();
        let mut buffer = [0; 4096];
        while tcp.read(&mut buffer).is_ok_and(|read| read > 0) {
            let answer = format!("HTTP/1.1 500 Sick\r\nx-from: {own}\r\ncontent-length: 0\r\n\r\n");
            if tcp.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    all.push(failing);
    let endpoints = all.iter().map(|at| endpoint(*at)).collect();
    let more = json!({
        "lb_policy": "RING_HASH",
        "outlier_detection": {"consecutive_5xx": 2, "max_ejection_percent": 50, "base_ejection_time": "600s"},
    });
    let routes = vec![route("/", "app", json!({"hash_policy": by_user()}))];
    let setup = Setup::new(vec![cluster("app", &[endpoints], more)], routes);
    let ours = Side::anyam_by(&|front, _| setup.bootstrap(front));
    let ask = |number: usize| ours.ask(&key("", number));
    let name = failing.to_string();
    let is_failing = |number: &usize| header(&ask(*number), "x-from").unwrap() == name;
    // With its second failure it is ejected, so that the rest of its keys may go elsewhere already.
    let before: Vec<Option<String>> = (0..KEYS)
        .map(|number| {
            let seen = ask(number);
            (seen.status == 200).then(|| from(&seen))
        })
        .collect();
    let lost = before.iter().position(Option::is_none).unwrap();
    ours.until("the ejection", |_| (!is_failing(&lost)).then_some(()));
    let moved = before.iter().enumerate().filter(|(number, before)| {
        let now = from(&ask(*number));
        before.as_ref().is_some_and(|before| *before != now)
    });
    let moved = moved.count();
    assert!(moved < KEYS / 2, "{moved}");
}
