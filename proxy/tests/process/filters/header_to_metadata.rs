//! Dynamic metadata by headers and cookies.

use serde_json::{Value, json};

use super::{Scenario, filter, get, route, route_with, typed};

const KIND: &str = "header_to_metadata.v3.Config";

fn config() -> Value {
    let to = |key: &str, more: Value| {
        let mut to = json!({"metadata_namespace": "seen", "key": key});
        for (field, value) in more.as_object().unwrap() {
            to[field] = value.clone();
        }
        to
    };
    let present = |header: &str, more: Value| json!({"header": header, "on_header_present": to(header, more)});
    json!({
        "request_rules": [
            {"header": "x-text", "on_header_present": to("text", json!({})),
             "on_header_missing": to("text", json!({"value": "none"}))},
            {"header": "x-fixed", "on_header_present": to("fixed", json!({"value": "there"})), "remove": true},
            present("x-number", json!({"type": "NUMBER"})),
            present("x-base64", json!({"encode": "BASE64"})),
            present("x-base64-number", json!({"encode": "BASE64", "type": "NUMBER"})),
            {"header": "x-rewrite", "remove": true, "on_header_present": to("rewrite", json!({
                "regex_value_rewrite": {"pattern": {"regex": "^/(cluster[0-9]+)/.*$"}, "substitution": "\\1"},
            }))},
            {"cookie": "sort", "on_header_present": to("cookie", json!({})),
             "on_header_missing": to("cookie", json!({"value": "no cookie"}))},
            {"header": "x-gone", "on_header_missing": to("gone", json!({"value": "5", "type": "NUMBER"}))},
        ],
        "response_rules": [
            {"header": "x-from", "on_header_present": to("from", json!({})), "remove": true},
            {"header": "x-none", "on_header_missing": to("none", json!({"value": "of the response"}))},
        ],
    })
}

#[test]
fn metadata_is_set_by_headers_and_cookies() {
    let of_route = typed(
        KIND,
        json!({"request_rules": [
            {"header": "x-text", "on_header_present": {"metadata_namespace": "seen", "key": "own"}},
        ]}),
    );
    let routes = json!([route_with("/own", json!({"meta": of_route})), route("/")]);
    let filters = json!([filter("meta", KIND, config())]);
    let mut asks = Vec::new();
    for headers in [
        "",
        "x-text: a\r\n",
        "x-text: a\r\nx-text: b\r\n",
        "x-text: \r\n",
        "x-fixed: a\r\nx-fixed: b\r\n",
        "x-number: 1.5\r\n",
        "x-number:  -3 \r\n",
        "x-number: 1e3\r\n",
        "x-number: x\r\n",
        "x-number: .5\r\n",
        "x-number: +5\r\n",
        "x-base64: aGVsbG9=\r\n",
        "x-base64: aGVsbG8=\r\n",
        "x-base64: aGVsbG8\r\n",
        "x-base64: !\r\n",
        "x-base64-number: MTI=\r\n",
        "x-rewrite: /cluster12/x\r\n",
        "x-rewrite: else\r\n",
        "cookie: a=b; sort=up\r\n",
        "cookie: sort=\"up\"\r\n",
        "cookie: sort=\r\n",
        "x-gone: not\r\n",
    ] {
        asks.push((get("/", headers), 200));
        asks.push((get("/own", headers), 200));
    }
    asks.push((get("/", &format!("x-text: {}\r\n", "a".repeat(9000))), 200));
    asks.push((get("/", &format!("x-text: {}\r\n", "a".repeat(8000))), 200));
    Scenario::with_routes(filters, routes).compare(&asks);
}
