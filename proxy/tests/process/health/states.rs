//! What results do to a host's health: the flags after each, beside Envoy's.

use serde_json::json;

use super::host::{Speaks, Step};
use super::{SHORT, check, http_check, merge, same_states};

const GOOD: Step = Step::Status(200);
const BAD: Step = Step::Status(503);
const HEALTHY: &str = "healthy";
const FAILED: &str = "/failed_active_hc";

fn thresholds(unhealthy: u32, healthy: u32, http: serde_json::Value) -> serde_json::Value {
    let mut check = check(http_check(http));
    let more = json!({"unhealthy_threshold": unhealthy, "healthy_threshold": healthy});
    merge(&mut check, &more);
    check
}

/// With a short time-out.
fn short(mut check: serde_json::Value) -> serde_json::Value {
    merge(&mut check, &json!({"timeout": SHORT}));
    check
}

#[test]
fn the_first_result_decides_and_later_ones_count() {
    let check = thresholds(2, 3, json!({}));
    let states = same_states(Speaks::Http, &check, &[GOOD, GOOD]);
    assert_eq!(states, [HEALTHY, HEALTHY]);
    let script = [BAD, GOOD, GOOD, GOOD, BAD, GOOD, BAD, GOOD, GOOD, GOOD];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(states[2..4], [FAILED, HEALTHY]);
    // 503 makes unhealthy at once.
    assert_eq!(states[4], FAILED);
}

#[test]
fn failures_of_the_network_are_counted() {
    let check = thresholds(3, 1, json!({}));
    for failure in [
        Step::Close,
        Step::Reset,
        Step::Bytes("junk\r\n\r\n"),
        Step::EndlessHead,
    ] {
        let script = [
            GOOD, failure, failure, GOOD, failure, failure, failure, GOOD,
        ];
        let states = same_states(Speaks::Http, &check, &script);
        assert_eq!(states[5], HEALTHY, "{failure:?}");
        assert_eq!(states[6], FAILED, "{failure:?}");
    }
}

#[test]
fn time_outs_are_counted_and_marked() {
    let late = "/failed_active_hc/active_hc_timeout";
    let check = short(thresholds(2, 1, json!({})));
    let script = [GOOD, Step::Silent, Step::Silent, GOOD];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(states, [HEALTHY, HEALTHY, late, HEALTHY]);
    let check = short(thresholds(1, 1, json!({})));
    let partial = Step::Bytes("HTTP/1.1 200 A\r\nx:");
    let script = [GOOD, Step::SlowBody, GOOD, partial, GOOD];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(states, [HEALTHY, late, HEALTHY, late, HEALTHY]);
}

#[test]
fn statuses_are_expected_retriable_or_neither() {
    let http = json!({
        "expected_statuses": [{"start": 200, "end": 300}],
        "retriable_statuses": [{"start": 500, "end": 502}],
    });
    let check = thresholds(2, 1, http);
    let of = Step::Status;
    let script = [
        of(299),
        of(500),
        of(204),
        of(501),
        of(500),
        of(200),
        of(502),
        of(200),
        of(300),
    ];
    let states = same_states(Speaks::Http, &check, &script);
    let (yes, no) = (HEALTHY, FAILED);
    assert_eq!(states, [yes, yes, yes, yes, no, yes, no, yes, no]);
}

#[test]
fn a_host_says_that_it_is_degraded() {
    let check = thresholds(1, 2, json!({}));
    let degraded = Step::With(200, "x-envoy-degraded: any");
    let script = [
        degraded, degraded, GOOD, degraded, BAD, degraded, GOOD, GOOD,
    ];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(states[0], "/degraded_active_hc");
    assert_eq!(states[2], HEALTHY);
}

#[test]
fn a_host_that_asks_for_no_more_is_excluded_until_it_passes() {
    let check = thresholds(3, 2, json!({}));
    let leaves = "x-envoy-immediate-health-check-fail: true";
    let (excluded, with_success) = (Step::With(503, leaves), Step::With(200, leaves));
    let script = [GOOD, with_success, excluded, BAD, GOOD, GOOD];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(
        states[2],
        "/failed_active_hc/excluded_via_immediate_hc_fail"
    );
    assert_eq!(states[5], HEALTHY);
}

#[test]
fn bodies_have_to_contain_what_is_wanted() {
    let hex = |text: &str| -> String { text.bytes().map(|b| format!("{b:02x}")).collect() };
    let http = json!({"receive": [{"text": hex("one")}, {"text": hex("two")}], "response_buffer_size": 12});
    let check = thresholds(3, 1, http);
    let script = [
        Step::Body("one two"),
        Step::Body("two one"),
        Step::Body("xoneyytwoz"),
        // What is wanted comes after what is kept.
        Step::Body("one         two"),
        Step::Body("onetwo"),
        Step::Status(200),
    ];
    let states = same_states(Speaks::Http, &check, &script);
    let (yes, no) = (HEALTHY, FAILED);
    assert_eq!(states, [yes, no, yes, no, yes, no]);
}

#[test]
fn the_name_of_the_service_has_to_match() {
    let http = json!({"service_name_matcher": {"prefix": "shop"}});
    let check = thresholds(3, 1, http);
    let named = |header| Step::With(200, header);
    let script = [
        named("x-envoy-upstream-healthchecked-cluster: shop-eu"),
        named("x-envoy-upstream-healthchecked-cluster: web"),
        named("x-envoy-upstream-healthchecked-cluster: shop"),
        GOOD,
    ];
    let states = same_states(Speaks::Http, &check, &script);
    assert_eq!(states, [HEALTHY, FAILED, HEALTHY, FAILED]);
}

#[test]
fn connections_are_kept_or_not() {
    for reuse in [true, false] {
        let mut check = thresholds(2, 1, json!({}));
        merge(&mut check, &json!({"reuse_connection": reuse}));
        let closing = Step::With(200, "connection: close");
        let script = [GOOD, GOOD, closing, GOOD, Step::Close, GOOD];
        let states = same_states(Speaks::Http, &check, &script);
        assert_eq!(states, [HEALTHY; 6]);
    }
}

#[test]
fn bytes_are_sent_and_wanted_over_tcp() {
    let with = |more: serde_json::Value| {
        let mut check = check(json!({"tcp_health_check": {
            "send": {"text": "70696e67"},
            "receive": [{"text": "706f"}, {"text": "6e67"}],
        }}));
        merge(&mut check, &json!({"unhealthy_threshold": 2}));
        merge(&mut check, &more);
        check
    };
    let pong = Step::Bytes("pong");
    for reuse in [true, false] {
        let check = with(json!({"reuse_connection": reuse}));
        let script = [
            pong,
            Step::Bytes("xxpoxxng"),
            pong,
            Step::Reset,
            pong,
            Step::Close,
            pong,
        ];
        let states = same_states(Speaks::Raw, &check, &script);
        assert_eq!(states, [HEALTHY; 7]);
    }
    let check = short(with(json!({})));
    let script = [pong, Step::Bytes("ngpo"), Step::Silent, pong];
    let states = same_states(Speaks::Raw, &check, &script);
    assert_eq!(states[2], "/failed_active_hc/active_hc_timeout");
    assert_eq!(states[3], HEALTHY);
}
