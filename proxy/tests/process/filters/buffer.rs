//! The buffer filter.

use std::io::{BufRead, Write};

use serde_json::{Value, json};

use super::{Scenario, ask, filter, get, route, route_with, typed};

fn scenario() -> Scenario {
    let own = filter(
        "buffer",
        "buffer.v3.Buffer",
        json!({"max_request_bytes": 10}),
    );
    let of_route = |config: Value| json!({"buffer": typed("buffer.v3.BufferPerRoute", config)});
    let routes = json!([
        route_with("/off", of_route(json!({"disabled": true}))),
        route_with(
            "/more",
            of_route(json!({"buffer": {"max_request_bytes": 20}}))
        ),
        route("/"),
    ]);
    Scenario::with_routes(json!([own]), routes)
}

fn chunked(path: &str, pieces: &[&str]) -> String {
    let mut text = ask("POST", path, "transfer-encoding: chunked\r\n");
    for piece in pieces {
        text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    text + "0\r\n\r\n"
}

fn sized(path: &str, body: &str) -> String {
    let length = format!("content-length: {}\r\n", body.len());
    ask("POST", path, &length) + body
}

#[test]
fn bodies_are_buffered_whole_or_refused() {
    scenario().compare(&[
        (get("/", ""), 200),
        (sized("/", ""), 200),
        (sized("/", "0123456789"), 200),
        (sized("/", "0123456789a"), 413),
        // What came in chunks goes on with its length.
        (chunked("/", &["01234", "56789"]), 200),
        (chunked("/", &["01234", "56789", "a"]), 413),
        (chunked("/", &[]), 200),
        (sized("/more", "0123456789a"), 200),
        (sized("/more", "0123456789a0123456789"), 413),
        (sized("/off", "0123456789a0123456789a"), 200),
        (chunked("/off", &["0123456789a", "0123456789a"]), 200),
    ]);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let mut scenario = scenario();
    scenario.manager = json!({"stream_idle_timeout": "0.3s"});
    let started = ask("POST", "/", "content-length: 5\r\n") + "01";
    scenario.compare(&[(started, 408)]);
}

#[test]
fn expect_100_continue_is_answered() {
    let upstream = super::upstream::Reflector::start();
    let ours = super::side::Side::anyam(&scenario(), upstream.address);
    let tcp = ours.connect();
    let mut writer = tcp.try_clone().unwrap();
    let mut lines = std::io::BufReader::new(tcp).lines();
    let head = ask(
        "POST",
        "/",
        "content-length: 5\r\nexpect: 100-continue\r\nconnection: close\r\n",
    );
    writer.write_all(head.as_bytes()).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "HTTP/1.1 100 Continue");
    writer.write_all(b"01234").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "");
    assert_eq!(lines.next().unwrap().unwrap(), "HTTP/1.1 200 OK");
    assert!(lines.any(|line| line.unwrap().contains("01234")));
}

/// What is left of a refused body does not become the next request.
#[test]
fn a_refused_body_is_read_to_its_end() {
    let upstream = super::upstream::Reflector::start();
    let ours = super::side::Side::anyam(&scenario(), upstream.address);
    let next = get("/", "");
    for refused in [
        sized("/", "GET /smuggled HTTP/1.1\r\nhost: shop\r\n\r\n"),
        chunked(
            "/",
            &[
                "0123456789a",
                "GET /smuggled HTTP/1.1\r\nhost: shop\r\n\r\n",
            ],
        ),
    ] {
        assert_eq!(ours.statuses(&[refused, next.clone()]), [413, 200]);
    }
}
