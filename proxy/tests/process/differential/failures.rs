//! Responses that the proxies make themselves.

use serde_json::json;

use super::upstream::{refusing, scripted, unanswering};
use super::{Ask, Setup, cluster, get, request, route};

const GRPC: &str = "content-type: application/grpc\r\n";

fn post(path: &str, headers: &str, body: &str) -> String {
    request("POST", path, headers, body)
}

#[test]
fn no_upstream_answers() {
    let app = scripted();
    let (refusing, _bound) = refusing();
    let (unanswering, _waiting, _queue) = unanswering();
    let none = json!({"thresholds": [{"max_requests": 0}]});
    let setup = Setup {
        host: json!({}),
        manager: json!({"stream_idle_timeout": "1.5s"}),
        routes: json!([
            route("/header", json!({"cluster_header": "x-cluster"})),
            route("/dead", json!({"cluster": "dead"})),
            route("/late", json!({"cluster": "late"})),
            route("/empty", json!({"cluster": "empty"})),
            route("/full", json!({"cluster": "full"})),
            route(
                "/again",
                json!({"cluster": "app", "retry_policy": {"retry_on": "reset", "num_retries": 1}})
            ),
            route("/timeout", json!({"cluster": "app", "timeout": "0.2s"})),
            route(
                "/try",
                json!({
                    "cluster": "app", "timeout": "5s",
                    "retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.2s"},
                })
            ),
            route(
                "/duration",
                json!({
                    "cluster": "app", "max_stream_duration": {"max_stream_duration": "0.2s"},
                })
            ),
            route("/idle", json!({"cluster": "app", "timeout": "0s"})),
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![
            cluster("app", &[app], &json!({})),
            cluster("dead", &[refusing], &json!({})),
            cluster("late", &[unanswering], &json!({"connect_timeout": "0.2s"})),
            cluster("empty", &[], &json!({})),
            cluster("full", &[app], &json!({"circuit_breakers": none})),
        ],
    };
    let host = |request: String| request.replace("host: shop", "host: other");
    setup.compare(&[
        Ask::new(host(get("/")), 404),
        Ask::new(host(post("/", GRPC, "")), 200),
        Ask::new(request("GET", "/header", "x-cluster: unknown\r\n", ""), 503),
        Ask::new(get("/header"), 503),
        Ask::new(get("/dead"), 503),
        Ask::new(request("HEAD", "/dead", "", ""), 503),
        Ask::new(post("/dead", GRPC, ""), 200),
        Ask::new(get("/late"), 503),
        Ask::new(get("/empty"), 503),
        Ask::new(get("/full"), 503),
        Ask::new(post("/full", GRPC, ""), 200),
        Ask::new(get("/close"), 503),
        Ask::new(get("/reset"), 503),
        Ask::new(get("/garbage"), 502),
        Ask::new(get("/coding"), 502),
        Ask::new(get("/short"), 200),
        Ask::new(get("/again/close"), 503),
        Ask::new(post("/again/close", GRPC, ""), 200),
        Ask::new(get("/timeout/silent"), 504),
        Ask::new(post("/timeout/silent", GRPC, ""), 200),
        Ask::new(get("/try/silent"), 504),
        Ask::new(get("/duration/silent"), 504),
        Ask::new(get("/idle/silent"), 504),
        Ask::new(get("/fail"), 500),
    ]);
}

#[test]
fn the_configuration_answers() {
    let direct = |prefix: &str, status: u32, body: &str| {
        let body = json!({"inline_string": body});
        json!({"name": &prefix[1..], "match": {"prefix": prefix}, "direct_response": {"status": status, "body": body}})
    };
    let redirect = |prefix: &str, to| json!({"name": &prefix[1..], "match": {"prefix": prefix}, "redirect": to});
    let setup = Setup {
        host: json!({"response_headers_to_add": [{"header": {"key": "x-host", "value": "%PROTOCOL%"}}]}),
        manager: json!({}),
        routes: json!([
            direct("/tea", 418, "short and stout"),
            direct("/nothing", 204, ""),
            direct("/plain", 200, ""),
            redirect("/path", json!({"path_redirect": "/x"})),
            redirect(
                "/prefix",
                json!({"prefix_rewrite": "/y", "strip_query": true, "response_code": "FOUND"})
            ),
            redirect(
                "/https",
                json!({"https_redirect": true, "port_redirect": 8443})
            ),
            redirect("/tls", json!({"https_redirect": true})),
            redirect(
                "/far",
                json!({
                    "scheme_redirect": "ftp", "host_redirect": "h", "path_redirect": "/q?a=b",
                    "response_code": "PERMANENT_REDIRECT",
                })
            ),
            redirect(
                "/other",
                json!({"host_redirect": "other", "response_code": "SEE_OTHER"})
            ),
            redirect(
                "/temporary",
                json!({"port_redirect": 81, "response_code": "TEMPORARY_REDIRECT"})
            ),
        ]),
        clusters: Vec::new(),
    };
    let port = |path: &str| get(path).replace("host: shop", "host: shop:8080");
    setup.compare(&[
        Ask::new(get("/tea"), 418),
        Ask::new(request("HEAD", "/tea", "", ""), 418),
        Ask::new(post("/tea", GRPC, ""), 200),
        Ask::new(get("/nothing"), 204),
        Ask::new(get("/plain"), 200),
        Ask::new(get("/path?a=b"), 301),
        Ask::new(get("/prefix/z?a=b"), 302),
        Ask::new(get("/https?q"), 301),
        Ask::new(port("/https"), 301),
        Ask::new(port("/tls"), 301),
        Ask::new(get("/tls"), 301),
        Ask::new(get("/far?x=y"), 308),
        Ask::new(get("/other/a?b"), 303),
        Ask::new(port("/other"), 303),
        Ask::new(port("/temporary"), 307),
        Ask::new(get("/unknown"), 404),
    ]);
}

#[test]
fn hosts_require_tls() {
    for kind in ["NONE", "EXTERNAL_ONLY", "ALL"] {
        let setup = Setup {
            host: json!({"require_tls": kind}),
            manager: json!({}),
            routes: json!([route("/", json!({"cluster": "app"}))]),
            clusters: vec![cluster("app", &[scripted()], &json!({}))],
        };
        let redirected = if kind == "NONE" { 200 } else { 301 };
        let secure = request("GET", "/a?b", "x-forwarded-proto: https\r\n", "");
        setup.compare(&[
            Ask::new(get("/a?b"), redirected),
            Ask::new(
                get("/a").replace("host: shop", "host: shop:8080"),
                redirected,
            ),
            Ask::new(post("/a", "", ""), redirected),
            Ask::new(secure, 200),
        ]);
    }
}

#[test]
fn requests_are_not_acceptable() {
    let setup = Setup {
        host: json!({}),
        manager: json!({
            "common_http_protocol_options": {"max_headers_count": 20},
            "request_timeout": "0.5s",
            "request_headers_timeout": "0.3s",
        }),
        routes: json!([
            {"name": "onlyget", "match": {
                "prefix": "/only", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
            }, "direct_response": {"status": 200}},
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![cluster("app", &[scripted()], &json!({}))],
    };
    let with = |headers: &str| request("GET", "/only", headers, "");
    let many: String = (0..40).map(|n| format!("h{n}: x\r\n")).collect();
    let long = format!("a: {}\r\n", "x".repeat(70_000));
    // Our log lines of malformed requests have what was read of them.
    setup.compare(&[
        Ask::new("GET /only HTTP/1.1\r\n\r\n", 400),
        Ask::new(with(&many), 431).logged_differently(),
        Ask::new("GET /only HTTP/1.0\r\nhost: shop\r\n\r\n", 426).logged_differently(),
        Ask::new("GET /only HTTP/2.0\r\nhost: shop\r\n\r\n", 426).logged_differently(),
        Ask::new("GET /only HTTP/1.1\r\nhost: s", 408).logged_differently(),
        Ask::new(get("/only#a"), 400),
        Ask::new("G@T /only HTTP/1.1\r\nhost: shop\r\n\r\n", 400).logged_differently(),
        Ask::new("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", 404),
        Ask::new(with("content-length: a\r\n"), 400).logged_differently(),
        Ask::new(with("content-length: 1\r\ncontent-length: 2\r\n"), 400).logged_differently(),
        Ask::new(with("content-length: 1\r\ntransfer-encoding: chunked\r\n"), 400).logged_differently(),
        Ask::new(with("transfer-encoding: gzip\r\n"), 501).logged_differently(),
        Ask::new(with("a b: c\r\n"), 400).logged_differently(),
        Ask::new(with("a: \u{1}\r\n"), 400).logged_differently(),
        Ask::new(with(&long), 431).logged_differently(),
        Ask::new("GET only HTTP/1.1\r\nhost: shop\r\n\r\n", 400).logged_differently(),
        Ask::new("GET /o\0 HTTP/1.1\r\nhost: shop\r\n\r\n", 400).logged_differently(),
        // Stricter than Envoy: messages that servers read differently.
        Ask::new("GET /only HTTP/1.1\nhost: shop\n\n", 200).but(400, "Bad Request"),
        Ask::new(with("a: b\r\n c\r\n"), 200).but(400, "Bad Request"),
        Ask::new(with("host: shop\r\n"), 404).but(400, "Bad Request"),
        Ask::new("GET /only HTTP/1.1\r\nhost:\r\n\r\n", 404).but(400, ""),
        Ask::new("GET http://shop/only HTTP/1.1\r\n\r\n", 200).but(400, ""),
        Ask::new(with("expect: foo\r\n"), 200).but(417, "Expectation Failed"),
        // Less strict: a method is what RFC 9110 says; an upgrade that is not offered is ignored.
        Ask::new(request("FOO", "/x", "", ""), 400).but(200, "FOO /x HTTP/1.1\r\nhost: shop\r\nx-forwarded-proto: http\r\nx-request-id: made\r\nx-envoy-expected-rq-timeout-ms: 15000\r\n\r\n"),
        Ask::new(with("connection: upgrade\r\nupgrade: foo\r\n"), 403).but(200, ""),
    ]);
}
