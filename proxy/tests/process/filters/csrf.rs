//! Cross-site request forgery.

use serde_json::{Value, json};

use super::{Scenario, ask, filter, route, route_with, typed};

const KIND: &str = "csrf.v3.CsrfPolicy";

fn share(of_hundred: u32) -> Value {
    json!({"default_value": {"numerator": of_hundred, "denominator": "HUNDRED"}})
}

#[test]
fn requests_that_change_something_come_from_their_own_pages() {
    let own = json!({
        "filter_enabled": share(100),
        "additional_origins": [{"exact": "part"}, {"safe_regex": {"regex": "x[0-9]+:8080"}}],
    });
    let of_route = |config: Value| json!({"csrf": typed(KIND, config)});
    let routes = json!([
        route_with("/off", of_route(json!({"filter_enabled": share(0)}))),
        route_with(
            "/shadow",
            of_route(json!({
                "filter_enabled": share(0), "shadow_enabled": share(100),
            }))
        ),
        route_with(
            "/both",
            of_route(json!({
                "filter_enabled": share(100), "shadow_enabled": share(100),
            "additional_origins": own["additional_origins"],
            }))
        ),
        route("/"),
    ]);
    let rows = [
        ("", 403),
        ("origin: http://shop\r\n", 200),
        ("origin: https://shop\r\n", 200),
        ("origin: http://shop:80\r\n", 403),
        ("origin: http://shop/path?query\r\n", 200),
        ("origin: shop\r\n", 200),
        ("origin: http://other\r\n", 403),
        ("origin: http://shop.other\r\n", 403),
        ("origin: http://part\r\n", 200),
        ("origin: http://x12:8080\r\n", 200),
        ("origin: http://x12:80801\r\n", 403),
        ("origin: null\r\n", 403),
        ("origin: null\r\nreferer: http://shop/page\r\n", 403),
        ("origin: null\r\nreferer: http://other/page\r\n", 403),
        ("referer: http://shop/page\r\n", 200),
        ("referer: http://other/page\r\n", 403),
        ("origin: http://other\r\nreferer: http://shop/page\r\n", 403),
        ("origin: \r\nreferer: http://shop/page\r\n", 200),
        ("origin: http://SHOP\r\n", 403),
        ("origin: http://user@shop\r\n", 200),
        ("origin: http://a@b@shop\r\n", 403),
        ("origin: http://shop#x\r\n", 403),
        ("origin: http://shop?x\r\n", 200),
        ("origin: a1+-.b://shop\r\n", 200),
        ("origin: 1http://shop\r\n", 403),
        ("origin: http:///shop\r\n", 403),
    ];
    let mut asks = Vec::new();
    for (headers, status) in rows {
        asks.push((ask("POST", "/", headers), status));
        asks.push((ask("POST", "/both", headers), status));
        asks.push((ask("POST", "/off", headers), 200));
        asks.push((ask("POST", "/shadow", headers), 200));
    }
    let other = "origin: http://other\r\n";
    for (method, status) in [
        ("PUT", 403),
        ("DELETE", 403),
        ("PATCH", 403),
        ("GET", 200),
        ("OPTIONS", 200),
    ] {
        asks.push((ask(method, "/", other), status));
    }
    // Several are none, whichever is first.
    let (shop, other) = ("origin: http://shop\r\n", "origin: http://other\r\n");
    asks.push((ask("POST", "/", &format!("{shop}{other}")), 403));
    asks.push((ask("POST", "/", &format!("{other}{shop}")), 403));
    let call = format!("{other}content-type: application/grpc\r\n");
    asks.push((ask("POST", "/", &call), 200));
    Scenario::with_routes(json!([filter("csrf", KIND, own)]), routes).compare(&asks);
}
