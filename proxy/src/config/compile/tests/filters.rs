//! HTTP filters: what is refused and where, what is optional, how levels of routes add up.

use super::*;
use crate::config::filter::{FilterConfig, FilterOverride};

mod jwt_authn;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// A listener whose manager has these filters, as JSON, before the router.
fn filters(filters: &str) -> Result<Listener, CompileError> {
    compiler().listener(&message(&yaml(filters)), None)
}

fn yaml(filters: &str) -> String {
    format!(
        r#"
name: front
address: {{ socket_address: {{ address: 127.0.0.1, port_value: 80 }} }}
filter_chains:
- filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: http
      route_config: {{ name: all, virtual_hosts: [] }}
      http_filters: [{filters} {{ name: router, typed_config: {{ "@type": {FILTERS}.router.v3.Router }} }}]
"#
    )
}

/// One filter's configuration, refused; the error's path after the filter.
fn path(kind: &str, config: &str) -> String {
    let filter =
        format!(r#"{{ name: f, typed_config: {{ "@type": {FILTERS}.{kind}, {config} }} }},"#);
    let error = filters(&filter).err();
    let error = error.unwrap_or_else(|| panic!("`{config}` was taken"));
    let (_, path) = error
        .path
        .split_once("http_filters[0].typed_config")
        .unwrap();
    path.trim_start_matches('.').to_owned()
}

#[test]
fn what_cannot_be_done_is_refused_by_path() {
    let fault = |config| path("fault.v3.HTTPFault", config);
    assert_eq!(fault("abort: { http_status: 199 }"), "abort.http_status");
    assert_eq!(fault("abort: {}"), "abort.error_type");
    assert_eq!(fault("delay: { fixed_delay: 0s }"), "delay.fixed_delay");
    assert_eq!(
        fault("response_rate_limit: { fixed_limit: { limit_kbps: 0 } }"),
        "response_rate_limit.fixed_limit.limit_kbps"
    );
    assert_eq!(path("buffer.v3.Buffer", ""), "max_request_bytes");
    assert_eq!(
        path("buffer.v3.Buffer", "max_request_bytes: 0"),
        "max_request_bytes"
    );
    let mutation = |list: &str| {
        let config = format!("mutations: {{ request_mutations: [{list}] }}");
        path("header_mutation.v3.HeaderMutation", &config)
    };
    let at = "mutations.request_mutations[0]";
    assert_eq!(
        mutation(r#"{ append: { header: { key: ":path", value: a } } }"#),
        format!("{at}.append.header.key")
    );
    assert_eq!(mutation("{ remove: host }"), format!("{at}.remove"));
    assert_eq!(mutation("{}"), format!("{at}.action"));
    assert_eq!(
        path(
            "header_mutation.v3.HeaderMutation",
            "mutations: { query_parameter_mutations: [{ remove: a }] }"
        ),
        "mutations.query_parameter_mutations"
    );
    let limit = |config: &str| {
        path(
            "local_ratelimit.v3.LocalRateLimit",
            &format!("stat_prefix: a, {config}"),
        )
    };
    assert_eq!(
        limit("token_bucket: { max_tokens: 1, fill_interval: 0.049s }"),
        "token_bucket.fill_interval"
    );
    assert_eq!(
        limit("token_bucket: { max_tokens: 1, tokens_per_fill: 0, fill_interval: 1s }"),
        "token_bucket.tokens_per_fill"
    );
    assert_eq!(
        limit(
            "descriptors: [{ entries: [{ key: a }], token_bucket: { max_tokens: 1, fill_interval: 1s } }]"
        ),
        "descriptors[0].entries[0].value"
    );
    assert_eq!(
        limit("rate_limits: [{ actions: [{ source_cluster: {} }] }]"),
        "rate_limits[0].actions[0].source_cluster"
    );
}

#[test]
fn what_a_compressor_cannot_do_is_refused_by_path() {
    const LIBRARY: &str = "type.googleapis.com/envoy.extensions.compression";
    let library = |kind: &str, config: &str| {
        let library = format!(r#"{{ "@type": {LIBRARY}.{kind}, {config} }}"#);
        let config = format!("compressor_library: {{ name: l, typed_config: {library} }}");
        path("compressor.v3.Compressor", &config)
    };
    let field = |name: &str| format!("compressor_library.typed_config.{name}");
    let gzip = |config: &str| library("gzip.compressor.v3.Gzip", config);
    assert_eq!(gzip("window_bits: 8"), field("window_bits"));
    assert_eq!(gzip("memory_level: 10"), field("memory_level"));
    assert_eq!(gzip("compression_level: 17"), field("compression_level"));
    assert_eq!(gzip("chunk_size: 100"), field("chunk_size"));
    let brotli = |config: &str| library("brotli.compressor.v3.Brotli", config);
    assert_eq!(brotli("quality: 12"), field("quality"));
    assert_eq!(brotli("window_bits: 25"), field("window_bits"));
    let zstd = |config: &str| library("zstd.compressor.v3.Zstd", config);
    assert_eq!(zstd("compression_level: 20"), field("compression_level"));
    assert_eq!(
        zstd("dictionary: { inline_string: a }"),
        field("dictionary")
    );
    let compressor = |config: &str| {
        let gzip = format!(r#"{{ "@type": {LIBRARY}.gzip.compressor.v3.Gzip }}"#);
        let library = format!("compressor_library: {{ name: l, typed_config: {gzip} }}");
        path("compressor.v3.Compressor", &format!("{library}, {config}"))
    };
    assert_eq!(path("compressor.v3.Compressor", ""), "compressor_library");
    assert_eq!(
        compressor("request_direction_config: { common_config: { content_type_matcher: [{}] } }"),
        "request_direction_config.common_config.content_type_matcher[0].match_pattern"
    );
    assert_eq!(
        compressor("response_direction_config: { status_header_enabled: true }"),
        "response_direction_config.status_header_enabled"
    );
    assert_eq!(
        compressor("response_direction_config: { uncompressible_response_codes: [99] }"),
        "response_direction_config.uncompressible_response_codes[0]"
    );
}

#[test]
fn a_filter_that_is_not_known_is_left_out_only_where_it_is_optional() {
    // One of a type that the schema has, one that it lacks.
    for kind in ["grpc_web.v3.GrpcWeb", "unknown.v9.Filter"] {
        let filter = |more: &str| {
            format!(r#"{{ name: f, {more} typed_config: {{ "@type": {FILTERS}.{kind} }} }},"#)
        };
        let compiler = compiler();
        let optional = message(&yaml(&filter("is_optional: true,")));
        let listener = compiler.listener(&optional, None).unwrap();
        let TerminalFilter::Http(manager) = &listener.def.chains[0].terminal else {
            panic!("HTTP");
        };
        assert!(manager.filters.is_empty());
        assert_eq!(compiler.counts.skipped_filters.get(), 1);
        let strict = xds_proto::yaml::to_json(&yaml(&filter(""))).unwrap();
        let decoded = xds_proto::json::decode_json::<listener_pb::Listener>(&strict);
        assert!(decoded.is_err() || compiler.listener(&decoded.unwrap(), None).is_err());
        assert_eq!(compiler.counts.skipped_filters.get(), 1);
        // As it comes over xDS, where nothing may be in the bytes that the schema lacks.
        let found = xds_proto::unknown::find(
            "envoy.config.listener.v3.Listener",
            &optional.encode_to_vec(),
        );
        assert_eq!(found, []);
    }
    let routes = |optional: bool| {
        let yaml = format!(
            r#"
name: all
virtual_hosts: []
typed_per_filter_config:
  f: {{ "@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, is_optional: {optional},
    config: {{ "@type": {FILTERS}.grpc_web.v3.GrpcWeb }} }}
"#
        );
        let compiler = compiler();
        let compiled = compiler.route_config(&message(&yaml));
        (compiled.is_ok(), compiler.counts.skipped_filters.get())
    };
    assert_eq!(routes(true), (true, 1));
    assert_eq!(routes(false), (false, 0));
}

#[test]
fn levels_of_routes_add_up() {
    let cors = |methods: &str, more: &str| {
        format!(
            r#"{{ "@type": {FILTERS}.cors.v3.CorsPolicy, allow_methods: "{methods}", {more} }}"#
        )
    };
    let yaml = format!(
        r#"
name: all
typed_per_filter_config: {{ c: {}, b: {{ "@type": {FILTERS}.buffer.v3.BufferPerRoute, disabled: true }} }}
virtual_hosts:
- name: host
  domains: ["*"]
  typed_per_filter_config: {{ c: {} }}
  routes:
  - match: {{ prefix: / }}
    route: {{ cluster: app }}
    typed_per_filter_config: {{ b: {{ "@type": {FILTERS}.buffer.v3.BufferPerRoute, buffer: {{ max_request_bytes: 7 }} }} }}
"#,
        cors("TABLE", "max_age: \"1\", allow_credentials: true"),
        cors("", "allow_credentials: false"),
    );
    let config = routes(&yaml).unwrap();
    let overrides = config.table.virtual_hosts[0].routes[0]
        .filters
        .clone()
        .unwrap();
    assert!(matches!(
        of_filter(&overrides, "b"),
        Some(FilterOverride::Config(FilterConfig::Buffer(7)))
    ));
    let Some(FilterOverride::Config(FilterConfig::Cors(Some(policy)))) = of_filter(&overrides, "c")
    else {
        panic!("a policy");
    };
    assert_eq!((&*policy.methods, &*policy.max_age), ("TABLE", "1"));
    assert_eq!(policy.credentials, Some(false));
}

/// A route table and a chain know a filter by the same name, whichever was compiled first.
#[test]
fn routes_override_filters_of_chains_that_are_compiled_apart() {
    let filters = |compiler: &Compiler| {
        let listener = compiler.listener(&message(CHAINED), None).unwrap();
        let TerminalFilter::Http(manager) = &listener.def.chains[1].terminal else {
            panic!("HTTP");
        };
        manager.clone()
    };
    let table = |compiler: &Compiler| compiler.route_config(&message(ROUTES)).unwrap().table;
    for chain_first in [false, true] {
        let compiler = compiler();
        let (manager, table) = if chain_first {
            let manager = filters(&compiler);
            (manager, table(&compiler))
        } else {
            let table = table(&compiler);
            (filters(&compiler), table)
        };
        let overrides = table.virtual_hosts[0].routes[0].filters.as_deref();
        assert_eq!(&*manager.filters[0].name, "authz");
        assert!(manager.filters[0].on_route(None).is_some());
        assert!(manager.filters[0].on_route(overrides).is_none());
    }
}

#[test]
fn rules_of_other_filters_are_refused_by_path() {
    assert_eq!(path("csrf.v3.CsrfPolicy", ""), "filter_enabled");
    let rule = |rule: &str| {
        let config = format!("request_rules: [{{ {rule} }}]");
        path("header_to_metadata.v3.Config", &config)
    };
    for (config, field) in [
        ("on_header_present: { key: a }", "header"),
        (
            "header: a, cookie: b, on_header_present: { key: a }",
            "cookie",
        ),
        (
            "cookie: b, remove: true, on_header_present: { key: a }",
            "remove",
        ),
        ("header: a", "on_header_present"),
        ("header: a, on_header_present: {}", "on_header_present.key"),
        (
            "header: a, on_header_missing: { key: a }",
            "on_header_missing.value",
        ),
        (
            "header: a, on_header_present: { key: a, type: PROTOBUF_VALUE }",
            "on_header_present.type",
        ),
        (
            "header: a, on_header_present: { key: a, value: b, regex_value_rewrite: {} }",
            "on_header_present.regex_value_rewrite",
        ),
    ] {
        assert_eq!(
            rule(config),
            format!("request_rules[0].{field}"),
            "{config}"
        );
    }
}
