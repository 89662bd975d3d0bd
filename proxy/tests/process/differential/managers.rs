//! Fields of the connection manager.

use serde_json::{Value, json};

use super::upstream::scripted;
use super::{Ask, Setup, cluster, get, request, route};

/// One route to the app, under these fields of the manager.
fn setup(manager: Value) -> Setup {
    Setup {
        host: json!({}),
        manager,
        routes: json!([
            {"name": "direct", "match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![cluster("app", &[scripted()], &json!({}))],
    }
}

fn with(headers: &str) -> String {
    request("GET", "/x", headers, "")
}

const FORWARDED: &str = "x-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\n\
    x-envoy-external-address: 9.9.9.9\r\nx-envoy-internal: true\r\n\
    x-envoy-decorator-operation: a\r\nx-envoy-max-retries: 2\r\n";

#[test]
fn clients_are_told_by_what_is_trusted() {
    let asks = || {
        [
            Ask::new(get("/x"), 200),
            Ask::new(with(FORWARDED), 200),
            Ask::new(with("x-forwarded-for: 10.1.2.3\r\n"), 200),
            Ask::new(with("x-forwarded-for: junk\r\n"), 200),
            Ask::new(with("x-forwarded-proto: ftp\r\n"), 200),
        ]
    };
    for manager in [
        json!({}),
        json!({"use_remote_address": true}),
        json!({"use_remote_address": true, "xff_num_trusted_hops": 1}),
        json!({"xff_num_trusted_hops": 1}),
        json!({"use_remote_address": true, "skip_xff_append": true}),
    ] {
        setup(manager).compare(&asks());
    }
}

#[test]
fn requests_and_responses_are_marked() {
    let id = "x-request-id: 11111111-2222-4333-8444-555555555555\r\n";
    for manager in [
        json!({"via": "1.1 mine"}),
        json!({"generate_request_id": false}),
        json!({"preserve_external_request_id": true, "always_set_request_id_in_response": true}),
        json!({"server_name": "mine"}),
        json!({"server_name": "mine", "server_header_transformation": "APPEND_IF_ABSENT"}),
        json!({"server_header_transformation": "PASS_THROUGH"}),
    ] {
        setup(manager).compare(&[
            Ask::new(get("/x"), 200),
            Ask::new(with(id), 200),
            Ask::new(
                with("via: 1.0 other\r\nx-answer: Via: 1.1 app|Server: theirs\r\n"),
                200,
            ),
            Ask::new(get("/direct"), 200),
            Ask::new(get("/close"), 503),
        ]);
    }
}

#[test]
fn paths_are_normalised() {
    for manager in [
        json!({"normalize_path": true}),
        json!({"merge_slashes": true}),
        json!({"normalize_path": true, "merge_slashes": true}),
        json!({"path_with_escaped_slashes_action": "KEEP_UNCHANGED"}),
        json!({"normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}),
    ] {
        setup(manager).compare(&[
            Ask::new(get("/a/../b"), 200),
            Ask::new(get("/a/./b/"), 200),
            Ask::new(get("//a///b"), 200),
            Ask::new(get("/a%2fb%2Fc"), 200),
            Ask::new(get("/a%5cb"), 200),
            Ask::new(get("/%61/%7e?x=%61"), 200),
            // Our logs escape what a reader could take for an escape.
            Ask::new(get("/a\\b"), 200).logged_differently(),
            Ask::new(get("/x?a/../b//c"), 200),
        ]);
    }
    let refusing = json!({"path_with_escaped_slashes_action": "REJECT_REQUEST"});
    setup(refusing).compare(&[
        Ask::new(get("/a%2fb"), 400).logged_differently(),
        Ask::new(get("/a?b%2fc"), 200),
    ]);
    let redirecting = json!({"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"});
    setup(redirecting).compare(&[
        Ask::new(get("/a%2fb?c"), 307).logged_differently(),
        Ask::new(get("/a%5Cb"), 307).logged_differently(),
        Ask::new(get("/a"), 200),
    ]);
}

#[test]
fn hosts_are_stripped() {
    let host = |host: &str| get("/x").replace("host: shop", &format!("host: {host}"));
    for manager in [
        json!({}),
        json!({"strip_any_host_port": true}),
        json!({"strip_matching_host_port": true}),
        json!({"strip_trailing_host_dot": true, "strip_any_host_port": true}),
    ] {
        setup(manager).compare(&[
            Ask::new(host("shop"), 200),
            Ask::new(host("shop:80"), 200),
            Ask::new(host("SHOP:8000"), 200),
        ]);
    }
}

#[test]
fn names_with_underscores_are_refused_or_dropped() {
    for (action, status) in [
        ("ALLOW", 200),
        ("DROP_HEADER", 200),
        ("REJECT_REQUEST", 400),
    ] {
        let options = json!({"headers_with_underscores_action": action});
        let setup = setup(json!({"common_http_protocol_options": options}));
        setup.compare(&[
            Ask::new(with("x_a: 1\r\nx-b: 2\r\n"), status).logged_differently(),
            Ask::new(with("x-b: a_b\r\n"), 200),
        ]);
    }
}

#[test]
fn names_keep_their_spelling() {
    let formatter = json!({"stateful_formatter": {
        "name": "preserve_case",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig",
            "forward_reason_phrase": true,
        },
    }});
    let options = json!({"header_key_format": formatter});
    let mut setup = setup(json!({"http_protocol_options": options}));
    let upstream = json!({"typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": options},
        },
    }});
    setup.clusters = vec![cluster("app", &[scripted()], &upstream)];
    let spelled = request(
        "GET",
        "/x",
        "X-Custom: a\r\nACCEPT: b\r\nx-ANSWER: X-From: App|x-y: z\r\n",
        "",
    );
    setup.compare(&[
        Ask::new(get("/fail"), 500),
        Ask::new(get("/empty"), 204),
        Ask::new(spelled, 200),
    ]);
}
