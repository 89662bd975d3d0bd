//! What the filter for JSON Web Tokens cannot do is refused by path.

use super::path;

/// Keys in the configuration, which can be used.
const KEYS: &str = r#"local_jwks: { inline_string: '{"keys":[{"kty":"oct","k":"YQ"}]}' }"#;

#[test]
fn what_jwt_authn_cannot_do_is_refused_by_path() {
    let filter = |config: &str| path("jwt_authn.v3.JwtAuthentication", config);
    let provider = |more: &str| filter(&format!("providers: {{ p: {{ {more} }} }}"));
    let at = r#"providers["p"]"#;
    for (config, field) in [
        ("issuer: a", "jwks_source_specifier"),
        ("local_jwks: {}", "local_jwks.specifier"),
        (r"local_jwks: { inline_string: '{}' }", "local_jwks"),
        (
            r#"local_jwks: { inline_string: '{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}' }"#,
            "local_jwks",
        ),
        ("remote_jwks: {}", "remote_jwks.http_uri"),
    ] {
        assert_eq!(provider(config), format!("{at}.{field}"), "{config}");
    }
    for (config, field) in [
        ("from_headers: [{}]", "from_headers[0].name"),
        ("from_headers: [{ name: host }]", "from_headers[0].name"),
        ("forward_payload_header: ':path'", "forward_payload_header"),
        (
            "claim_to_headers: [{ header_name: a }]",
            "claim_to_headers[0].claim_name",
        ),
        (
            "claim_to_headers: [{ claim_name: a }]",
            "claim_to_headers[0].header_name",
        ),
        (
            "claim_to_headers: [{ header_name: a, claim_name: b, claim_path: [{ key: c }] }]",
            "claim_to_headers[0].claim_path",
        ),
        (
            "jwt_cache_config: { jwt_cache_size: 100001 }",
            "jwt_cache_config.jwt_cache_size",
        ),
    ] {
        let config = format!("{KEYS}, {config}");
        assert_eq!(provider(&config), format!("{at}.{field}"), "{config}");
    }
    let rule = |rule: &str| {
        filter(&format!(
            "providers: {{ p: {{ {KEYS} }} }}, rules: [{rule}]"
        ))
    };
    let named = "requires: { provider_name: p }";
    for (config, field) in [
        (format!("{{ {named} }}"), "match"),
        (
            format!("{{ match: {{ prefix: /, grpc: {{}} }}, {named} }}"),
            "match.grpc",
        ),
        (
            "{ match: { prefix: / }, requires: { provider_name: q } }".to_owned(),
            "requires.provider_name",
        ),
        (
            "{ match: { prefix: / }, requirement_name: q }".to_owned(),
            "requirement_name",
        ),
        (
            "{ match: { prefix: / }, requires: { requires_any: { requirements: [{}] } } }"
                .to_owned(),
            "requires.requires_any.requirements",
        ),
        (
            "{ match: { prefix: / }, requires: { extract_only_without_validation: {} } }"
                .to_owned(),
            "requires.extract_only_without_validation",
        ),
    ] {
        assert_eq!(rule(&config), format!("rules[0].{field}"), "{config}");
    }
    assert_eq!(
        filter("filter_state_rules: { name: a }"),
        "filter_state_rules"
    );
}

#[test]
fn key_sets_that_cannot_be_fetched_are_refused_by_path() {
    let fetched = |uri: &str, more: &str| {
        let remote = format!("remote_jwks: {{ http_uri: {{ {uri} }}, {more} }}");
        path(
            "jwt_authn.v3.JwtAuthentication",
            &format!("providers: {{ p: {{ {remote} }} }}"),
        )
    };
    let at = r#"providers["p"].remote_jwks"#;
    let whole = "uri: http://a/b, cluster: c, timeout: 1s";
    for (uri, field) in [
        ("uri: http://a/b, timeout: 1s", "http_upstream_type"),
        ("uri: http://a/b, cluster: '', timeout: 1s", "cluster"),
        ("uri: http://a/b, cluster: c", "timeout"),
        ("uri: http://a/b, cluster: c, timeout: 0s", "timeout"),
        ("uri: /b, cluster: c, timeout: 1s", "uri"),
        ("uri: ftp://a/b, cluster: c, timeout: 1s", "uri"),
        ("uri: http://user@a/b, cluster: c, timeout: 1s", "uri"),
    ] {
        assert_eq!(fetched(uri, ""), format!("{at}.http_uri.{field}"), "{uri}");
    }
    for (more, field) in [
        ("cache_duration: 0s", "cache_duration"),
        (
            "async_fetch: { failed_refetch_duration: 0s }",
            "async_fetch.failed_refetch_duration",
        ),
        (
            "retry_policy: { num_retries: 101 }",
            "retry_policy.num_retries",
        ),
        (
            "retry_policy: { retry_back_off: { base_interval: 2s, max_interval: 1s } }",
            "retry_policy.retry_back_off.max_interval",
        ),
    ] {
        assert_eq!(fetched(whole, more), format!("{at}.{field}"), "{more}");
    }
}
