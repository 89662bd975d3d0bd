//! Subsets: which endpoints requests with criteria go to, exactly.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{POLICIES, Pair, Setup, cluster, endpoint, get, header, route, upstreams};
use crate::filters::side::Side;

/// Metadata of the endpoints: those of Envoy's documentation, and some with lists.
fn endpoints_metadata() -> Vec<Value> {
    vec![
        json!({"stage": "prod", "version": "1.0", "type": "std", "xlarge": true}),
        json!({"stage": "prod", "version": "1.0", "type": "std"}),
        json!({"stage": "prod", "version": "1.1", "type": "std"}),
        json!({"stage": "prod", "version": "1.1", "type": "bigmem"}),
        json!({"stage": "dev", "version": "1.2-pre", "type": "std"}),
        json!({"stage": ["dev", "test"], "version": ["1.2-pre", "1.0"]}),
        json!({"version": 1.0}),
        json!({}),
    ]
}

fn endpoints(servers: &[SocketAddr]) -> Vec<Value> {
    let made = servers
        .iter()
        .zip(endpoints_metadata())
        .map(|(at, metadata)| {
            let mut made = endpoint(*at);
            made["metadata"] = json!({"filter_metadata": {"envoy.lb": metadata}});
            made
        });
    made.collect()
}

fn selectors() -> Value {
    json!([
        {"keys": ["stage", "type"]},
        {"keys": ["version", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["version"]},
        {"keys": ["version"]},
        {"keys": ["version", "xlarge"], "fallback_policy": "NO_FALLBACK"},
        {"keys": ["type"], "fallback_policy": "ANY_ENDPOINT"},
        {"keys": ["xlarge"], "fallback_policy": "DEFAULT_SUBSET"},
    ])
}

fn criteria() -> Vec<Value> {
    vec![
        json!({"stage": "prod", "type": "std"}),
        json!({"stage": "prod", "type": "none"}),
        json!({"version": "1.0", "stage": "prod"}),
        json!({"version": "1.0", "stage": "none"}),
        json!({"version": "9", "stage": "none"}),
        json!({"version": "1.2-pre", "stage": "dev"}),
        json!({"version": "1.1"}),
        json!({"version": 1.0}),
        json!({"version": "1.0", "xlarge": true}),
        json!({"version": "1.0", "xlarge": "true"}),
        json!({"type": "bigmem"}),
        json!({"type": "none"}),
        json!({"xlarge": false}),
        json!({"color": "red"}),
        json!({"stage": "prod", "type": "std", "color": "red"}),
        json!({"version": ["1.2-pre", "1.0"]}),
        json!({}),
        json!({"version": "1.0", "fallback_list": [{"version": "7"}, {"version": "1.1"}]}),
        json!({"stage": "prod", "fallback_list": [{"type": "none"}, {"type": "bigmem"}]}),
        json!({"version": "1.1", "fallback_list": []}),
    ]
}

/// The endpoints that answer; `None` among them: none did.
fn chosen(side: &Side, path: &str) -> BTreeSet<Option<String>> {
    let ask = |_| {
        let seen = side.ask(&get(path, ""));
        assert!(matches!(seen.status, 200 | 503), "{seen:?}");
        header(&seen, "x-from")
    };
    (0..20).map(ask).collect()
}

/// Every criteria on every cluster; the sets of endpoints are the same. Returns them by cluster.
fn compare(clusters: &[(&str, Value)], criteria: &[Value]) -> Vec<Vec<BTreeSet<Option<String>>>> {
    let servers = upstreams(endpoints_metadata().len());
    let made = clusters.iter().map(|(name, more)| {
        let mut more = more.clone();
        // In turn, so that few requests meet all.
        more["lb_policy"] = more
            .get("lb_policy")
            .cloned()
            .unwrap_or("ROUND_ROBIN".into());
        if more.get("load_balancing_policy").is_some() {
            more.as_object_mut().unwrap().remove("lb_policy");
        }
        cluster(name, &[endpoints(&servers)], more)
    });
    let mut routes = Vec::new();
    for (name, _) in clusters {
        for (number, asked) in criteria.iter().enumerate() {
            let matching = json!({"metadata_match": {"filter_metadata": {"envoy.lb": asked}}});
            routes.push(route(&format!("/{name}/{number}/"), name, matching));
        }
        routes.push(route(&format!("/{name}/nothing/"), name, json!({})));
    }
    let pair = Setup::new(made.collect(), routes).start();
    let numbers = (0..criteria.len()).map(|n| n.to_string());
    let paths: Vec<String> = numbers.chain(["nothing".to_owned()]).collect();
    let of = |(name, _): &(&str, Value)| {
        let one = |part: &String| same(&pair, &format!("/{name}/{part}/"), criteria);
        paths.iter().map(one).collect()
    };
    clusters.iter().map(of).collect()
}

fn same(pair: &Pair, path: &str, criteria: &[Value]) -> BTreeSet<Option<String>> {
    let ours = chosen(&pair.ours, path);
    let stock = chosen(&pair.stock, path);
    let asked = path
        .split('/')
        .nth(2)
        .and_then(|n| criteria.get(n.parse::<usize>().ok()?));
    assert_eq!(ours, stock, "Anyam | Envoy, {path} {asked:?}");
    ours
}

fn subsets(more: Value) -> Value {
    let mut config = more;
    config["subset_selectors"] = selectors();
    json!({"lb_subset_config": config})
}

#[test]
fn criteria_choose_the_subsets_that_envoy_chooses() {
    let default = json!({"stage": "prod", "version": "1.0"});
    let clusters = [
        ("none", subsets(json!({}))),
        ("any", subsets(json!({"fallback_policy": "ANY_ENDPOINT"}))),
        (
            "default",
            subsets(json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": default})),
        ),
        (
            "nowhere",
            subsets(
                json!({"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "none"}}),
            ),
        ),
        (
            "panic",
            subsets(json!({
                "fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "none"}, "panic_mode_any": true,
            })),
        ),
        ("lists", subsets(json!({"list_as_any": true}))),
        (
            "variants",
            subsets(json!({"metadata_fallback_policy": "FALLBACK_LIST"})),
        ),
        ("plain", json!({})),
        (
            "no-selectors",
            json!({"lb_subset_config": {"fallback_policy": "NO_FALLBACK"}}),
        ),
    ];
    let found = compare(&clusters, &criteria());
    let sizes: BTreeSet<usize> = found.iter().flatten().map(BTreeSet::len).collect();
    assert!(sizes.len() > 3, "{sizes:?}");
    let nobody = BTreeSet::from([None]);
    assert!(found.iter().flatten().any(|set| *set == nobody));
}

#[test]
fn the_policy_of_subsets_does_what_the_field_does_and_takes_redundant_keys() {
    let typed = |more: Value| {
        let mut config = more;
        config["@type"] = format!("{POLICIES}.subset.v3.Subset").into();
        config["subset_selectors"] = selectors();
        let child = json!({"@type": format!("{POLICIES}.round_robin.v3.RoundRobin")});
        config["subset_lb_policy"] =
            json!({"policies": [{"typed_extension_config": {"name": "c", "typed_config": child}}]});
        json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "s", "typed_config": config}}]}})
    };
    let clusters = [
        ("typed", typed(json!({"fallback_policy": "ANY_ENDPOINT"}))),
        ("redundant", typed(json!({"allow_redundant_keys": true}))),
    ];
    compare(&clusters, &criteria());
}

