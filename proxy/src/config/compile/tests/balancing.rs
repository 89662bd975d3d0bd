//! Slow start, localities, zones and subsets.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::balancing::{
    LocalityPolicy, SelectorFallback, SlowStart, SubsetFallback, SubsetSettings, ZoneAware,
};
use crate::config::cluster::Discovery;

const API: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

/// A cluster with further fields.
fn with(more: &str) -> Result<Cluster, CompileError> {
    cluster(&format!(
        "{{name: c, type: STATIC, load_assignment: {{cluster_name: c}}, {more}}}"
    ))
}

/// `load_balancing_policy` of these configurations.
fn policies(configs: &[String]) -> String {
    let one = |config: &String| {
        format!("{{typed_extension_config: {{name: x, typed_config: {config}}}}}")
    };
    let all: Vec<String> = configs.iter().map(one).collect();
    format!("{{policies: [{}]}}", all.join(", "))
}

fn typed(kind: &str, more: &str) -> String {
    format!("{{\"@type\": {API}.{kind}{more}}}")
}

fn by_policy(configs: &[String]) -> Result<Cluster, CompileError> {
    with(&format!("load_balancing_policy: {}", policies(configs)))
}

#[test]
fn slow_start_in_both_forms() {
    let config = "slow_start_config: {slow_start_window: 10s, aggression: {default_value: 2, \
                  runtime_key: x}, min_weight_percent: {value: 5}}";
    let expected = SlowStart {
        window: Duration::from_secs(10),
        aggression: 2.0,
        min_weight: 0.05,
    };
    for cluster in [
        with(&format!("round_robin_lb_config: {{{config}}}")),
        with(&format!(
            "lb_policy: LEAST_REQUEST, least_request_lb_config: {{{config}}}"
        )),
        by_policy(&[typed("round_robin.v3.RoundRobin", &format!(", {config}"))]),
        by_policy(&[typed(
            "least_request.v3.LeastRequest",
            &format!(", {config}"),
        )]),
    ] {
        assert_eq!(cluster.unwrap().slow_start, Some(expected));
    }
    // Of another policy, of no length, with defaults.
    let cluster = with(&format!(
        "lb_policy: RANDOM, round_robin_lb_config: {{{config}}}"
    ));
    assert_eq!(cluster.unwrap().slow_start, None);
    assert_eq!(
        with("round_robin_lb_config: {slow_start_config: {}}")
            .unwrap()
            .slow_start,
        None
    );
    let short = with("round_robin_lb_config: {slow_start_config: {slow_start_window: 1s}}");
    let short = short.unwrap().slow_start.unwrap();
    assert_eq!((short.aggression, short.min_weight), (1.0, 0.1));
    for (field, value) in [
        ("aggression", "{default_value: 0, runtime_key: x}"),
        ("min_weight_percent", "{value: 101}"),
    ] {
        let error = with(&format!(
            "round_robin_lb_config: {{slow_start_config: {{{field}: {value}}}}}"
        ));
        let path = format!("round_robin_lb_config.slow_start_config.{field}");
        assert_eq!(error.err().unwrap().path, path);
    }
}

