//! What routes do to requests and responses. The upstream's body is the request that it got.

use serde_json::json;

use super::upstream::scripted;
use super::{Ask, Setup, cluster, get, request, route};

fn header(key: &str, value: &str) -> serde_json::Value {
    json!({"header": {"key": key, "value": value}})
}

#[test]
fn requests_reach_the_upstream_as_envoys_do() {
    let setup = Setup {
        host: json!({}),
        manager: json!({"http_protocol_options": {"accept_http_10": true}}),
        routes: json!([
            route("/timeout", json!({"cluster": "app", "timeout": "3s"})),
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![cluster("app", &[scripted()], &json!({}))],
    };
    let with = |headers: &str| request("GET", "/x", headers, "");
    setup.compare(&[
        Ask::new(request("GET", "/a?b=c", "X-Custom: Va lue \r\nAccept: */*\r\n", ""), 200),
        Ask::new(request("POST", "/p", "content-length: 3\r\n", "abc"), 200),
        Ask::new(request("POST", "/p", "transfer-encoding: chunked\r\nx: y\r\n", "3\r\nabc\r\n0\r\n\r\n"), 200),
        Ask::new(request("PUT", "/p", "", ""), 200),
        Ask::new(request("POST", "/p", "content-length: 0\r\n", ""), 200),
        Ask::new(request("PATCH", "/p", "", ""), 200),
        Ask::new(request("DELETE", "/p", "", ""), 200),
        Ask::new(request("DELETE", "/p", "content-length: 1\r\n", "x"), 200),
        Ask::new(request("HEAD", "/p", "", ""), 200),
        Ask::new(request("OPTIONS", "/p", "", ""), 200),
        Ask::new(request("POST", "/p", "expect: 100-continue\r\ncontent-length: 0\r\n", ""), 200),
        Ask::new(get("/timeout"), 200),
        Ask::new(get("/empty"), 204),
        Ask::new(with("x-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\nx-request-id: abc\r\n"), 200),
        Ask::new(with("connection: x-hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: 5\r\nproxy-connection: x\r\n"), 200),
        Ask::new(with("a: 1\r\nb: 2\r\na: 3\r\n"), 200),
        Ask::new(with("e:\r\n"), 200),
        Ask::new(with("cookie: a=1\r\ncookie: b=2\r\n"), 200),
        Ask::new(with("x-envoy-upstream-rq-timeout-ms: 500\r\nx-envoy-max-retries: 3\r\nx-envoy-foo: bar\r\nx-envoy-internal: true\r\n"), 200),
        // What we vouch for is taken from no client.
        Ask::new(with("x-envoy-original-host: a\r\nx-envoy-original-path: /b\r\n"), 200)
            .but(200, "GET /x HTTP/1.1\r\nhost: shop\r\nx-forwarded-proto: http\r\nx-request-id: made\r\nx-envoy-expected-rq-timeout-ms: 15000\r\n\r\n"),
        Ask::new(with("traceparent: x\r\nx-b3-traceid: y\r\n"), 200),
        Ask::new(with("connection: close\r\n"), 200),
        Ask::new("GET /old HTTP/1.0\r\nhost: shop\r\n\r\n", 200),
        Ask::new("GET /old HTTP/1.0\r\nhost: shop\r\nconnection: keep-alive\r\n\r\n", 200),
        Ask::new("GET http://shop/p HTTP/1.1\r\nhost: other\r\n\r\n", 200),
        Ask::new(get("/a/../b//c/%41%2f"), 200),
        Ask::new(get("/UP?Q"), 200),
        Ask::new(get("/?"), 200),
        Ask::new(get(&format!("/{}", "x".repeat(3000))), 200),
        Ask::new(get("/x").replace("host: shop", "host: Shop:80"), 200),
        Ask::new(with("x-answer: Server: app|Date: then|Set-Cookie: a|Set-Cookie: b|X-Y: 1\r\n"), 200),
        Ask::new(with("x-answer: x-envoy-upstream-service-time: 7|via: 1.1 a\r\n"), 200),
        Ask::new(with("x-answer: x-envoy-overloaded: true|x-envoy-attempt-count: 9\r\n"), 200),
    ]);
}

/// Routes that change what they forward.
fn rewriting() -> Setup {
    let edited = |prefix: &str, more: serde_json::Value| {
        let mut route = route(prefix, json!({"cluster": "app"}));
        super::extend(&mut route, &more);
        route
    };
    let action = |prefix: &str, more: serde_json::Value| {
        let mut action = json!({"cluster": "app"});
        super::extend(&mut action, &more);
        route(prefix, action)
    };
    let regex =
        |pattern: &str, to: &str| json!({"pattern": {"regex": pattern}, "substitution": to});
    Setup {
        host: json!({
            "request_headers_to_add": [header("x-host", "%REQ(x-a)%-%PROTOCOL%-%REQ(:PATH)%")],
            "response_headers_to_add": [
                {"header": {"key": "x-status", "value": "%PROTOCOL%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            ],
            "response_headers_to_remove": ["x-gone"],
            "request_headers_to_remove": ["x-drop"],
            "include_request_attempt_count": true,
            "include_attempt_count_in_response": true,
        }),
        manager: json!({}),
        routes: json!([
            edited(
                "/edited",
                json!({
                    "request_headers_to_add": [header("x-r", "a"), header("x-r", "b"), header("x-a", "c")],
                    "response_headers_to_add": [header("x-s", "%DOWNSTREAM_LOCAL_PORT%x")],
                })
            ),
            edited(
                "/absent",
                json!({"request_headers_to_add": [
                    {"header": {"key": "x-a", "value": "new"}, "append_action": "ADD_IF_ABSENT"},
                    {"header": {"key": "x-b", "value": "new"}, "append_action": "OVERWRITE_IF_EXISTS"},
                    {"header": {"key": "x-c", "value": ""}, "keep_empty_value": true},
                    {"header": {"key": "x-d", "value": ""}},
                ]})
            ),
            action("/prefix/", json!({"prefix_rewrite": "/new/"})),
            action(
                "/regex",
                json!({"regex_rewrite": regex("^/regex/([^/]+)/(.*)$", "/\\2/\\1")})
            ),
            action("/host", json!({"host_rewrite_literal": "other.host"})),
            action(
                "/forwarded",
                json!({"host_rewrite_literal": "other.host", "append_x_forwarded_host": true})
            ),
            action("/named", json!({"host_rewrite_header": "x-target"})),
            action(
                "/frompath",
                json!({"host_rewrite_path_regex": regex("^/frompath/(.+)$", "\\1")})
            ),
            action("/", json!({})),
        ]),
        clusters: vec![cluster("app", &[scripted()], &json!({}))],
    }
}

#[test]
fn routes_rewrite_and_edit() {
    let with = |path: &str, headers: &str| request("GET", path, headers, "");
    rewriting().compare(&[
        Ask::new(get("/edited"), 200),
        Ask::new(with("/edited", "x-a: one\r\nx-drop: two\r\n"), 200),
        Ask::new(get("/absent"), 200),
        Ask::new(
            with(
                "/absent",
                "x-a: old\r\nx-b: old\r\nx-c: old\r\nx-d: old\r\n",
            ),
            200,
        ),
        Ask::new(get("/prefix/a?b"), 200),
        Ask::new(get("/regex/one/two?three"), 200),
        Ask::new(get("/regex/one"), 200),
        Ask::new(get("/host"), 200),
        Ask::new(get("/forwarded"), 200),
        Ask::new(with("/forwarded", "x-forwarded-host: before\r\n"), 200),
        Ask::new(with("/named", "x-target: chosen:81\r\n"), 200),
        Ask::new(get("/named"), 200),
        Ask::new(get("/frompath/a.b"), 200),
        Ask::new(
            with(
                "/x",
                "x-answer: X-Gone: 1|X-Status: old|x-envoy-attempt-count: 4\r\n",
            ),
            200,
        ),
        Ask::new(get("/fail"), 500),
        Ask::new(get("/close"), 503),
    ]);
}
