//! Which filters run, and by which configuration.

use serde_json::{Value, json};

use super::{Scenario, filter, get, route, route_with, typed};

/// A filter that marks requests and responses.
fn mark(name: &str) -> Value {
    filter(
        name,
        "header_mutation.v3.HeaderMutation",
        json!({"mutations": marks(name)}),
    )
}

fn marks(value: &str) -> Value {
    let add = json!([{"append": {"header": {"key": "x-mark", "value": value}}}]);
    json!({"request_mutations": add, "response_mutations": add})
}

fn of_route(value: &str) -> Value {
    typed(
        "header_mutation.v3.HeaderMutationPerRoute",
        json!({"mutations": marks(value)}),
    )
}

fn rbac(policy: &str, action: &str) -> Value {
    let any = json!([{"any": true}]);
    let policy = json!({policy: {"permissions": any, "principals": any}});
    json!({"rules": {"action": action, "policies": policy}})
}

fn disabled() -> Value {
    json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": true})
}

#[test]
fn requests_pass_in_order_and_responses_in_reverse() {
    let direct = json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 418}});
    let redirect = json!({"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/x"}});
    let routes = json!([direct, redirect, route("/up")]);
    Scenario::with_routes(
        json!([mark("first"), mark("second"), mark("third")]),
        routes,
    )
    .compare(&[
        (get("/up", ""), 200),
        // Responses that are made here pass the filters too.
        (get("/direct", ""), 418),
        (get("/redirect", ""), 301),
        (get("/elsewhere", ""), 404),
    ]);
}

/// What filters leave behind chooses no route: each is chosen before they run, and kept.
#[test]
fn a_route_stays_as_it_was_chosen_before_the_filters() {
    let delay = json!({
        "delay": {"fixed_delay": "0.001s", "percentage": {"numerator": 100}},
        "filter_metadata": {"text": "some text"},
    });
    let of_metadata = |invert: bool, status: u16| {
        let text = json!({"filter": "fault", "path": [{"key": "text"}], "value": {"present_match": true}, "invert": invert});
        json!({
            "match": {"prefix": "/metadata", "dynamic_metadata": [text]},
            "direct_response": {"status": status},
        })
    };
    let of_mark = json!({
        "match": {"prefix": "/", "headers": [{"name": "x-mark", "present_match": true}]},
        "direct_response": {"status": 420},
    });
    let routes = json!([
        of_metadata(false, 418),
        of_metadata(true, 419),
        of_mark,
        route("/"),
    ]);
    let fault = filter("fault", "fault.v3.HTTPFault", delay);
    Scenario::with_routes(json!([fault, mark("m")]), routes)
        .compare(&[(get("/metadata", ""), 419), (get("/other", ""), 200)]);
}

#[test]
fn rules_hold_without_a_route_too() {
    let deny = filter("rbac", "rbac.v3.RBAC", rbac("nobody", "DENY"));
    Scenario::with_routes(json!([deny, mark("m")]), json!([route("/up")]))
        .compare(&[(get("/up", ""), 403), (get("/elsewhere", ""), 403)]);
}

#[test]
fn routes_switch_filters_off_and_on_and_put_others_in_their_place() {
    let mut off = mark("off");
    off["disabled"] = true.into();
    let deny = filter("rbac", "rbac.v3.RBAC", rbac("nobody", "DENY"));
    let allow = typed(
        "rbac.v3.RBACPerRoute",
        json!({"rbac": rbac("everybody", "ALLOW")}),
    );
    let wrapped = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "config": typed("rbac.v3.RBACPerRoute", json!({"rbac": rbac("wrapped", "DENY")})),
    });
    let host = json!({
        "name": "all",
        "domains": ["*"],
        "typed_per_filter_config": {"rbac": disabled()},
        "routes": [
            route_with("/own", json!({"rbac": allow})),
            route_with("/deny", json!({"rbac": wrapped})),
            route_with("/on", json!({"off": of_route("route")})),
            route_with("/no-mark", json!({"on": disabled()})),
            route("/"),
        ],
    });
    Scenario::with_host(json!([deny, off, mark("on")]), host).compare(&[
        (get("/", ""), 200),
        (get("/own", ""), 200),
        (get("/deny", ""), 403),
        (get("/on", ""), 200),
        (get("/no-mark", ""), 200),
    ]);
}

#[test]
fn a_weighted_cluster_says_more_than_its_route() {
    let cluster = |name: &str, weight: u32, of_filters: Value| json!({"name": name, "weight": weight, "typed_per_filter_config": of_filters});
    let weighted = json!({"weighted_clusters": {"clusters": [
        cluster("other", 0, json!({"rbac": disabled(), "m": of_route("other")})),
        cluster("app", 1, json!({"rbac": disabled(), "m": of_route("app")})),
    ]}});
    let mut by_weight = json!({"match": {"prefix": "/w"}, "route": weighted});
    by_weight["typed_per_filter_config"] = json!({"m": of_route("route")});
    let deny = filter("rbac", "rbac.v3.RBAC", rbac("nobody", "DENY"));
    Scenario::with_routes(json!([deny, mark("m")]), json!([by_weight, route("/")]))
        .compare(&[(get("/w", ""), 200), (get("/", ""), 403)]);
}
