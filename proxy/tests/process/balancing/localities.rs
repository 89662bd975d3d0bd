//! Localities by their weights.

use serde_json::{Value, json};

use super::POLICIES;
use super::shares::{DRAWING, case, compare, zone};

#[test]
fn localities_share_by_weight_as_in_envoy() {
    let by_weight = json!({"locality_weighted_lb_config": {}});
    let mut cases = Vec::new();
    for policy in DRAWING {
        let old = json!({"lb_policy": policy, "common_lb_config": by_weight});
        let name = |what: &str| format!("{what}-{}", policy.to_lowercase());
        let mut add = |what: &str, groups, shares: &[f64]| {
            cases.push(case(&name(what), groups, old.clone(), shares));
        };
        add(
            "plain",
            vec![zone("a", 1, 2, 0), zone("b", 2, 1, 0), zone("c", 5, 3, 0)],
            &[0.125, 0.25, 0.625],
        );
        // b is available to 70 %: 30, 42 and 10 of 82.
        add(
            "sick",
            vec![
                zone("a", 30, 3, 0),
                zone("b", 60, 2, 2),
                zone("c", 10, 2, 0),
            ],
            &[30.0 / 82.0, 42.0 / 82.0, 10.0 / 82.0],
        );
        add(
            "unweighted",
            vec![zone("a", 0, 2, 0), zone("b", 4, 1, 0)],
            &[0.0, 1.0],
        );
        add(
            "no-weights",
            vec![zone("a", 0, 3, 0), zone("b", 0, 1, 0)],
            &[0.75, 0.25],
        );
        add(
            "panic",
            vec![zone("a", 1, 1, 3), zone("b", 9, 0, 4)],
            &[0.5, 0.5],
        );
        let mut second = zone("b", 3, 2, 0);
        second.priority = 1;
        let mut third = zone("c", 1, 2, 0);
        third.priority = 1;
        add(
            "spilt",
            vec![zone("a", 1, 1, 1), second, third],
            &[0.7, 0.225, 0.075],
        );
    }
    let typed = |kind: &str, config: Value| {
        let mut config = config;
        config["@type"] = format!("{}.{kind}", POLICIES).into();
        json!({"load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "x", "typed_config": config}}]}})
    };
    let locality = json!({"locality_lb_config": {"locality_weighted_lb_config": {}}});
    cases.push(case(
        "typed",
        vec![zone("a", 1, 2, 0), zone("b", 3, 1, 0)],
        typed("random.v3.Random", locality),
        &[0.25, 0.75],
    ));
    compare(&cases, (Vec::new(), json!({})));
}
