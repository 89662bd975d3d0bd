//! The header mutation filter.

use serde_json::{Value, json};

use super::{Scenario, filter, get, route, route_with, typed};

fn append(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": key, "value": value}, "append_action": action}})
}

fn add(key: &str, value: &str) -> Value {
    append(key, value, "APPEND_IF_EXISTS_OR_ADD")
}

#[test]
fn headers_are_added_replaced_and_removed_in_order() {
    let request = json!([
        append("x-a", "more", "APPEND_IF_EXISTS_OR_ADD"),
        append("x-b", "new", "ADD_IF_ABSENT"),
        append("x-c", "other", "OVERWRITE_IF_EXISTS_OR_ADD"),
        append("x-d", "other", "OVERWRITE_IF_EXISTS"),
        add("x-path", "%REQ(:PATH)% of %REQ(:METHOD)%"),
        add("x-absent", "%REQ(x-nothing)%"),
        add("x-part", "a%REQ(x-nothing)%b"),
        add("x-raw", "%REQ(x-odd)%"),
        add("x-empty", ""),
        json!({"append": {"header": {"key": "x-kept", "value": ""}, "keep_empty_value": true}}),
        json!({"remove": "x-gone"}),
        json!({"remove_on_match": {"key_matcher": {"prefix": "x-secret-"}}}),
        add("x-secret-after", "stays"),
    ]);
    let response = json!([
        append("x-from", "here", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-code", "%RESPONSE_CODE%"),
        json!({"remove": "x-nothing"}),
    ]);
    let mutations = json!({"request_mutations": request, "response_mutations": response});
    let config = json!({"mutations": mutations});
    let own = filter("hm", "header_mutation.v3.HeaderMutation", config);
    Scenario::new(json!([own])).compare(&[
        (get("/p?q=1", ""), 200),
        (
            get(
                "/p",
                "x-a: 1\r\nx-b: 1\r\nx-c: 1\r\nx-c: 2\r\nx-d: 1\r\nx-gone: 1\r\n\
                 x-secret-one: 1\r\nX-Secret-Two: 2\r\nx-odd: back\\slash \"quoted\"\r\n",
            ),
            200,
        ),
    ]);
}

#[test]
fn every_level_of_routes_adds_its_own() {
    let of = |value: &str| {
        let list = json!([add("x-level", value)]);
        let mutations = json!({"request_mutations": list, "response_mutations": list});
        typed(
            "header_mutation.v3.HeaderMutationPerRoute",
            json!({"mutations": mutations}),
        )
    };
    for wins in [false, true] {
        let list = json!([add("x-level", "filter")]);
        let mutations = json!({"request_mutations": list, "response_mutations": list});
        let config = json!({
            "mutations": mutations,
            "most_specific_header_mutations_wins": wins,
        });
        let own = filter("hm", "header_mutation.v3.HeaderMutation", config);
        let host = json!({
            "name": "all",
            "domains": ["*"],
            "typed_per_filter_config": {"hm": of("host")},
            "response_headers_to_add": [{"header": {"key": "x-level", "value": "edit"}}],
            "routes": [route_with("/route", json!({"hm": of("route")})), route("/")],
        });
        let mut scenario = Scenario::with_host(json!([own]), host);
        scenario.table = json!({"typed_per_filter_config": {"hm": of("table")}});
        scenario.compare(&[(get("/route", ""), 200), (get("/", ""), 200)]);
    }
}
