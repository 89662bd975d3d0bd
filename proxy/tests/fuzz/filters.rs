//! The HTTP filters of the bootstrap's listeners.

use serde_json::{Value, json};

use crate::bootstrap::TYPE;

fn filter(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{TYPE}.filters.http.{name}.v3.{kind}").into();
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

/// The policy that [`crate::peers::App`] checks.
fn deny_admin() -> Value {
    filter(
        "rbac",
        "RBAC",
        json!({"rules": {"action": "DENY", "policies": {"admin": {
            "permissions": [
                {"url_path": {"path": {"exact": "/admin"}}},
                {"url_path": {"path": {"prefix": "/admin/"}}},
            ],
            "principals": [{"any": true}],
        }}}}),
    )
}

/// Before upstreams whose answers are mutated.
pub fn coded_filters() -> Vec<Value> {
    codings()
        .chain([filter("router", "Router", json!({}))])
        .collect()
}

pub fn plain_filters() -> Vec<Value> {
    vec![
        filter("cors", "Cors", json!({})),
        filter(
            "health_check",
            "HealthCheck",
            json!({
                "pass_through_mode": true, "cache_time": "0.01s",
                "headers": [{"name": ":path", "string_match": {"prefix": "/h"}}],
            }),
        ),
        deny_admin(),
        filter(
            "header_mutation",
            "HeaderMutation",
            json!({"mutations": {
                "request_mutations": [
                    {"append": {"header": {"key": "x-seen", "value": "%REQ(user-agent)%"}}}],
                "response_mutations": [{"remove": "server"}],
            }}),
        ),
        filter("router", "Router", json!({})),
    ]
}

pub fn buffered_filters() -> Vec<Value> {
    let share = json!({"numerator": 10, "denominator": "HUNDRED"});
    let mut filters = vec![
        deny_admin(),
        filter(
            "fault",
            "HTTPFault",
            json!({
                "abort": {"header_abort": {}, "percentage": share},
                "delay": {"fixed_delay": "0.005s", "percentage": share},
                "response_rate_limit": {"fixed_limit": {"limit_kbps": 1000}, "percentage": share},
            }),
        ),
        filter(
            "local_ratelimit",
            "LocalRateLimit",
            json!({
                "stat_prefix": "limit",
                "token_bucket": {"max_tokens": 100_000, "tokens_per_fill": 100_000, "fill_interval": "1s"},
                "filter_enabled": {"default_value": {"numerator": 100}},
                "filter_enforced": {"default_value": {"numerator": 100}},
            }),
        ),
        filter("buffer", "Buffer", json!({"max_request_bytes": 20_000})),
    ];
    filters.extend(codings());
    filters.push(filter("router", "Router", json!({})));
    filters
}

/// Bodies out of each coding and into it, both ways.
fn codings() -> impl Iterator<Item = Value> {
    let library = |coding: &str, kind: &str| {
        let package = coding.to_lowercase();
        json!({"name": coding, "typed_config": {
            "@type": format!("{TYPE}.compression.{package}.{kind}.v3.{coding}")}})
    };
    let enabled =
        json!({"common_config": {"enabled": {"default_value": true, "runtime_key": "x"}}});
    ["Gzip", "Brotli", "Zstd"]
        .into_iter()
        .flat_map(move |coding| {
            [
                filter(
                    "compressor",
                    "Compressor",
                    json!({
                        "compressor_library": library(coding, "compressor"),
                        "request_direction_config": enabled,
                        "response_direction_config": {},
                    }),
                ),
                filter(
                    "decompressor",
                    "Decompressor",
                    json!({"decompressor_library": library(coding, "decompressor")}),
                ),
            ]
        })
}
