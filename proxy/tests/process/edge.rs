//! Claims of untrusted clients: not forwarded, escaped in logs, and labels of no metric.

use crate::proxy::{Proxy, Settings, ask, http_manager, mirror, upstream};

/// A proxy at the edge of a mesh, with an access log of what the client chose.
fn at_the_edge() -> Proxy {
    let log = r#", use_remote_address: true, access_log: [{ name: log, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog,
      log_format: { text_format_source: { inline_string: "%REQ(:METHOD)% %REQ(:PATH)% \"%REQ(USER-AGENT)%\" %REQ(:AUTHORITY)% %RESPONSE_CODE%\n" } } } }]"#;
    let settings = Settings {
        filters: &http_manager("", log),
        ..Settings::default()
    };
    Proxy::start(upstream(mirror), &settings)
}

#[test]
fn claims_of_clients_without_a_certificate_are_removed() {
    let proxy = at_the_edge();
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\n\
        x-forwarded-client-cert: URI=spiffe://evil\r\nx-request-id: forged\r\nx-envoy-internal: true\r\n\
        x-envoy-original-path: /forged\r\nx-envoy-max-retries: 99\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n\
        x-envoy-retry-on: 5xx\r\nx-envoy-external-address: 10.0.0.1\r\nx-envoy-decorator-operation: forged\r\n\
        x-envoy-downstream-service-cluster: forged\r\nx-envoy-expected-rq-timeout-ms: 1\r\n\
        x-envoy-force-trace: true\r\nconnection: close\r\n\r\n";
    let answer = ask(proxy.front, request).unwrap();
    let (_, forwarded) = answer.split_once("\r\n\r\n").unwrap();
    let forwarded = forwarded.to_ascii_lowercase();
    for claim in ["forged", "spiffe://evil", "x-envoy-", "https", "true"] {
        // Our own expectation is ours to send, and the address from which the request came.
        let ours = forwarded
            .replace("x-envoy-expected-rq-timeout-ms: 15000", "")
            .replace("x-envoy-external-address: 127.0.0.1", "");
        assert!(!ours.contains(claim), "{claim} in {forwarded}");
    }
    // The address it came from stands behind what it claims of its own past.
    let hops = forwarded
        .lines()
        .find_map(|line| line.strip_prefix("x-forwarded-for: "));
    assert_eq!(hops, Some("10.0.0.1,127.0.0.1"), "{forwarded}");
    assert!(
        forwarded.contains("x-forwarded-proto: http\r\n"),
        "{forwarded}"
    );
}

/// Quotes in a client's fields are escaped in the access log.
#[test]
fn clients_cannot_end_a_quoted_log_field() {
    let mut proxy = at_the_edge();
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nuser-agent: a\" admin 200 \"b\\\r\n\
        connection: close\r\n\r\n";
    let answer = ask(proxy.front, request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let line = proxy.log_line();
    assert_eq!(line, "GET / \"a\\x22 admin 200 \\x22b\\\\\" shop 200\n");
}

#[test]
fn nothing_a_client_says_breaks_a_log_line_or_a_terminal() {
    let mut proxy = at_the_edge();
    // ESC and DEL, an overlong escape's bytes, a right-to-left override, all in a header that may
    // hold bytes above ASCII.
    let agent = "curl\u{202e}\u{9b}31m";
    let request = format!(
        "GET /a%0aGET%20/b HTTP/1.1\r\nHost: shop\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n"
    );
    let answer = ask(proxy.front, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let line = proxy.log_line();
    assert!(line.starts_with("GET /a%0aGET%20/b \"curl"), "{line:?}");
    assert!(line.ends_with(" shop 200\n"), "{line:?}");
    let shown = line.trim_end_matches('\n');
    let is_safe = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(shown.chars().all(is_safe), "{line:?}");
    for control in ["\u{1b}[2J", "a\u{7f}"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: shop\r\nuser-agent: {control}\r\nconnection: close\r\n\r\n"
        );
        let answer = ask(proxy.front, &request).unwrap();
        let line = proxy.log_line();
        assert!(!line.contains(control), "{line:?} after {answer:?}");
    }
}

/// Values that a client makes up.
const MADE_UP: usize = 300;
/// Lines more than that must not come of them.
const LINES: usize = 100;

#[test]
fn made_up_values_make_no_labels() {
    let proxy = at_the_edge();
    let ask_for = |number: usize| {
        let request = format!(
            "M{number} /p{number} HTTP/1.1\r\nHost: h{number}.shop\r\nuser-agent: a{number}\r\nx-envoy-peer-metadata-id: i{number}\r\n\
             connection: close\r\n\r\n"
        );
        ask(proxy.front, &request).unwrap()
    };
    ask_for(0);
    let before = proxy.metrics().lines().count();
    for number in 1..MADE_UP {
        ask_for(number);
    }
    let metrics = proxy.metrics();
    let after = metrics.lines().count();
    assert!(after < before + LINES, "{before} lines became {after}");
    assert!(!metrics.contains("h299") && !metrics.contains("M299"));
}