#[test]
fn localities_in_all_forms() {
    let zone = ZoneAware {
        routing_enabled: 50,
        min_cluster_size: 3,
        fail_traffic_on_panic: true,
        ..ZoneAware::default()
    };
    let fields = "routing_enabled: {value: 50}, min_cluster_size: 3, fail_traffic_on_panic: true";
    let weighted = "locality_weighted_lb_config: {}";
    let child = policies(&[typed("random.v3.Random", "")]);
    let forced = ZoneAware {
        force_local_zone: Some(1),
        by_weight: true,
        ..ZoneAware::default()
    };
    let typed_zone = |fields: &str| {
        let zone = format!(", locality_lb_config: {{zone_aware_lb_config: {{{fields}}}}}");
        by_policy(&[typed("random.v3.Random", &zone)])
    };
    for (cluster, expected) in [
        (
            with("connect_timeout: 1s"),
            LocalityPolicy::ZoneAware(ZoneAware::default()),
        ),
        (with("lb_policy: RING_HASH"), LocalityPolicy::Ignored),
        (
            with(&format!("common_lb_config: {{{weighted}}}")),
            LocalityPolicy::Weighted,
        ),
        (
            with(&format!(
                "lb_policy: MAGLEV, common_lb_config: {{{weighted}}}"
            )),
            LocalityPolicy::Weighted,
        ),
        (
            with(&format!(
                "common_lb_config: {{zone_aware_lb_config: {{{fields}}}}}"
            )),
            LocalityPolicy::ZoneAware(zone),
        ),
        (typed_zone(fields), LocalityPolicy::ZoneAware(zone)),
        (
            typed_zone("force_locality_direct_routing: true, locality_basis: HEALTHY_HOSTS_WEIGHT"),
            LocalityPolicy::ZoneAware(forced),
        ),
        (
            by_policy(&[typed("maglev.v3.Maglev", &format!(", {weighted}"))]),
            LocalityPolicy::Weighted,
        ),
        (
            by_policy(&[typed(
                "wrr_locality.v3.WrrLocality",
                &format!(", endpoint_picking_policy: {child}"),
            )]),
            LocalityPolicy::Weighted,
        ),
    ] {
        assert_eq!(cluster.unwrap().locality, expected);
    }
}

fn subsets(fields: &str) -> Result<Cluster, CompileError> {
    with(&format!("lb_subset_config: {{{fields}}}"))
}

#[test]
fn subsets_in_both_forms() {
    let fields = "fallback_policy: DEFAULT_SUBSET, default_subset: {a: b}, list_as_any: true, \
        panic_mode_any: true, locality_weight_aware: true, scale_locality_weight: true, \
        metadata_fallback_policy: FALLBACK_LIST, subset_selectors: [\
        {keys: [b, a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a]}, \
        {keys: [c, b, a], single_host_per_subset: true, fallback_policy: ANY_ENDPOINT}, {keys: []}]";
    let child = policies(&[typed("random.v3.Random", "")]);
    let of = |cluster: Result<Cluster, CompileError>| -> Arc<SubsetSettings> {
        cluster.unwrap().subsets.clone().unwrap()
    };
    let old = of(subsets(fields));
    let more = format!(", {fields}, subset_lb_policy: {child}");
    let new = by_policy(&[typed("subset.v3.Subset", &more)]);
    assert_eq!(new.as_ref().unwrap().lb, LbPolicy::Random);
    assert_eq!(of(new), old);
    let more = format!("{more}, allow_redundant_keys: true");
    let redundant = of(by_policy(&[typed("subset.v3.Subset", &more)]));
    assert_eq!(old.selectors[0].keys.len(), 2);
    assert_eq!(redundant.selectors[0].keys.len(), 3);
    assert_eq!(old.selectors.len(), 2);
    let keys = SelectorFallback::Keys(vec!["a".into()]);
    assert_eq!(old.selectors[0].fallback, Some(keys));
    assert!(old.selectors[1].single_host && old.metadata_fallback && old.panic_mode_any);
    assert_eq!(
        (old.fallback, old.default_subset.len()),
        (SubsetFallback::DefaultSubset, 1)
    );
    assert!(
        subsets("fallback_policy: ANY_ENDPOINT")
            .unwrap()
            .subsets
            .is_none()
    );
    for selector in [
        "{keys: [a, b], fallback_policy: KEYS_SUBSET}",
        "{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a, b]}",
        "{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [c]}",
        "{keys: [a, b], fallback_keys_subset: [a]}",
    ] {
        let error = subsets(&format!("subset_selectors: [{selector}]"))
            .err()
            .unwrap();
        let path = "lb_subset_config.subset_selectors[0].fallback_keys_subset";
        assert_eq!(error.path, path, "{selector}");
    }
}

