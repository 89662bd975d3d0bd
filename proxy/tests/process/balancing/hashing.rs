//! What is hashed of requests and connections.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::{Pair, Setup, after, cluster, endpoint, from, get, header, route, upstreams};
use crate::filters::side::{End, Side, answer};

fn app() -> Value {
    let endpoints = upstreams(9).into_iter().map(endpoint).collect();
    cluster("app", &[endpoints], json!({"lb_policy": "MAGLEV"}))
}

/// One route for each hash policy.
fn start(policies: &[(&str, Value)]) -> Pair {
    let routes = policies
        .iter()
        .map(|(path, policy)| route(path, "app", json!({"hash_policy": policy})));
    Setup::new(vec![app()], routes.collect()).start()
}

#[test]
fn requests_are_hashed_as_in_envoy() {
    let user = json!({"header": {"header_name": "X-User"}});
    let first_part = json!({"header": {
        "header_name": "x-user",
        "regex_rewrite": {"pattern": {"regex": "-.*"}, "substitution": ""},
    }});
    let query = json!({"query_parameter": {"name": "q"}});
    let cookie = json!({"cookie": {"name": "c"}});
    let source = json!({"connection_properties": {"source_ip": true}});
    let mut last = user.clone();
    last["terminal"] = true.into();
    let pair = start(&[
        ("/header", json!([user])),
        ("/part", json!([first_part])),
        ("/path", json!([{"header": {"header_name": ":path"}}])),
        ("/query", json!([query])),
        ("/cookie", json!([cookie])),
        ("/source", json!([source])),
        ("/all", json!([user, query, cookie, source])),
        ("/twice", json!([user, user])),
        ("/terminal", json!([last, query])),
        ("/state", json!([{"filter_state": {"key": "none"}}, user])),
    ]);
    let mut chosen = HashSet::new();
    for (path, headers) in [
        ("/header", "x-user: a\r\n"),
        ("/header", "x-user: b\r\n"),
        ("/header", "x-user: \r\n"),
        ("/header", "x-user: b\r\nx-user: a\r\n"),
        ("/header", "x-user: a\r\nx-user: b\r\n"),
        ("/part", "x-user: a-1\r\n"),
        ("/part", "x-user: a-2\r\nx-user: b-1\r\n"),
        ("/path/1", ""),
        ("/path/2?x", ""),
        ("/query?q=1", ""),
        ("/query?a=1&q=2&q=3", ""),
        ("/query?q", ""),
        ("/query?q=%41", ""),
        ("/cookie", "cookie: a=b; c=d\r\n"),
        ("/cookie", "cookie: c=\"quoted\"\r\n"),
        ("/cookie", "cookie: a=1\r\ncookie: c=2; c=3\r\n"),
        ("/source", ""),
        ("/source", "x-forwarded-for: 10.1.2.3\r\n"),
        ("/source", "x-forwarded-for: 2001:db8::1\r\n"),
        ("/all?q=1", "x-user: a\r\ncookie: c=2\r\n"),
        ("/all?q=1", ""),
        ("/all", "cookie: c=2\r\n"),
        ("/twice", "x-user: a\r\n"),
        ("/terminal?q=1", "x-user: a\r\n"),
        ("/terminal?q=2", "x-user: a\r\n"),
        ("/terminal?q=2", ""),
        ("/state", "x-user: a\r\n"),
    ] {
        chosen.insert(pair.same(&get(path, headers)));
    }
    assert!(chosen.len() > 3, "{chosen:?}");
}

/// What is hashed is the request as the route rewrites it, without the headers that it removes.
#[test]
fn requests_are_hashed_as_they_are_sent_on() {
    let policy = json!([{"header": {"header_name": ":path"}}, {"header": {"header_name": "x-a"}}]);
    let more = json!({"hash_policy": policy, "prefix_rewrite": "/x"});
    let mut rewritten = route("/long", "app", more);
    rewritten["request_headers_to_remove"] = json!(["x-a"]);
    let pair = Setup::new(vec![app()], vec![rewritten]).start();
    let all = (0..12).map(|n| pair.same(&get(&format!("/long/{n}"), &format!("x-a: {n}\r\n"))));
    assert!(all.collect::<HashSet<_>>().len() > 2);
}

