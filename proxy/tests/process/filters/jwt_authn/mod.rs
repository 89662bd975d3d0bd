//! JSON Web Tokens.
//!
//! - this file: tokens, and where they are found; `requirements`: which of them a request must have;
//!   `remote`: keys that are fetched

mod remote;
mod requirements;

use serde_json::{Value, json};

use super::tokens::{Issuer, encoded, now};
use super::{Scenario, ask, filter, get, route};

const KIND: &str = "jwt_authn.v3.JwtAuthentication";

fn provider(issuer: &Issuer, more: Value) -> Value {
    let mut provider = json!({"issuer": "shop", "local_jwks": {"inline_string": issuer.jwks()}});
    for (field, value) in more.as_object().unwrap() {
        provider[field] = value.clone();
    }
    provider
}

fn rule(prefix: &str, requires: Value) -> Value {
    json!({"match": {"prefix": prefix}, "requires": requires})
}

fn scenario(config: Value) -> Scenario {
    Scenario::new(json!([filter("jwt", KIND, config)]))
}

/// One provider with most settings, required everywhere.
fn one_provider(issuer: &Issuer, more: Value) -> Scenario {
    scenario(json!({
        "providers": {"one": provider(issuer, more)},
        "rules": [rule("/", json!({"provider_name": "one"}))],
    }))
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn full() -> Value {
    json!({
        "audiences": ["https://cart/", "till"],
        "claim_to_headers": [
            {"header_name": "x-sub", "claim_name": "sub"},
            {"header_name": "x-number", "claim_name": "number"},
            {"header_name": "x-deep", "claim_name": "deep.key"},
            {"header_name": "x-dotted", "claim_path": [{"key": "a.b"}, {"key": "c"}]},
            {"header_name": "x-list", "claim_name": "list"},
        ],
        "forward_payload_header": "x-payload",
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["scope"]},
        "header_in_metadata": "header",
        "failed_status_in_metadata": "failed",
    })
}