/// What a weighted cluster asks adds to what its route asks.
#[test]
fn criteria_of_weighted_clusters_are_merged() {
    let servers = upstreams(endpoints_metadata().len());
    let app = cluster("app", &[endpoints(&servers)], subsets(json!({})));
    let asks = |fields: Value| json!({"filter_metadata": {"envoy.lb": fields}});
    let mut routes = Vec::new();
    for (number, (outer, own)) in [
        (json!({"version": "1.0"}), json!({"stage": "prod"})),
        (json!({"version": "1.0"}), json!({"version": "1.1"})),
        (json!({"version": "1.1"}), Value::Null),
        (Value::Null, json!({"version": "1.1"})),
        (json!({"version": "1.1"}), json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut entry = json!({"name": "app", "weight": 1});
        if !own.is_null() {
            entry["metadata_match"] = asks(own);
        }
        let mut action = json!({"weighted_clusters": {"clusters": [entry]}});
        if !outer.is_null() {
            action["metadata_match"] = asks(outer);
        }
        routes.push(json!({"match": {"prefix": format!("/{number}/")}, "route": action}));
    }
    let count = routes.len();
    let pair = Setup::new(vec![app], routes).start();
    let found = (0..count).map(|number| same(&pair, &format!("/{number}/"), &[]));
    let found: BTreeSet<_> = found.collect();
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn connections_choose_subsets_too() {
    let servers = upstreams(endpoints_metadata().len());
    let app = cluster("app", &[endpoints(&servers)], subsets(json!({})));
    let mut setup = Setup::new(vec![app], vec![route("/", "app", json!({}))]);
    let asks = json!({"filter_metadata": {"envoy.lb": {"version": "1.1"}}});
    setup.tcp = Some(("app", json!({"metadata_match": asks})));
    let pair = setup.start();
    for side in [&pair.ours, &pair.stock] {
        let ask = |_| {
            let tcp = std::net::TcpStream::connect(super::after(side.front())).unwrap();
            use std::io::Write;
            (&tcp).write_all(get("/", "").as_bytes()).unwrap();
            let mut reader = std::io::BufReader::new(tcp);
            let seen = crate::filters::side::answer(&mut reader, crate::filters::side::End::Framed);
            super::from(&seen)
        };
        let met: BTreeSet<String> = (0..20).map(ask).collect();
        let wanted = [servers[2], servers[3]].map(|at| at.to_string());
        assert_eq!(met, BTreeSet::from(wanted));
    }
}

/// Tables of each subset are Envoy's, and of localities with weights.
#[test]
fn hashes_choose_within_subsets_and_weighted_localities_as_in_envoy() {
    let servers = upstreams(7);
    let mut clusters = Vec::new();
    for policy in ["RING_HASH", "MAGLEV"] {
        let name = policy.to_ascii_lowercase();
        let more = json!({
            "lb_policy": policy,
            "lb_subset_config": {"subset_selectors": [{"keys": ["version"]}], "fallback_policy": "ANY_ENDPOINT"},
        });
        let metadata = servers.iter().enumerate().map(|(number, at)| {
            let mut made = endpoint(*at);
            let version = json!({"version": (number % 2).to_string()});
            made["metadata"] = json!({"filter_metadata": {"envoy.lb": version}});
            made
        });
        clusters.push(cluster(
            &format!("subset-{name}"),
            &[metadata.collect()],
            more,
        ));
        let more =
            json!({"lb_policy": policy, "common_lb_config": {"locality_weighted_lb_config": {}}});
        let mut weighted = cluster(&format!("weighted-{name}"), &[], more);
        let zone = |zone: &str, weight: u32, of: &[SocketAddr]| {
            let all: Vec<Value> = of.iter().map(|at| endpoint(*at)).collect();
            json!({"locality": {"region": "r", "zone": zone}, "load_balancing_weight": weight, "lb_endpoints": all})
        };
        let mut zones = [
            zone("b", 1, &servers[..2]),
            zone("a", 3, &servers[2..5]),
            zone("c", 2, &servers[5..]),
        ];
        zones[1]["lb_endpoints"][0]["health_status"] = "UNHEALTHY".into();
        weighted["load_assignment"]["endpoints"] = json!(zones);
        clusters.push(weighted);
    }
    let names: Vec<String> = clusters
        .iter()
        .map(|c| c["name"].as_str().unwrap().to_owned())
        .collect();
    let routes = names.iter().map(|name| {
        let asks = json!({"filter_metadata": {"envoy.lb": {"version": "1"}}});
        let more = json!({"hash_policy": super::by_user(), "metadata_match": asks});
        route(&format!("/{name}/"), name, more)
    });
    let pair = Setup::new(clusters.clone(), routes.collect()).start();
    for name in names {
        let ask = |number: usize| {
            let user = format!("x-user: user-{number}\r\n");
            pair.same(&get(&format!("/{name}/"), &user))
        };
        let met: BTreeSet<String> = (0..40).map(ask).collect();
        assert!(met.len() > 2, "{name}: {met:?}");
    }
}
