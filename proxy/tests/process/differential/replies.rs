//! `local_reply_config`, and the filters of access logs, by which its mappers choose.

use serde_json::{Value, json};

use super::upstream::{refusing, scripted};
use super::{Ask, Setup, cluster, get, request, route};

fn setup(manager: Value) -> Setup {
    let (dead, bound) = refusing();
    // For as long as the test runs.
    std::mem::forget(bound);
    Setup {
        host: json!({}),
        manager,
        routes: json!([
            {"name": "tea", "match": {"prefix": "/tea"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
            {"name": "away", "match": {"prefix": "/away"}, "redirect": {"path_redirect": "/x"}},
            route("/dead", json!({"cluster": "dead"})),
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![
            cluster("app", &[scripted()], &json!({})),
            cluster("dead", &[dead], &json!({})),
        ],
    }
}

fn asks() -> Vec<Ask> {
    let grpc = |path: &str| request("POST", path, "content-type: application/grpc\r\n", "");
    vec![
        Ask::new(get("/tea"), 418),
        Ask::new(request("GET", "/tea", "x-kind: one\r\n", ""), 418),
        Ask::new(get("/away"), 301),
        Ask::new(get("/dead"), 503),
        Ask::new(request("GET", "/dead", "x-kind: one\r\n", ""), 503),
        Ask::new(grpc("/dead"), 200),
        Ask::new(grpc("/tea"), 200),
        Ask::new(get("/fail"), 500),
        Ask::new(get("/x"), 200),
        Ask::new(get("/close"), 503),
        Ask::new(request("HEAD", "/dead", "", ""), 503),
    ]
}

fn status(op: &str, value: u32) -> Value {
    json!({"status_code_filter": {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "k"}}}})
}

#[test]
fn bodies_get_a_format() {
    let text = |text: &str| json!({"text_format_source": {"inline_string": text}});
    for format in [
        text("%LOCAL_REPLY_BODY%:%RESPONSE_CODE%:%REQ(:PATH)%:%REQ(x-none)%\n"),
        json!({"text_format": "<h1>%LOCAL_REPLY_BODY%</h1>", "content_type": "text/html; charset=UTF-8"}),
        json!({"json_format": {"body": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%", "of": {"path": "%REQ(:PATH)%"}}}),
    ] {
        setup(json!({"local_reply_config": {"body_format": format}})).compare(&asks());
    }
}

#[test]
fn the_first_mapper_that_fits_changes_the_reply() {
    let header =
        json!({"header_filter": {"header": {"name": "x-kind", "string_match": {"exact": "one"}}}});
    let flag = json!({"response_flag_filter": {"flags": ["UF"]}});
    let mappers = json!([
        {
            "filter": {"and_filter": {"filters": [status("EQ", 503), header]}},
            "headers_to_add": [{"header": {"key": "x-mapped", "value": "%RESPONSE_FLAGS%"}}],
            "body": {"inline_string": "first %"},
            "body_format_override": {"text_format": "%LOCAL_REPLY_BODY%!"},
        },
        {"filter": status("LE", 400), "headers_to_add": [{"header": {"key": "x-low", "value": "1"}}]},
        {"filter": flag, "body": {"inline_string": "second"}},
        {"filter": status("NE", 503), "headers_to_add": [{"header": {"key": "x-other", "value": "1"}}]},
    ]);
    setup(json!({"local_reply_config": {"mappers": mappers}})).compare(&asks());
    let mappers = json!([{"filter": status("GE", 400), "status_code": 499, "body": {"inline_string": "gone"}}]);
    let setup = setup(json!({"local_reply_config": {"mappers": mappers}}));
    setup.compare(&[
        Ask::new(get("/tea"), 499),
        Ask::new(get("/dead"), 499),
        Ask::new(get("/fail"), 500),
        Ask::new(get("/away"), 301),
        Ask::new(
            request("POST", "/dead", "content-type: application/grpc\r\n", ""),
            200,
        ),
    ]);
}

#[test]
fn logs_take_what_their_filter_takes() {
    let header = json!({"header_filter": {"header": {"name": "x-kind", "present_match": true, "invert_match": true}}});
    let unavailable = json!({"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}});
    let others = json!({"grpc_status_filter": {"statuses": ["UNAVAILABLE"], "exclude": true}});
    let long = json!({"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 60_000, "runtime_key": "k"}}}});
    let quick = json!({"duration_filter": {"comparison": {"op": "LE", "value": {"default_value": 60_000, "runtime_key": "k"}}}});
    for filter in [
        status("EQ", 503),
        status("NE", 503),
        status("LE", 301),
        header.clone(),
        unavailable,
        others,
        long,
        json!({"and_filter": {"filters": [quick, header]}}),
    ] {
        setup(json!({})).compare_logs(&asks(), &filter);
    }
}
