//! The app's metrics and the sidecar's in one response.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::app::App;
use super::sidecar::{Answer, Sidecar};
use crate::ports::free_port;

/// The headers that Prometheus sends.
const PROMETHEUS: &str = "accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1\r\nx-prometheus-scrape-timeout-seconds: 10\r\n";

/// That ask at once.
const SCRAPERS: usize = 20;

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

/// Regardless of their number and their time-outs.
#[test]
fn scrapers_share_a_request_to_the_app() {
    // The app answers once all scrapers are there.
    let (all_there, waiting) = mpsc::channel::<()>();
    let waiting = Arc::new(Mutex::new(waiting));
    let app = App::start(move |_, stream| {
        let _ = waiting.lock().unwrap().recv();
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\norders_total 7\n");
    });
    let sidecar = Sidecar::start(&json!([]), Some(&of(&app)));
    let started = Barrier::new(SCRAPERS + 1);
    thread::scope(|scope| {
        for number in 0..SCRAPERS {
            let headers = format!("x-prometheus-scrape-timeout-seconds: {}\r\n", 10 + number);
            let (sidecar, started) = (&sidecar, &started);
            scope.spawn(move || {
                started.wait();
                let answer = sidecar.get("/stats/prometheus", &headers);
                assert!(answer.body.contains("orders_total 7\n") && is_up(&answer));
            });
        }
        started.wait();
        drop(all_there);
    });
    let requests = app.requests.try_iter().count();
    assert!((1..5).contains(&requests), "{requests}");
}

/// Metrics of eight megabytes, more than sockets buffer; the last line is `last 1`.
fn large() -> App {
    let line = format!("orders_total{{of=\"{}\"}} 7\n", "x".repeat(1000));
    let text = format!("{}last 1\n", line.repeat((8 << 20) / line.len()));
    App::start(move |_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
        let _ = stream.write_all(head);
        let _ = stream.write_all(text.as_bytes());
    })
}

/// Reads until a response's head has begun.
fn has_begun(stream: &mut TcpStream) -> bool {
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).is_ok() && &begin == b"HTTP/1.1 200"
}

/// Whether the rest of a response arrives completely.
fn is_whole(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    // A reset ends it as well.
    let _ = stream.read_to_end(&mut rest);
    rest.ends_with(b"\nlast 1\n")
}

#[test]
fn peers_that_do_not_read_fill_no_memory_and_delay_no_scraper() {
    let app = large();
    let sidecar = Sidecar::start(&json!([]), Some(&of(&app)));
    let scrape = || {
        let answer = sidecar.get("/stats/prometheus", PROMETHEUS);
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with("\nlast 1\n") && is_up(&answer));
    };
    scrape();
    let before = sidecar.resident();
    let mut peers = Vec::new();
    for number in 0..64 {
        let mut peer = sidecar.ask_from([127, 0, 0, 10 + number % 16], "/stats/prometheus");
        assert!(has_begun(&mut peer));
        peers.push(peer);
    }
    let grown = sidecar.resident().saturating_sub(before) >> 20;
    // Each with a page of its own would be 512.
    assert!(grown < 160, "{grown} MiB more");
    scrape();
}

#[test]
fn the_oldest_page_that_a_peer_does_not_read_is_closed() {
    let app = large();
    let sidecar = Sidecar::start(&json!([]), Some(&of(&app)));
    let mut peers = Vec::new();
    for source in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        for _ in 0..5 {
            let mut peer = sidecar.ask_from(source, "/stats/prometheus");
            assert!(has_begun(&mut peer));
            peers.push(peer);
        }
    }
    let whole: Vec<bool> = peers.into_iter().map(is_whole).collect();
    let each = [false, true, true, true, true];
    assert_eq!(whole, [each, each].concat());
}

/// A request for a probe or hook may take as long as the pod's time-out; other connections are
/// closed after half a minute.
#[test]
fn a_connection_lasts_half_a_minute_unless_it_waits_for_the_app() {
    let (app, silent) = (large(), App::silent());
    let http = json!({"port": silent.port});
    let probes = json!([{"name": "web/readyz", "httpGet": http, "timeoutSeconds": 33}]);
    let sidecar = Sidecar::start(&probes, Some(&of(&app)));
    let mut peer = sidecar.ask_from([127, 0, 0, 2], "/stats/prometheus");
    assert!(has_begun(&mut peer));
    let probe = sidecar.ask_from([127, 0, 0, 3], "/app-health/web/readyz");
    assert_eq!(Answer::read(probe).status, 504);
    assert!(!is_whole(peer));
}
