//! The app's metrics and the sidecar's in one response.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::app::App;
use super::sidecar::{Answer, Sidecar};
use crate::ports::free_port;

/// The headers that Prometheus sends.
const PROMETHEUS: &str = "accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1\r\nx-prometheus-scrape-timeout-seconds: 10\r\n";

fn scraping(metrics: &Value, headers: &str) -> Answer {
    let sidecar = Sidecar::start(&json!([]), Some(metrics));
    let answer = sidecar.get("/stats/prometheus", headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    // Our own families are always there, and no family occurs twice.
    assert!(answer.body.contains("anyam_panics_total 0\n"), "{answer:?}");
    let types = answer
        .body
        .lines()
        .filter(|line| line.starts_with("# TYPE "));
    let mut seen = HashSet::new();
    for line in types {
        let name = line.split(' ').nth(2).unwrap();
        assert!(seen.insert(name), "{name} is there twice");
    }
    answer
}

fn of(app: &App) -> Value {
    json!({"port": app.port})
}

fn is_up(answer: &Answer) -> bool {
    let line = |value: u8| format!("\nanyam_app_metrics_up {value}\n");
    assert!(answer.body.contains(&line(0)) != answer.body.contains(&line(1)));
    answer.body.contains(&line(1))
}

#[test]
fn text_format_is_kept() {
    let app = App::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\n\r\n\
         # HELP orders_total Orders.\n# TYPE orders_total counter\norders_total 7\n\
         # TYPE anyam_panics_total counter\nanyam_panics_total 9\n\
         # a comment\nlast 1",
    );
    let answer = scraping(&json!({"port": app.port, "path": "/m?x=1"}), PROMETHEUS);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    assert!(answer.body.contains("orders_total 7\n"));
    assert!(answer.body.ends_with("# a comment\nlast 1\n"));
    assert!(!answer.body.contains("anyam_panics_total 9"));
    assert!(is_up(&answer));
    let (peer, head) = app.requests.recv().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    assert!(head.starts_with("GET /m?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
}

#[test]
fn open_metrics_is_kept() {
    let app = App::answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\r\n\
         # TYPE orders counter\norders_total 7 # {trace_id=\"a\"} 1\n\
         # TYPE anyam_panics counter\nanyam_panics_total 9\n# EOF\n",
    );
    let answer = scraping(&of(&app), PROMETHEUS);
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text"),
        "{}",
        answer.head
    );
    assert!(answer.body.contains("# TYPE anyam_panics counter\n"));
    assert!(
        answer
            .body
            .contains("orders_total 7 # {trace_id=\"a\"} 1\n")
    );
    assert!(!answer.body.contains("anyam_panics_total 9"));
    assert_eq!(answer.body.matches("# EOF\n").count(), 1);
    assert!(answer.body.ends_with("\n# EOF\n"));
    assert!(is_up(&answer));
}

#[test]
fn a_scraper_of_protobuf_gets_text() {
    let app = App::answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\na 1\n");
    let accept = "accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;q=0.5\r\n";
    assert!(is_up(&scraping(&of(&app), accept)));
    let (_, head) = app.requests.recv().unwrap();
    assert!(
        !head.contains("protobuf") && head.contains("text/plain"),
        "{head}"
    );
}

#[test]
fn an_app_without_metrics_hides_none_of_ours() {
    let page =
        App::answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<p>orders_total 7");
    let error =
        App::answering("HTTP/1.1 500 No\r\ncontent-type: text/plain\r\n\r\norders_total 7\n");
    let binary = App::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\norders_total 7 \xff\n");
    });
    let cut = App::answering("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\norders_total 7\n");
    let huge = App::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&b"orders_total 7\n".repeat(1000)).is_ok() {}
    });
    let none = json!({"port": free_port()});
    for metrics in [
        of(&page),
        of(&error),
        of(&binary),
        of(&cut),
        of(&huge),
        none,
    ] {
        let answer = scraping(&metrics, PROMETHEUS);
        assert!(!answer.body.contains("orders_total"), "{metrics}");
        assert!(!is_up(&answer), "{metrics}");
    }
}

#[test]
fn a_slow_app_is_waited_for_no_longer_than_the_scraper_allows() {
    let app = App::silent();
    let began = Instant::now();
    let answer = scraping(&of(&app), "x-prometheus-scrape-timeout-seconds: 0.5\r\n");
    assert!(!is_up(&answer));
    // Not the default of eight seconds.
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn an_app_without_metrics_leaves_the_sidecars() {
    let sidecar = Sidecar::start(&json!([]), None);
    let answer = sidecar.get("/stats/prometheus", PROMETHEUS);
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("anyam_panics_total 0\n"));
    assert!(!answer.body.contains("anyam_app_metrics_up"));
}
