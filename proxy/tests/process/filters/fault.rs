//! Fault injection.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::side::Side;
use super::upstream::Reflector;
use super::{Scenario, ask, filter, get, route, route_with, typed};

const KIND: &str = "fault.v3.HTTPFault";

fn share(of_hundred: u32) -> Value {
    json!({"numerator": of_hundred, "denominator": "HUNDRED"})
}

fn scenario(config: Value) -> Scenario {
    Scenario::new(json!([filter("fault", KIND, config)]))
}

fn call(path: &str, headers: &str) -> String {
    ask(
        "POST",
        path,
        &format!("content-type: application/grpc\r\n{headers}"),
    )
}

#[test]
fn requests_are_aborted_and_delayed() {
    scenario(json!({
        "abort": {"http_status": 503, "percentage": share(100)},
        "delay": {"fixed_delay": "0.05s", "percentage": share(100)},
        "filter_metadata": {"text": "some text", "number": 1.5, "deep": {"list": [1, "x", true, null]}},
    }))
    .compare(&[(get("/", ""), 503), (call("/", ""), 200)]);
    scenario(json!({"abort": {"grpc_status": 8, "percentage": share(100)}}))
        .compare(&[(get("/", ""), 200), (call("/", ""), 200)]);
    scenario(json!({
        "abort": {"http_status": 418, "percentage": share(100), "response_body": "sorry"},
    }))
    .compare(&[(get("/", ""), 418)]);
    // Without a share there is no fault.
    scenario(json!({"abort": {"http_status": 503}, "delay": {"fixed_delay": "5s"}}))
        .compare(&[(get("/", ""), 200)]);
    scenario(json!({
        "abort": {"http_status": 503, "percentage": share(100)},
        "max_active_faults": 0,
    }))
    .compare(&[(get("/", ""), 200)]);
}

#[test]
fn headers_say_what_is_injected() {
    let config = json!({
        "abort": {"header_abort": {}, "percentage": share(100)},
        "delay": {"header_delay": {}, "percentage": share(100)},
        "response_rate_limit": {"header_limit": {}, "percentage": share(100)},
    });
    let rows = [
        ("", 200),
        ("x-envoy-fault-abort-request: 418\r\n", 418),
        ("x-envoy-fault-abort-request: 199\r\n", 200),
        ("x-envoy-fault-abort-request: 600\r\n", 200),
        ("x-envoy-fault-abort-request: 5x\r\n", 200),
        ("x-envoy-fault-abort-request: \r\n", 200),
        ("x-envoy-fault-abort-grpc-request: 5\r\n", 200),
        (
            "x-envoy-fault-abort-request: 418\r\nx-envoy-fault-abort-grpc-request: 5\r\n",
            418,
        ),
        (
            "x-envoy-fault-abort-request: 418\r\nx-envoy-fault-abort-request-percentage: 0\r\n",
            200,
        ),
        (
            "x-envoy-fault-abort-request: 418\r\nx-envoy-fault-abort-request-percentage: x\r\n",
            418,
        ),
        ("x-envoy-fault-delay-request: 20\r\n", 200),
        (
            "x-envoy-fault-delay-request: 20\r\nx-envoy-fault-delay-request-percentage: 0\r\n",
            200,
        ),
        ("x-envoy-fault-delay-request: 0\r\n", 200),
        ("x-envoy-fault-delay-request: -5\r\n", 200),
        ("x-envoy-fault-throughput-response: 100\r\n", 200),
        ("x-envoy-fault-throughput-response: 0\r\n", 200),
    ];
    let mut asks: Vec<_> = rows
        .map(|(headers, status)| (get("/", headers), status))
        .into();
    asks.push((call("/", "x-envoy-fault-abort-grpc-request: 5\r\n"), 200));
    scenario(config).compare(&asks);
    // They request no more than the configured percentage.
    let more =
        "x-envoy-fault-abort-request: 418\r\nx-envoy-fault-abort-request-percentage: 100\r\n";
    scenario(json!({"abort": {"header_abort": {}, "percentage": share(0)}}))
        .compare(&[(get("/", more), 200)]);
}

