//! Cross-origin resource sharing.

use serde_json::{Value, json};

use super::{Scenario, ask, filter, get, route, route_with, typed};

fn policy(config: Value) -> Value {
    json!({"cors": typed("cors.v3.CorsPolicy", config)})
}

#[test]
fn origins_and_preflight_requests_by_policy() {
    let origins = json!([{"exact": "http://shop"}, {"prefix": "http://part."}]);
    let never = json!({"default_value": {"numerator": 0}});
    let always = json!({"default_value": {"numerator": 100}});
    let host = json!({
        "name": "all",
        "domains": ["*"],
        "response_headers_to_add": [{"header": {"key": "x-edit", "value": "made"}}],
        "typed_per_filter_config": policy(json!({
            "allow_origin_string_match": origins,
            "allow_methods": "GET, PUT",
            "allow_headers": "x-a",
            "expose_headers": "x-e",
            "max_age": "600",
            "allow_credentials": true,
            "allow_private_network_access": true,
        })),
        "routes": [
            route_with("/partial", policy(json!({"allow_methods": "POST"}))),
            route_with("/other", policy(json!({
                "allow_origin_string_match": [{"exact": "http://other"}],
                "allow_credentials": false,
            }))),
            route_with("/off", policy(json!({"filter_enabled": never}))),
            route_with("/shadow", policy(json!({
                "filter_enabled": never,
                "shadow_enabled": always,
            }))),
            route_with("/strict", policy(json!({"forward_not_matching_preflights": false}))),
            route_with("/any", policy(json!({"allow_origin_string_match": [{"exact": "*"}]}))),
            route_with("/whatever", policy(json!({"allow_methods": "*", "allow_headers": "*"}))),
            json!({"match": {"prefix": "/direct"}, "direct_response": {"status": 200}}),
            route("/"),
        ],
    });
    let cors = filter("cors", "cors.v3.Cors", json!({}));
    let wants = "access-control-request-method: PUT\r\n\
        access-control-request-headers: x-b, x-c\r\n\
        access-control-request-private-network: true\r\n";
    let mut asks = Vec::new();
    for path in [
        "/",
        "/partial",
        "/other",
        "/off",
        "/shadow",
        "/strict",
        "/any",
        "/whatever",
        "/direct",
    ] {
        for origin in [
            "origin: http://shop\r\n",
            "origin: http://part.shop\r\n",
            "origin: http://other\r\n",
            "origin: HTTP://SHOP\r\n",
            "origin: \r\n",
            "",
        ] {
            asks.push((get(path, origin), 200));
            asks.push((ask("OPTIONS", path, &format!("{origin}{wants}")), 200));
        }
    }
    asks.push((ask("OPTIONS", "/", "origin: http://shop\r\n"), 200));
    Scenario::with_host(json!([cors]), host).compare(&asks);
}
