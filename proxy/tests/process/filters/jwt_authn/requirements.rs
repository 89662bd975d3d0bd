//! Which tokens a request must have.

use serde_json::{Value, json};

use super::{KIND, bearer, provider, rule, scenario};
use crate::filters::tokens::{Issuer, now};
use crate::filters::{Scenario, ask, filter, get, route, route_with, typed};

const OF_ROUTE: &str = "jwt_authn.v3.PerRouteConfig";

fn providers(issuer: &Issuer) -> Value {
    let claim = |name: &str| json!([{"header_name": name, "claim_name": "sub"}]);
    json!({
        "one": provider(issuer, json!({
            "audiences": ["cart"], "claim_to_headers": claim("x-one"), "payload_in_metadata": "one",
            "failed_status_in_metadata": "failed",
        })),
        "two": provider(issuer, json!({
            "issuer": "two", "claim_to_headers": claim("x-two"), "from_headers": [{"name": "x-two-jwt"}],
            "header_in_metadata": "two",
        })),
        "short": provider(issuer, json!({"issuer": "short", "max_lifetime": "60s", "audiences": ["cart"]})),
        "ends": provider(issuer, json!({"issuer": "ends", "require_expiration": true})),
        "subject": provider(issuer, json!({
            "issuer": "subject", "subjects": {"prefix": "s-"}, "audiences": ["cart"],
            "clock_skew_seconds": 5,
        })),
    })
}

fn rules(issuer: &Issuer) -> Value {
    let named = |name: &str| json!({"provider_name": name});
    let any = |all: Value| json!({"requires_any": {"requirements": all}});
    let all = |all: Value| json!({"requires_all": {"requirements": all}});
    let (missing, failed) = (
        json!({"allow_missing": {}}),
        json!({"allow_missing_or_failed": {}}),
    );
    let providers = providers(issuer);
    json!({
        "providers": providers,
        "requirement_map": {"first": named("one"), "second": named("two")},
        "bypass_cors_preflight": true,
        "rules": [
            {"match": {"prefix": "/open"}},
            {"match": {"path": "/exact"}, "requires": named("one")},
            {"match": {"safe_regex": {"regex": "/re[0-9]+"}}, "requires": named("one")},
            {"match": {"prefix": "/h", "headers": [{"name": "x-h", "string_match": {"exact": "1"}}]},
             "requires": named("one")},
            {"match": {"prefix": "/q", "query_parameters": [{"name": "q", "present_match": true}]},
             "requires": named("one")},
            {"match": {"path_separated_prefix": "/sep"}, "requires": named("one")},
            {"match": {"prefix": "/CASE", "case_sensitive": false}, "requires": named("one")},
            rule("/aud", json!({"provider_and_audiences": {"provider_name": "one", "audiences": ["till"]}})),
            rule("/unset", json!({})),
            {"match": {"prefix": "/named"}, "requirement_name": "second"},
            rule("/either", any(json!([named("one"), named("two")]))),
            rule("/perhaps", any(json!([named("one"), missing]))),
            rule("/anyhow", any(json!([named("one"), named("two"), missing, failed]))),
            rule("/both", all(json!([named("one"), named("two")]))),
            rule("/nested", any(json!([all(json!([named("one"), named("two")])), named("two")]))),
            rule("/missing", missing),
            rule("/failed", failed),
            rule("/short", named("short")),
            rule("/ends", named("ends")),
            rule("/subject", named("subject")),
        ],
    })
}

/// Requests to each path, without tokens and with some.
fn asks(issuer: &Issuer) -> Vec<(String, u16)> {
    let one = bearer(&issuer.token(json!({"sub": "me"})));
    let two = format!(
        "x-two-jwt: {}\r\n",
        issuer.token(json!({"iss": "two", "sub": "you"}))
    );
    let both = format!("{one}{two}");
    let stranger = bearer(&issuer.token(json!({"iss": "stranger"})));
    let expired = bearer(&issuer.token(json!({"exp": 1})));
    let bad = bearer("x");
    let mut asks = Vec::new();
    for (
        path,
        [
            none,
            with_one,
            with_two,
            with_both,
            with_stranger,
            with_expired,
            with_bad,
        ],
    ) in [
        ("/elsewhere", [200; 7]),
        ("/open", [200; 7]),
        ("/unset", [200; 7]),
        ("/exact", [401, 200, 401, 200, 401, 401, 401]),
        ("/exact/no", [200; 7]),
        ("/re12", [401, 200, 401, 200, 401, 401, 401]),
        ("/q?q=1", [401, 200, 401, 200, 401, 401, 401]),
        ("/sep/x", [401, 200, 401, 200, 401, 401, 401]),
        ("/separate", [200; 7]),
        ("/case", [401, 200, 401, 200, 401, 401, 401]),
        ("/aud", [401, 403, 401, 403, 401, 401, 401]),
        ("/named", [401, 401, 200, 200, 401, 401, 401]),
        ("/either", [401, 200, 200, 200, 401, 401, 401]),
        ("/perhaps", [200, 200, 200, 200, 401, 401, 401]),
        ("/anyhow", [200; 7]),
        ("/both", [401, 401, 401, 200, 401, 401, 401]),
        ("/nested", [401, 401, 200, 200, 401, 401, 401]),
        ("/missing", [200, 200, 200, 200, 401, 401, 401]),
        ("/failed", [200; 7]),
    ] {
        let forged = "x-one: forged\r\nx-two: forged\r\n";
        asks.extend([
            (get(path, forged), none),
            (get(path, &one), with_one),
            (get(path, &two), with_two),
            (get(path, &both), with_both),
            (get(path, &stranger), with_stranger),
            (get(path, &expired), with_expired),
            (get(path, &bad), with_bad),
        ]);
    }
    asks
}

