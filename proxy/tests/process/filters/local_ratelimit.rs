//! Local rate limits.

use serde_json::{Value, json};

use super::side::Side;
use super::upstream::Reflector;
use super::{Scenario, ask, filter, get, route, route_with, typed};

const KIND: &str = "local_ratelimit.v3.LocalRateLimit";

/// So many tokens, and another one in ten minutes.
fn bucket(tokens: u32) -> Value {
    json!({"max_tokens": tokens, "tokens_per_fill": 1, "fill_interval": "600s"})
}

fn always() -> Value {
    json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}})
}

/// An enforced limit that shows in headers, with these fields.
fn limit(fields: Value) -> Value {
    let mut config = json!({
        "stat_prefix": "limit",
        "filter_enabled": always(),
        "filter_enforced": always(),
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
    });
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn own(fields: Value) -> Value {
    json!([filter("limit", KIND, limit(fields))])
}

fn descriptor(entries: &[(&str, &str)], tokens: u32) -> Value {
    let entry = |(key, value): &(&str, &str)| json!({"key": key, "value": value});
    let entries: Vec<_> = entries.iter().map(entry).collect();
    json!({"entries": entries, "token_bucket": bucket(tokens)})
}

fn generic(value: &str) -> Value {
    json!({"actions": [{"generic_key": {"descriptor_value": value}}]})
}

fn by_user(skip: bool) -> Value {
    json!({"request_headers": {
        "header_name": "x-user",
        "descriptor_key": "user",
        "skip_if_absent": skip,
    }})
}

/// `filters` before a route with these rate limits.
fn limited(filters: Value, rate_limits: Value) -> Scenario {
    let mut all = route("/");
    all["route"]["rate_limits"] = rate_limits;
    Scenario::with_routes(filters, json!([all]))
}

fn asks(rows: &[(&str, u16)]) -> Vec<(String, u16)> {
    let row = |(headers, status): &(&str, u16)| (get("/?p=1", headers), *status);
    rows.iter().map(row).collect()
}

#[test]
fn a_bucket_runs_dry() {
    let call = ask("POST", "/", "content-type: application/grpc\r\n");
    let add = json!([{"header": {"key": "x-limit", "value": "%REQ(:PATH)%"}}]);
    Scenario::new(own(json!({"token_bucket": bucket(2)}))).compare(&[
        (get("/", ""), 200),
        (get("/", ""), 200),
        (get("/", ""), 429),
        (call.clone(), 200),
    ]);
    Scenario::new(own(json!({
        "token_bucket": bucket(1),
        "status": {"code": 503},
        "rate_limited_as_resource_exhausted": true,
        "response_headers_to_add": add,
        "enable_retry_after_header": true,
    })))
    .compare(&[(get("/", ""), 200), (get("/", ""), 503), (call, 200)]);
    Scenario::new(own(json!({
        "token_bucket": bucket(1),
        "status": {"code": 200},
        "enable_retry_after_header": true,
    })))
    .compare(&[(get("/", ""), 200), (get("/", ""), 429)]);
    Scenario::new(own(json!({"token_bucket": bucket(0)}))).compare(&[(get("/", ""), 429)]);
}

#[test]
fn what_is_not_enforced_is_marked_and_what_is_not_enabled_is_not_counted() {
    let never = json!({"default_value": {"numerator": 0}});
    let add = json!([{"header": {"key": "x-limit", "value": "over"}}]);
    Scenario::new(own(json!({
        "token_bucket": bucket(1),
        "filter_enforced": never,
        "request_headers_to_add_when_not_enforced": add,
    })))
    .compare(&[(get("/", ""), 200), (get("/", ""), 200)]);
    Scenario::new(own(
        json!({"token_bucket": bucket(1), "filter_enabled": never}),
    ))
    .compare(&[(get("/", ""), 200), (get("/", ""), 200)]);
    Scenario::new(own(json!({}))).compare(&[(get("/", ""), 200), (get("/", ""), 200)]);
}

#[test]
fn descriptors_have_buckets_of_their_own() {
    let users = json!([
        descriptor(&[("user", "a")], 1),
        descriptor(&[("user", "b")], 2)
    ]);
    let (a, b, c) = ("x-user: a\r\n", "x-user: b\r\n", "x-user: c\r\n");
    let fields = json!({"token_bucket": bucket(10), "descriptors": users});
    limited(own(fields), json!([{"actions": [by_user(false)]}])).compare(&asks(&[
        (a, 200),
        (a, 429),
        (b, 200),
        (c, 200),
        ("", 200),
    ]));
    let fields = json!({
        "token_bucket": bucket(1),
        "descriptors": users,
        "always_consume_default_token_bucket": false,
    });
    limited(own(fields), json!([{"actions": [by_user(false)]}])).compare(&asks(&[
        (b, 200),
        (b, 200),
        (b, 429),
        ("", 200),
        ("", 429),
    ]));
    // The strictest bucket that matches is used first, the default one last.
    let slow = json!({"max_tokens": 2, "tokens_per_fill": 1, "fill_interval": "6000s"});
    let mut strict = descriptor(&[("generic_key", "g")], 2);
    strict["token_bucket"] = slow;
    let fields = json!({
        "token_bucket": bucket(3),
        "descriptors": [descriptor(&[("user", "a")], 5), strict],
    });
    limited(
        own(fields),
        json!([{"actions": [by_user(false)]}, generic("g")]),
    )
    .compare(&asks(&[(a, 200), (a, 200), (a, 429), (c, 429), ("", 429)]));
    let mut shadow = descriptor(&[("user", "a")], 1);
    shadow["shadow_mode"] = true.into();
    let fields = json!({"token_bucket": bucket(10), "descriptors": [shadow]});
    limited(own(fields), json!([{"actions": [by_user(false)]}]))
        .compare(&asks(&[(a, 200), (a, 200)]));
}

#[test]
fn actions_describe_a_request() {
    let host = json!([{"name": "host"}]);
    let absent = json!([{"name": "x-nothing"}]);
    let parameter = json!([{"name": "p", "string_match": {"exact": "1"}}]);
    let actions = json!([
        {"remote_address": {}},
        {"masked_remote_address": {"v4_prefix_mask_len": 8}},
        {"destination_cluster": {}},
        {"header_value_match": {"descriptor_value": "yes", "headers": host}},
        {"header_value_match": {
            "descriptor_key": "no", "descriptor_value": "no",
            "headers": absent, "expect_match": false,
        }},
        {"query_parameter_value_match": {
            "descriptor_value": "one", "query_parameters": parameter,
        }},
        {"query_parameters": {"query_parameter_name": "p", "descriptor_key": "p"}},
        {"generic_key": {"descriptor_key": "k", "descriptor_value": "v"}},
        by_user(true),
    ]);
    let entries = [
        ("remote_address", "127.0.0.1"),
        ("masked_remote_address", "127.0.0.0/8"),
        ("destination_cluster", "app"),
        ("header_match", "yes"),
        ("no", "no"),
        ("query_match", "one"),
        ("p", "1"),
        ("k", "v"),
    ];
    let fields = json!({"token_bucket": bucket(10), "descriptors": [descriptor(&entries, 1)]});
    limited(own(fields), json!([{"actions": actions}])).compare(&asks(&[
        ("", 200),
        ("", 429),
        ("x-user: a\r\n", 200),
    ]));
}

#[test]
fn stages_and_levels_choose_what_describes_a_request() {
    let descriptors = json!([
        descriptor(&[("generic_key", "route")], 3),
        descriptor(&[("generic_key", "host")], 2),
    ]);
    for (how, with_route, statuses) in [
        ("OVERRIDE", false, [200, 200, 429, 429]),
        ("OVERRIDE", true, [200, 200, 200, 429]),
        ("INCLUDE", false, [200, 200, 429, 429]),
        ("INCLUDE", true, [200, 200, 429, 429]),
        ("IGNORE", false, [200, 200, 200, 200]),
        ("IGNORE", true, [200, 200, 200, 429]),
    ] {
        let fields = json!({
            "token_bucket": bucket(10),
            "vh_rate_limits": how,
            "descriptors": descriptors,
        });
        let mut scenario = match with_route {
            true => limited(own(fields), json!([generic("route")])),
            false => Scenario::new(own(fields)),
        };
        scenario.virtual_hosts[0]["rate_limits"] = json!([generic("host")]);
        scenario.compare(&asks(&statuses.map(|status| ("", status))));
    }
    let mut later = generic("host");
    later["stage"] = 1.into();
    let fields = json!({"token_bucket": bucket(10), "stage": 1, "descriptors": descriptors});
    limited(own(fields), json!([generic("route"), later])).compare(&asks(&[
        ("", 200),
        ("", 200),
        ("", 429),
    ]));
    let fields = json!({
        "token_bucket": bucket(10),
        "descriptors": descriptors,
        "rate_limits": [generic("host")],
    });
    limited(own(fields), json!([generic("route")])).compare(&asks(&[
        ("", 200),
        ("", 200),
        ("", 429),
    ]));
}

#[test]
fn a_route_has_a_bucket_of_its_own() {
    let of_route = typed(KIND, limit(json!({"token_bucket": bucket(1)})));
    let routes = json!([route_with("/own", json!({"limit": of_route})), route("/")]);
    Scenario::with_routes(own(json!({})), routes).compare(&[
        (get("/own", ""), 200),
        (get("/own", ""), 429),
        (get("/", ""), 200),
    ]);
}

#[test]
fn a_connection_has_a_bucket_of_its_own() {
    let scenario = Scenario::new(own(json!({
        "token_bucket": bucket(2),
        "local_rate_limit_per_downstream_connection": true,
    })));
    let upstream = Reflector::start();
    for side in [
        Side::anyam(&scenario, upstream.address),
        Side::envoy(&scenario, upstream.address),
    ] {
        let three = [get("/", ""), get("/", ""), get("/", "")];
        for _ in 0..2 {
            assert_eq!(side.statuses(&three), [200, 200, 429]);
        }
    }
}
