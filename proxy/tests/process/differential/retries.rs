//! Retries, and the headers by which clients ask for them.

use serde_json::{Value, json};

use super::upstream::{refusing, scripted};
use super::{Ask, Setup, cluster, get, request, route};

fn policy(prefix: &str, policy: Value) -> Value {
    route(prefix, json!({"cluster": "app", "retry_policy": policy}))
}

#[test]
fn what_is_tried_again_is_what_envoy_tries_again() {
    let app = scripted();
    let (dead, _bound) = refusing();
    let quick = json!({"base_interval": "0.001s", "max_interval": "0.002s"});
    let mut policies = Vec::new();
    for (prefix, on) in [
        ("/five", "5xx"),
        ("/gateway", "gateway-error"),
        ("/reset", "reset"),
        ("/connect", "connect-failure"),
        ("/codes", "retriable-status-codes"),
        ("/four", "retriable-4xx"),
        ("/headers", "retriable-headers"),
    ] {
        policies.push(policy(
            prefix,
            json!({
                "retry_on": on, "num_retries": 2, "retry_back_off": quick,
                "retriable_status_codes": [500],
                "retriable_headers": [{"name": "x-again", "present_match": true}],
            }),
        ));
    }
    policies.push(route("/dead", json!({
        "cluster": "dead",
        "retry_policy": {"retry_on": "connect-failure", "num_retries": 1, "retry_back_off": quick},
    })));
    policies.push(policy(
        "/try",
        json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "2s", "retry_back_off": quick}),
    ));
    policies.push(route("/", json!({"cluster": "app"})));
    let setup = Setup {
        host: json!({"include_request_attempt_count": true, "include_attempt_count_in_response": true}),
        manager: json!({"use_remote_address": true}),
        routes: Value::Array(policies),
        clusters: vec![
            cluster("app", &[app], &json!({})),
            cluster("dead", &[dead], &json!({})),
        ],
    };
    let mut asks = vec![Ask::new(get("/dead"), 503)];
    for prefix in [
        "/five", "/gateway", "/reset", "/connect", "/codes", "/four", "/headers", "",
    ] {
        asks.push(Ask::new(get(&format!("{prefix}/fail")), 500));
        asks.push(Ask::new(get(&format!("{prefix}/close")), 503));
        asks.push(Ask::new(get(&format!("{prefix}/garbage")), 502));
        asks.push(Ask::new(get(&format!("{prefix}/x")), 200));
        let headed = request(
            "GET",
            &format!("{prefix}/x"),
            "x-answer: x-again: 1\r\n",
            "",
        );
        asks.push(Ask::new(headed, 200));
        let body = request(
            "POST",
            &format!("{prefix}/fail"),
            "content-length: 3\r\n",
            "abc",
        );
        asks.push(Ask::new(body, 500));
    }
    // No address is internal, so these are not taken.
    let asking = |headers: &str| request("GET", "/fail", headers, "");
    asks.push(Ask::new(asking("x-envoy-retry-on: 5xx\r\n"), 500));
    asks.push(Ask::new(
        asking("x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 2\r\n"),
        500,
    ));
    asks.push(Ask::new(
        asking(
            "x-envoy-retry-on: retriable-status-codes\r\nx-envoy-retriable-status-codes: 500\r\n",
        ),
        500,
    ));
    setup.compare(&asks);
}
