//! Zone-aware routing, beside a local cluster.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::shares::{Case, DRAWING, Group, case, compare, zone};
use super::{POLICIES, Setup, cluster, endpoint, get, route, upstreams};

/// The local cluster: how many of its endpoints are in each zone. Nothing listens there.
fn local(zones: &[(&str, usize)]) -> (Vec<Value>, Value) {
    let mut port = 1;
    let endpoints = zones.iter().map(|(zone, number)| {
        let all: Vec<Value> = (0..*number)
            .map(|_| {
                port += 1;
                endpoint(SocketAddr::from(([127, 0, 0, 1], port)))
            })
            .collect();
        json!({"locality": {"region": "r", "zone": zone}, "lb_endpoints": all})
    });
    let endpoints: Vec<Value> = endpoints.collect();
    let mut local = cluster("local", &[], json!({}));
    local["load_assignment"]["endpoints"] = endpoints.into();
    let more = json!({
        "node": {"id": "n", "cluster": "c", "locality": {"region": "r", "zone": "a"}},
        "cluster_manager": {"local_cluster_name": "local"},
    });
    (vec![local], more)
}

fn zone_cases() -> Vec<Case> {
    let small = |more: Value| {
        let mut zone = more;
        zone["min_cluster_size"] = 1.into();
        json!({"common_lb_config": {"zone_aware_lb_config": zone}})
    };
    let mut cases = Vec::new();
    for policy in DRAWING {
        let mut add = |what: &str, groups, more: Value, shares: &[f64]| {
            let mut more = more;
            more["lb_policy"] = policy.into();
            cases.push(case(
                &format!("{what}-{}", policy.to_lowercase()),
                groups,
                more,
                shares,
            ));
        };
        let zones = |a, b, c| vec![zone("a", 0, a, 0), zone("b", 0, b, 0), zone("c", 0, c, 0)];
        // The local cluster has 40 %, 40 % and 20 % of its endpoints in a, b and c.
        add("direct", zones(4, 4, 2), json!({}), &[1.0, 0.0, 0.0]);
        add("residual", zones(2, 4, 2), json!({}), &[0.625, 0.25, 0.125]);
        add("too-small", zones(1, 2, 1), json!({}), &[0.25, 0.5, 0.25]);
        add(
            "smaller",
            zones(1, 2, 1),
            small(json!({})),
            &[0.625, 0.25, 0.125],
        );
        add("absent", zones(0, 4, 4), json!({}), &[]);
        add(
            "half",
            zones(4, 4, 2),
            small(json!({"routing_enabled": {"value": 50}})),
            &[0.7, 0.2, 0.1],
        );
        let mut second = zone("b", 0, 6, 0);
        second.priority = 1;
        add(
            "second",
            vec![zone("a", 0, 2, 2), zone("b", 0, 2, 2), second],
            small(json!({})),
            &[],
        );
        add(
            "sick",
            vec![zone("a", 0, 4, 2), zone("b", 0, 3, 0), zone("c", 0, 3, 0)],
            json!({}),
            &[],
        );
        add(
            "panic",
            vec![zone("a", 0, 1, 3), zone("b", 0, 2, 6)],
            small(json!({})),
            &[1.0 / 3.0, 2.0 / 3.0],
        );
    }
    cases
}

#[test]
fn zones_keep_their_requests_as_in_envoy() {
    let (clusters, more) = local(&[("a", 4), ("b", 4), ("c", 2)]);
    compare(&zone_cases(), (clusters, more));
}

/// `force_local_zone` and `locality_basis` are fields of the policies alone.
#[test]
fn zones_are_forced_and_weighed_as_in_envoy() {
    let typed = |zone: Value| {
        let config = json!({
            "@type": format!("{}.round_robin.v3.RoundRobin", POLICIES),
            "locality_lb_config": {"zone_aware_lb_config": zone},
        });
        json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "x", "typed_config": config}}]}})
    };
    let heavy = |name, weight, healthy| Group {
        weight,
        ..zone(name, 0, healthy, 0)
    };
    let cases = [
        case(
            "forced",
            vec![zone("a", 0, 2, 0), zone("b", 0, 8, 0)],
            typed(json!({"force_local_zone": {"min_size": 2}})),
            &[1.0, 0.0],
        ),
        case(
            "not-forced",
            vec![zone("a", 0, 1, 0), zone("b", 0, 8, 0)],
            typed(json!({"force_local_zone": {"min_size": 2}})),
            &[],
        ),
        case(
            "older",
            vec![zone("a", 0, 1, 0), zone("b", 0, 8, 0)],
            typed(json!({"force_locality_direct_routing": true})),
            &[1.0, 0.0],
        ),
        case(
            "weighed",
            vec![heavy("a", 9, 2), heavy("b", 1, 6)],
            typed(json!({"locality_basis": "HEALTHY_HOSTS_WEIGHT"})),
            &[1.0, 0.0],
        ),
        case(
            "numbered",
            vec![heavy("a", 9, 2), heavy("b", 1, 6)],
            typed(json!({})),
            &[0.5, 0.5],
        ),
    ];
    let (clusters, more) = local(&[("a", 1), ("b", 1)]);
    compare(&cases, (clusters, more));
}

/// A local cluster that does not say where the proxy is, or has too few zones, changes nothing.
#[test]
fn a_local_cluster_may_be_of_no_use() {
    for zones in [&[("b", 2), ("c", 2)][..], &[("a", 2)]] {
        let groups = vec![zone("a", 0, 4, 0), zone("b", 0, 4, 0)];
        let cases = [case("spread", groups, json!({}), &[0.5, 0.5])];
        compare(&cases, local(zones));
    }
}

/// In panic, requests can fail instead of going to all.
#[test]
fn requests_fail_in_panic_where_that_is_wanted() {
    let more =
        json!({"common_lb_config": {"zone_aware_lb_config": {"fail_traffic_on_panic": true}}});
    let case = case("fails", vec![zone("a", 0, 1, 3)], more, &[]);
    let (made, _) = case.cluster(&upstreams(4));
    let pair = Setup::new(vec![made], vec![route("/", "fails", json!({}))]).start();
    let [ours, stock] = pair.ask(&get("/", ""));
    assert_eq!((ours.status, stock.status), (503, 503));
}