/// Tokens, and the status that they get.
fn table(issuer: &Issuer) -> Vec<(String, u16)> {
    let good = issuer.token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let header = |header: Value| issuer.signed(header, r#"{"iss":"shop","aud":"cart"}"#);
    let hs = encoded(r#"{"alg":"HS256"}"#);
    let empty = encoded("{}");
    [
        (good.clone(), 200),
        (issuer.token(json!({"aud": ["x", "http://cart"]})), 200),
        (issuer.token(json!({"aud": "other"})), 403),
        (issuer.token(json!({"aud": []})), 403),
        (issuer.token(json!({"iss": "other"})), 401),
        (issuer.token(json!({"exp": now() - 3600})), 401),
        (issuer.token(json!({"exp": now() - 20})), 200),
        (issuer.token(json!({"nbf": now() + 3600})), 401),
        (issuer.token(json!({"nbf": now() + 20})), 200),
        (format!("{signed}.{}", encoded([7; 32])), 401),
        (format!("{signed}.{}", &signature[..20]), 401),
        (header(json!({"alg": "HS256"})), 200),
        (header(json!({"alg": "HS256", "kid": "other"})), 401),
        (header(json!({"alg": "HS256", "kid": "rsa"})), 401),
        (header(json!({"alg": "RS256", "kid": "rsa"})), 200),
        (header(json!({"alg": "ES256", "kid": "ec"})), 200),
        (header(json!({"alg": "EdDSA", "kid": "ed"})), 200),
        (header(json!({"alg": "none"})), 401),
        (
            header(json!({"alg": "HS256", "kid": "hs", "typ": "JWT"})),
            200,
        ),
        (header(json!({"alg": 1})), 401),
        (header(json!({"kid": "hs"})), 401),
        (header(json!({"alg": "HS256", "kid": 5})), 401),
        (header(json!([])), 401),
        (format!("{}.{empty}.YQ", encoded("{x")), 401),
        (format!("{hs}.!!.YQ"), 401),
        (format!("{hs}.{}.YQ", encoded("{x")), 401),
        (format!("{hs}.{empty}.!"), 401),
        (format!("{hs}.{empty}.a"), 401),
        ("a".to_owned(), 401),
        ("a.b".to_owned(), 401),
        ("a.b.c.d".to_owned(), 401),
    ]
    .into()
}

/// Payloads that are refused, and claims that are not.
fn payloads(issuer: &Issuer) -> Vec<(String, u16)> {
    let mut rows = Vec::new();
    for wrong in [
        r#"{"iss":5}"#,
        r#"{"sub":5}"#,
        r#"{"iat":"x"}"#,
        r#"{"iat":-1}"#,
        r#"{"nbf":"x"}"#,
        r#"{"nbf":-1}"#,
        r#"{"exp":"x"}"#,
        r#"{"exp":1e30}"#,
        r#"{"jti":5}"#,
        r#"{"aud":5}"#,
        r#"{"aud":["cart",5]}"#,
        r#"{"iss":"shop","iss":"shop","aud":"cart"}"#,
        r#"{"iss":"shop","aud":"cart"} x"#,
        "[]",
    ] {
        rows.push((issuer.signed(json!({"alg": "HS256"}), wrong), 401));
    }
    for claims in [
        json!({"sub": "me", "number": 12345678901u64, "deep": {"key": "k"}, "a.b": {"c": true}}),
        json!({"sub": "", "number": 1.5, "deep": 1, "list": [1, "x"], "scope": "a b  c"}),
        json!({"number": -3, "deep": {"key": {"x": null}}, "list": [], "scope": ["a b"]}),
        json!({"number": 0, "deep": {"key": 0.1}}),
    ] {
        rows.push((issuer.token(claims), 200));
    }
    rows
}

#[test]
fn tokens_are_verified_as_envoy_verifies_them() {
    let issuer = Issuer::new();
    let rows = [table(&issuer), payloads(&issuer)].concat();
    let forged = "x-sub: forged\r\nx-payload: forged\r\nx-sub: again\r\n";
    let asked = |(token, status): &(String, u16)| {
        (get("/", &format!("{forged}{}", bearer(token))), *status)
    };
    let mut asks: Vec<_> = rows.iter().map(asked).collect();
    let long = "l".repeat(300);
    asks.extend([
        (get("/", forged), 401),
        (get("/x?y=1", ""), 401),
        (get(&format!("/{long}?x"), ""), 401),
        (ask("HEAD", "/", ""), 401),
        (ask("POST", "/", "content-type: application/grpc\r\n"), 200),
    ]);
    one_provider(&issuer, full()).compare(&asks);
    // Claims that no header can have.
    let asks = ["a\r\nb: c", "a\u{0}", "\u{7f}"].map(|sub| {
        let token = issuer.token(json!({"sub": sub, "number": 1e25}));
        (get("/", &bearer(&token)), 503)
    });
    let claims = full()["claim_to_headers"].clone();
    one_provider(&issuer, json!({"claim_to_headers": claims})).compare(&asks);
}

#[test]
fn tokens_are_found_where_they_may_be() {
    let issuer = Issuer::new();
    let good = issuer.token(json!({}));
    let other = issuer.token(json!({"sub": "other"}));
    let claim = json!([{"header_name": "x-sub", "claim_name": "sub"}]);
    let asks = [
        (
            get("/", &format!("authorization: x Bearer   {good}\r\n")),
            200,
        ),
        (get("/", &format!("authorization: bearer {good}\r\n")), 401),
        (get("/", "authorization: Bearer\r\n"), 401),
        (get("/", "authorization: Basic YTpi\r\n"), 401),
        (
            get("/", &format!("{}{}", bearer(&good), bearer(&good))),
            401,
        ),
        (get(&format!("/?access_token={good}"), ""), 200),
        (get(&format!("/?a=1&access_token={good}&z=2"), ""), 200),
        (
            get(&format!("/?access_token={good}&access_token=x"), ""),
            200,
        ),
        (get("/?access_token=", ""), 401),
        (get("/?access_token=x", &bearer(&good)), 401),
        (get(&format!("/?access_token={good}"), &bearer(&other)), 200),
        (get(&format!("/?access_token={good}"), &bearer("x")), 401),
    ];
    one_provider(&issuer, json!({"claim_to_headers": claim})).compare(&asks);
    let elsewhere = |forward: bool| {
        json!({
            "forward": forward,
            "from_headers": [{"name": "x-jwt"}, {"name": "X-Pre", "value_prefix": "Tok="}],
            "from_params": ["jt"],
            "from_cookies": ["jc"],
            "claim_to_headers": claim,
            "forward_payload_header": "x-payload",
            "pad_forward_payload_header": true,
        })
    };
    for forward in [false, true] {
        one_provider(&issuer, elsewhere(forward)).compare(&[
            (get("/", &format!("x-jwt: {good}\r\n")), 200),
            (get("/", &format!("x-jwt: Bearer {good}\r\n")), 401),
            (
                get("/", &format!("x-jwt: {good}\r\nx-jwt: {other}\r\n")),
                200,
            ),
            (get("/", &format!("x-jwt: {good}\r\nx-jwt: bad\r\n")), 401),
            (get("/", "x-jwt:\r\n"), 401),
            (get("/", &format!("x-pre: aTok=  {good}\r\n")), 200),
            (get("/", &format!("x-pre: {good}\r\n")), 401),
            (get("/", "x-pre: Tok=!!\r\n"), 401),
            (get(&format!("/?jt={good}"), ""), 200),
            (get("/", &format!("cookie: a=b; jc={good}\r\n")), 200),
            (get("/", &format!("cookie: jc=\"{good}\"\r\n")), 200),
            (get("/", "cookie: jc=\r\n"), 401),
            (get("/", &bearer(&good)), 401),
        ]);
    }
}

/// Claims choose the route, where the filter has it chosen again, and rules of RBAC see them.
#[test]
fn claims_are_seen_by_routes_and_rules() {
    let issuer = Issuer::new();
    let by_header = json!({
        "match": {"prefix": "/", "headers": [{"name": "x-sub", "string_match": {"exact": "me"}}]},
        "direct_response": {"status": 203},
    });
    let by_metadata = json!({
        "match": {"prefix": "/", "dynamic_metadata": [{
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "payload"}, {"key": "sub"}],
            "value": {"string_match": {"exact": "you"}},
        }]},
        "direct_response": {"status": 202},
    });
    let rules = json!({"rules": {"action": "DENY", "policies": {"no": {
        "permissions": [{"metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "payload"}, {"key": "groups"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": "guest"}}}},
        }}],
        "principals": [{"any": true}],
    }}}});
    for (clear, [me, you]) in [(true, [203, 202]), (false, [200, 200])] {
        let config = json!({
            "providers": {"one": provider(&issuer, json!({
                "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
                "payload_in_metadata": "payload",
                "clear_route_cache": clear,
            }))},
            "rules": [rule("/", json!({"provider_name": "one"}))],
        });
        let filters = json!([
            filter("jwt", KIND, config),
            filter("rbac", "rbac.v3.RBAC", rules.clone()),
        ]);
        let routes = json!([by_header, by_metadata, route("/")]);
        let token = |claims: Value| bearer(&issuer.token(claims));
        Scenario::with_routes(filters, routes).compare(&[
            (get("/", &token(json!({"sub": "me"}))), me),
            (get("/", &token(json!({"sub": "you"}))), you),
            (get("/", &token(json!({"sub": "she"}))), 200),
            (
                get(
                    "/",
                    &token(json!({"sub": "me", "groups": ["staff", "guest"]})),
                ),
                403,
            ),
            (get("/", &token(json!({"groups": ["staff"]}))), 200),
        ]);
    }
}

/// Tokens that were verified are found again, and are still checked for what time and requirement say.
#[test]
fn verified_tokens_are_kept() {
    let issuer = Issuer::new();
    let mut provider = provider(&issuer, full());
    provider["jwt_cache_config"] = json!({"jwt_cache_size": 2});
    let till = json!({"provider_and_audiences": {"provider_name": "one", "audiences": ["till"]}});
    let scenario = scenario(json!({
        "providers": {"one": provider},
        "rules": [rule("/till", till), rule("/", json!({"provider_name": "one"}))],
    }));
    let tokens: Vec<_> = (0..3)
        .map(|n| issuer.token(json!({"sub": n.to_string()})))
        .collect();
    let mut asks = Vec::new();
    for _ in 0..2 {
        for token in &tokens {
            asks.push((get("/", &bearer(token)), 200));
            asks.push((get("/", &bearer(token)), 200));
            asks.push((get("/till", &bearer(token)), 403));
            asks.push((get("/", &bearer(&token[..token.len() - 2])), 401));
        }
    }
    scenario.compare(&asks);
}