/// Requests for what only some rules look at.
fn special_asks(issuer: &Issuer) -> Vec<(String, u16)> {
    let till = bearer(&issuer.token(json!({"aud": "till"})));
    let of = |issued_by: &str, mut claims: Value| {
        claims["iss"] = issued_by.into();
        bearer(&issuer.token(claims))
    };
    let endless = |issued_by: &str| {
        let payload = json!({"iss": issued_by, "aud": "cart"}).to_string();
        bearer(&issuer.signed(json!({"alg": "HS256"}), &payload))
    };
    let (soon, later, past) = (now() + 30, now() + 3000, now() - 30);
    vec![
        (get("/aud", &till), 200),
        (get("/h", "x-h: 1\r\n"), 401),
        (get("/h", "x-h: 2\r\n"), 200),
        (get("/short", &of("short", json!({}))), 401),
        (get("/short", &of("short", json!({"exp": soon}))), 200),
        (get("/short", &endless("short")), 401),
        (
            get("/short", &of("short", json!({"aud": "x", "exp": later}))),
            403,
        ),
        (get("/ends", &of("ends", json!({}))), 200),
        (get("/ends", &endless("ends")), 401),
        (get("/subject", &of("subject", json!({"sub": "s-1"}))), 200),
        (get("/subject", &of("subject", json!({"sub": "x"}))), 401),
        (
            get("/subject", &of("subject", json!({"sub": "x", "aud": "x"}))),
            403,
        ),
        (
            get(
                "/subject",
                &of("subject", json!({"sub": "s-1", "exp": past})),
            ),
            401,
        ),
        (
            ask(
                "OPTIONS",
                "/exact",
                "origin: http://a\r\naccess-control-request-method: PUT\r\nx-one: f\r\n",
            ),
            200,
        ),
        (ask("OPTIONS", "/exact", "origin: http://a\r\n"), 401),
    ]
}

#[test]
fn requirements_of_each_kind() {
    let issuer = Issuer::new();
    let all = [asks(&issuer), special_asks(&issuer)].concat();
    scenario(rules(&issuer)).compare(&all);
}

#[test]
fn a_route_names_its_requirement() {
    let issuer = Issuer::new();
    let mut config = rules(&issuer);
    let one = bearer(&issuer.token(json!({"sub": "me"})));
    let two = format!(
        "x-two-jwt: {}\r\n",
        issuer.token(json!({"iss": "two", "sub": "you"}))
    );
    let both = format!("{one}{two}");
    let till = bearer(&issuer.token(json!({"aud": "till"})));
    config["rules"] = json!([rule("/", json!({"provider_name": "one"}))]);
    let of_route = |config: Value| json!({"jwt": typed(OF_ROUTE, config)});
    let routes = json!([
        route_with("/off", of_route(json!({"disabled": true}))),
        route_with("/second", of_route(json!({"requirement_name": "second"}))),
        route_with("/unknown", of_route(json!({"requirement_name": "third"}))),
        route("/"),
    ]);
    for strip in [false, true] {
        config["strip_failure_response"] = strip.into();
        let filters = json!([filter("jwt", KIND, config.clone())]);
        Scenario::with_routes(filters, routes.clone()).compare(&[
            (get("/off", "x-one: forged\r\n"), 200),
            (get("/second", &two), 200),
            (get("/second", &one), 401),
            (get("/unknown", &both), 403),
            (get("/", &one), 200),
            (get("/", &till), 403),
            (get("/", ""), 401),
            (ask("POST", "/", "content-type: application/grpc\r\n"), 200),
        ]);
    }
}