#[test]
fn a_cookie_is_made_for_a_client_without_one() {
    let made = |more: Value| {
        let mut cookie = json!({"name": "c", "ttl": "10s"});
        for (key, value) in more.as_object().unwrap() {
            cookie[key] = value.clone();
        }
        json!([{"cookie": cookie}])
    };
    let attributes = json!([{"name": "SameSite", "value": "Strict"}, {"name": "Secure"}]);
    let pair = start(&[
        ("/plain", made(json!({}))),
        ("/session", made(json!({"ttl": "0s"}))),
        (
            "/full",
            made(json!({"path": "/full", "attributes": attributes})),
        ),
    ]);
    for path in ["/plain", "/session", "/full"] {
        for headers in ["", "cookie: a=b; c=\r\n"] {
            let answers = pair.ask(&get(path, headers));
            let cookies = answers
                .each_ref()
                .map(|seen| header(seen, "set-cookie").unwrap());
            let [ours, stock] = cookies.each_ref().map(|cookie| masked(cookie));
            assert_eq!(ours, stock, "Anyam | Envoy");
            for (seen, cookie) in answers.iter().zip(&cookies) {
                let (pair_of_cookie, _) = cookie.split_once(';').unwrap();
                let again = get(path, &format!("cookie: {pair_of_cookie}\r\n"));
                assert_eq!(pair.same(&again), from(seen));
                assert!(
                    pair.ask(&again)
                        .iter()
                        .all(|seen| header(seen, "set-cookie").is_none())
                );
            }
        }
    }
}

/// A cookie without the sixteen digits of its value.
fn masked(cookie: &str) -> String {
    let (name, rest) = cookie.split_once("=\"").unwrap();
    let (value, rest) = rest.split_once('"').unwrap();
    assert_eq!(value.len(), 16, "{cookie}");
    assert!(value.bytes().all(|b| b.is_ascii_hexdigit()), "{cookie}");
    format!("{name}=...{rest}")
}

/// Other policies ask for no hash: there is no cookie.
#[test]
fn no_cookie_is_made_where_nothing_is_hashed() {
    let endpoints = upstreams(2).into_iter().map(endpoint).collect();
    let policy = json!({"hash_policy": [{"cookie": {"name": "c", "ttl": "10s"}}]});
    let app = cluster("app", &[endpoints], json!({"lb_policy": "RANDOM"}));
    let pair = Setup::new(vec![app], vec![route("/", "app", policy)]).start();
    for seen in pair.ask(&get("/", "")) {
        assert_eq!(header(&seen, "set-cookie"), None);
    }
}

#[test]
fn connections_are_hashed_by_their_source() {
    let mut setup = Setup::new(vec![app()], vec![route("/", "app", json!({}))]);
    setup.tcp = Some(("app", json!({"hash_policy": [{"source_ip": {}}]})));
    let pair = setup.start();
    let ask = |side: &Side, source: SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&after(side.front()).into()).unwrap();
        let mut tcp = TcpStream::from(socket);
        tcp.write_all(get("/", "").as_bytes()).unwrap();
        from(&answer(&mut BufReader::new(tcp), End::Framed))
    };
    let mut chosen = HashSet::new();
    for last in 1..16 {
        let source = SocketAddr::from(([127, 77, 0, last], 0));
        let ours = ask(&pair.ours, source);
        assert_eq!(
            ours,
            ask(&pair.stock, source),
            "Anyam | Envoy, from {source}"
        );
        chosen.insert(ours);
    }
    assert!(chosen.len() > 2, "{chosen:?}");
}