#[test]
fn faults_are_meant_for_some_requests() {
    let abort = json!({"http_status": 503, "percentage": share(100)});
    let node = "x-envoy-downstream-service-node: one\r\n";
    let table = [
        (json!({"upstream_cluster": "other"}), [200, 200, 200]),
        (json!({"upstream_cluster": "app"}), [503, 503, 503]),
        (json!({"downstream_nodes": ["one", "two"]}), [200, 503, 200]),
        (
            json!({"headers": [{"name": "x-f", "string_match": {"exact": "1"}}]}),
            [200, 200, 503],
        ),
    ];
    for (mut config, [plain, by_node, by_header]) in table {
        config["abort"] = abort.clone();
        scenario(config).compare(&[
            (get("/", ""), plain),
            (get("/", node), by_node),
            (get("/", "x-f: 1\r\n"), by_header),
        ]);
    }
    // A route has its own, and without a route there is none.
    let of_route = typed(
        KIND,
        json!({"abort": {"http_status": 418, "percentage": share(100)}}),
    );
    let own = filter("fault", KIND, json!({"abort": abort}));
    let routes = json!([route_with("/own", json!({"fault": of_route})), route("/up")]);
    Scenario::with_routes(json!([own]), routes).compare(&[
        (get("/own", ""), 418),
        (get("/up", ""), 503),
        (get("/elsewhere", ""), 503),
    ]);
}

#[test]
fn a_delay_lasts_and_a_slow_response_takes_its_time() {
    let upstream = Reflector::start();
    let delay = json!({"delay": {"fixed_delay": "0.3s", "percentage": share(100)}});
    let ours = Side::anyam(&scenario(delay), upstream.address);
    let began = Instant::now();
    assert_eq!(ours.ask(&get("/", "")).status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300));

    let rate = json!({"fixed_limit": {"limit_kbps": 8}, "percentage": share(100)});
    let slow = scenario(json!({"response_rate_limit": rate}));
    let padding = "a".repeat(6 * 1024);
    let request = get("/", &format!("x-pad: {padding}\r\n"));
    let mut seen = Vec::new();
    for side in [
        Side::anyam(&slow, upstream.address),
        Side::envoy(&slow, upstream.address),
    ] {
        let began = Instant::now();
        seen.push(side.ask(&request));
        // Six KiB at eight a second, the first sixteenth at once.
        assert!(
            began.elapsed() >= Duration::from_millis(600),
            "{:?}",
            began.elapsed()
        );
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].body.contains(&padding));
}

/// Bodies that would be spliced pass at their rate, whole.
#[test]
fn a_long_response_is_slow_and_whole() {
    let long = "b".repeat(300 * 1024);
    let body = long.clone();
    let upstream = crate::proxy::upstream(move |mut tcp| {
        use std::io::{Read, Write};
        let mut head = [0; 16 * 1024];
        let length = body.len();
        while matches!(tcp.read(&mut head), Ok(1..)) {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            if tcp.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let rate = json!({"fixed_limit": {"limit_kbps": 600}, "percentage": share(100)});
    let slow = scenario(json!({"response_rate_limit": rate}));
    let ours = Side::anyam(&slow, upstream);
    let began = Instant::now();
    let seen = ours.ask(&get("/", ""));
    assert!(seen.body == long && began.elapsed() >= Duration::from_millis(350));
}

#[test]
fn a_client_that_leaves_makes_room_for_another_fault() {
    let upstream = Reflector::start();
    let config = json!({
        "abort": {"header_abort": {}, "percentage": share(100)},
        "delay": {"header_delay": {}, "percentage": share(100)},
        "max_active_faults": 1,
    });
    let ours = Side::anyam(&scenario(config), upstream.address);
    let abort = get("/", "x-envoy-fault-abort-request: 418\r\n");
    let mut waiting = ours.connect();
    let long = get("/", "x-envoy-fault-delay-request: 3600000\r\n");
    std::io::Write::write_all(&mut waiting, long.as_bytes()).unwrap();
    ours.until("no room", |ours| {
        (ours.ask(&abort).status == 200).then_some(())
    });
    drop(waiting);
    ours.until("room", |ours| {
        (ours.ask(&abort).status == 418).then_some(())
    });
}
