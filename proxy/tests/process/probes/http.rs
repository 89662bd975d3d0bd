//! HTTP probes, compared with the kubelet's own.

use std::io::Write;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::app::{App, path};
use super::sidecar::Sidecar;
use crate::ports::free_port;

fn http(port: u16, path: &str) -> (&'static str, serde_json::Value) {
    ("httpGet", json!({"port": port, "path": path}))
}

#[test]
fn the_app_receives_what_the_kubelet_would_have_sent() {
    let app = App::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let handler = json!({
        "port": app.port,
        "path": "/healthz?full=1",
        "httpHeaders": [
            {"name": "Host", "value": "web.example"},
            {"name": "X-Probe", "value": "a"},
            {"name": "X-Probe", "value": "b"},
            {"name": "Accept", "value": ""},
        ],
    });
    let sidecar = Sidecar::probing(("httpGet", handler), 5);
    assert_eq!(sidecar.probe().status, 200);
    let (peer, head) = app.requests.recv().unwrap();
    // The source address that netfilter recognises as a delivery.
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    let head = head.to_ascii_lowercase();
    assert!(
        head.starts_with("get /healthz?full=1 http/1.1\r\n"),
        "{head}"
    );
    for line in [
        "host: web.example",
        "x-probe: a",
        "x-probe: b",
        "connection: close",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(head.contains("\r\nuser-agent: kube-probe/"), "{head}");
    assert!(!head.contains("\r\naccept:"), "{head}");
}

#[test]
fn an_address_is_the_host_where_no_other_is_given() {
    let app = App::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let sidecar = Sidecar::probing(http(app.port, ""), 5);
    assert_eq!(sidecar.probe().status, 200);
    let (_, head) = app.requests.recv().unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("get / http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", app.port)),
        "{head}"
    );
    assert!(head.contains("\r\naccept: */*\r\n"), "{head}");
}

#[test]
fn statuses_from_200_to_399_are_good_and_others_are_passed_on() {
    let app = App::start(|head, stream| {
        let status = path(head).trim_start_matches('/');
        let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
    });
    let statuses = [200, 206, 304, 399, 400, 404, 500, 503];
    let probes: Vec<_> = statuses
        .iter()
        .map(|status| {
            let http = json!({"port": app.port, "path": format!("/{status}")});
            json!({"name": format!("web/{status}"), "httpGet": http, "timeoutSeconds": 5})
        })
        .collect();
    let sidecar = Sidecar::start(&probes.into(), None);
    for status in statuses {
        let expected = if status < 400 { 200 } else { status };
        let answer = sidecar.get(&format!("/app-health/web/{status}"), "");
        assert_eq!(answer.status, expected, "{answer:?}");
    }
    for unknown in ["/app-health/web/livez", "/app-health/", "/app-health", "/"] {
        assert_eq!(sidecar.get(unknown, "").status, 404, "{unknown}");
    }
}

#[test]
fn redirects_are_followed_within_the_host_only() {
    let app = App::start(|head, stream| {
        let answer = match path(head) {
            "/to-failure" => "302 Found\r\nlocation: /failure",
            "/to-other-host" => "301 Moved\r\nlocation: http://other.invalid/failure",
            "/to-nowhere" => "302 Found",
            "/round" => "307 Again\r\nlocation: round",
            _ => "500 Broken",
        };
        let _ = write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
    });
    for (path, expected) in [
        ("/to-failure", 500),
        ("/to-other-host", 200),
        ("/to-nowhere", 200),
        ("/round", 503),
    ] {
        let answer = Sidecar::probing(http(app.port, path), 5).probe();
        assert_eq!(answer.status, expected, "{path}: {answer:?}");
    }
    assert_eq!(
        app.requests
            .try_iter()
            .filter(|(_, head)| path(head) == "/round")
            .count(),
        11
    );
}

#[test]
fn only_the_beginning_of_a_huge_body_is_read() {
    let app = App::start(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        // Until the sidecar closes the connection: otherwise this test would not end.
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let answer = Sidecar::probing(http(app.port, "/"), 20).probe();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn an_app_that_does_not_answer_fails_in_time_and_with_a_reason() {
    let app = App::silent();
    let answer = Sidecar::probing(http(app.port, "/"), 1).probe();
    assert_eq!(answer.status, 504);
    assert!(answer.body.contains("1s"), "{answer:?}");

    let answer = Sidecar::probing(http(free_port(), "/"), 5).probe();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("refused"), "{answer:?}");

    let app = App::answering("SSH-2.0-x\r\n");
    let answer = Sidecar::probing(http(app.port, "/"), 5).probe();
    assert_eq!(answer.status, 503, "{answer:?}");
}

/// Concurrent requests for a probe share one request to the app.
#[test]
fn concurrent_requests_for_a_probe_share_its_result() {
    let app = App::silent();
    let sidecar = Sidecar::probing(http(app.port, "/"), 5);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(sidecar.probe().status, 504));
        }
    });
    assert_eq!(app.requests.try_iter().count(), 1);
    // After the kept time there is another request.
    sidecar.until("another run", || {
        assert_eq!(sidecar.probe().status, 504);
        app.requests.try_iter().count() == 1
    });
}

/// Neither more requests nor abandoned ones make it run more often.
#[test]
fn a_probe_is_performed_twice_a_second_at_most() {
    let app = App::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let sidecar = Sidecar::probing(http(app.port, "/"), 5);
    let began = Instant::now();
    for _ in 0..100 {
        drop(sidecar.ask_from([127, 0, 0, 1], "/app-health/web/livez"));
        assert_eq!(sidecar.probe().status, 200);
    }
    let most = 1 + began.elapsed().as_millis() / 500;
    let runs = u128::try_from(app.requests.try_iter().count()).unwrap();
    assert!((1..=most).contains(&runs), "{runs} runs, at most {most}");
}

/// A hook changes what the app does, and every peer can reach the port.
#[test]
fn a_hook_is_performed_only_for_a_request_with_its_token() {
    const TOKEN: &str = "AAECAwQFBgcICQoLDA0ODw";
    let app = App::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let hook = |name: &str, token: &str| {
        let http = json!({"port": app.port, "path": "/hook"});
        json!({"name": name, "httpGet": http, "hookToken": token})
    };
    let hooks = [
        hook("web/prestop", TOKEN),
        hook("web/poststart", &TOKEN.to_lowercase()),
    ];
    let sidecar = Sidecar::start(&json!(hooks), None);
    for path in [
        "web/prestop".to_owned(),
        "web/prestop/".to_owned(),
        format!("web/prestop{TOKEN}"),
        format!("web/prestop/{}", &TOKEN[1..]),
        format!("web/prestop/{TOKEN}/"),
        format!("web/prestop/{}", TOKEN.to_lowercase()),
        format!("web/poststart/{TOKEN}"),
        format!("web/livez/{TOKEN}"),
        TOKEN.to_owned(),
    ] {
        let answer = sidecar.get(&format!("/app-health/{path}"), "");
        assert_eq!(answer.status, 404, "{path}");
    }
    assert_eq!(app.requests.try_iter().count(), 0);
    // Each request runs it: the kubelet sends one for each start and end of a container.
    for _ in 0..2 {
        let answer = sidecar.get(&format!("/app-health/web/prestop/{TOKEN}"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(app.requests.try_iter().count(), 2);
    let metrics = sidecar.get("/stats/prometheus", "").body;
    let counted = "anyam_app_probes_total{probe=\"web/prestop\",result=\"success\"} 2\n";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(!metrics.contains(TOKEN));
}