#[test]
fn the_first_policy_that_is_known_is_taken() {
    let unknown = typed(
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "",
    );
    let random = typed("random.v3.Random", "");
    let cluster = by_policy(&[
        unknown.clone(),
        random.clone(),
        typed("maglev.v3.Maglev", ""),
    ]);
    assert_eq!(cluster.unwrap().lb, LbPolicy::Random);
    // Within another policy too.
    let child = policies(&[unknown.clone(), random.clone()]);
    let more = format!(", endpoint_picking_policy: {child}");
    let cluster = by_policy(&[typed("wrr_locality.v3.WrrLocality", &more)]);
    assert_eq!(cluster.unwrap().lb, LbPolicy::Random);
    assert!(
        by_policy(&[unknown])
            .err()
            .unwrap()
            .why
            .contains("not supported")
    );
    // Neither endlessly nor beside what it replaces.
    let mut nested = random.clone();
    for _ in 0..6 {
        let more = format!(", endpoint_picking_policy: {}", policies(&[nested]));
        nested = typed("wrr_locality.v3.WrrLocality", &more);
    }
    assert!(by_policy(&[nested]).err().unwrap().why.contains("too deep"));
    for field in [
        "lb_subset_config: {subset_selectors: [{keys: [a]}]}",
        "common_lb_config: {locality_weighted_lb_config: {}}",
        "common_lb_config: {consistent_hashing_lb_config: {}}",
    ] {
        let policy = policies(std::slice::from_ref(&random));
        let error = with(&format!("{field}, load_balancing_policy: {policy}"))
            .err()
            .unwrap();
        assert!(error.why.contains("cannot be combined"), "{error}");
    }
}

#[test]
fn endpoints_have_metadata_and_weights_of_localities() {
    let endpoint = |lb: &str| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: 1}}}}}}, \
             metadata: {{filter_metadata: {{envoy.lb: {lb}}}}}}}"
        )
    };
    let cluster = cluster(&format!(
        "{{name: c, type: STATIC, load_assignment: {{cluster_name: c, \
         policy: {{weighted_priority_health: true}}, endpoints: [\
         {{locality: {{zone: a}}, load_balancing_weight: 3, lb_endpoints: [{}, {}]}}, \
         {{load_balancing_weight: 3, lb_endpoints: [{}]}}]}}}}",
        endpoint("{b: 1, a: x}"),
        endpoint("{a: x, b: 1}"),
        endpoint("{}"),
    ));
    let cluster = cluster.unwrap();
    let Discovery::Static { hosts, policy } = &cluster.discovery else {
        panic!("static");
    };
    assert!(policy.weighted_priority_health && policy.overprovisioning == 140);
    // The weight of no locality is none.
    assert_eq!(
        hosts.iter().map(|h| h.locality_weight).collect::<Vec<_>>(),
        [3, 3, 0]
    );
    let [Some(one), Some(same), None] = [0, 1, 2].map(|at| hosts[at].lb_metadata.clone()) else {
        panic!("two have metadata");
    };
    assert!(Arc::ptr_eq(&one, &same) && &*one[0].0 == "a");
}

#[test]
fn criteria_of_routes_and_their_clusters() {
    let asks =
        |fields: &str| format!("metadata_match: {{filter_metadata: {{envoy.lb: {fields}}}}}");
    let routes = routes(&format!(
        "{{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{\
         weighted_clusters: {{clusters: [{{name: a, weight: 1, {}}}, {{name: b, weight: 1}}]}}, {}}}}}]}}]}}",
        asks("{v: '2', w: '1'}"),
        asks("{v: '1'}"),
    ));
    let routes = routes.unwrap();
    let Action::Forward(forward) = &routes.table.virtual_hosts[0].routes[0].action else {
        panic!("forward");
    };
    let ClusterSpecifier::Weighted { clusters, .. } = &forward.target else {
        panic!("weighted");
    };
    assert_eq!(forward.subset.as_ref().unwrap().pairs.len(), 1);
    assert_eq!(clusters[0].subset.as_ref().unwrap().pairs.len(), 2);
    assert!(clusters[1].subset.is_none());
}
