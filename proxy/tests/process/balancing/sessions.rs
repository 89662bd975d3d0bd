//! Sessions that stay on an endpoint.

use serde_json::{Value, json};

use super::{Pair, Setup, cluster, endpoint, from, get, header, route, upstreams};
use crate::filters::side::Seen;
use crate::filters::{filter, typed};

const STATES: &str = "type.googleapis.com/envoy.extensions.http.stateful_session";
const KIND: &str = "stateful_session.v3.StatefulSession";
const OF_ROUTE: &str = "stateful_session.v3.StatefulSessionPerRoute";

fn cookie(more: Value) -> Value {
    let mut cookie = json!({"name": "session"});
    for (key, value) in more.as_object().unwrap() {
        cookie[key] = value.clone();
    }
    state(
        "cookie.v3.CookieBasedSessionState",
        json!({"cookie": cookie}),
    )
}

fn in_header() -> Value {
    state(
        "header.v3.HeaderBasedSessionState",
        json!({"name": "x-session"}),
    )
}

fn state(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{STATES}.{kind}").into();
    // Envoy finds these extensions by name.
    let (name, _) = kind.split_once('.').unwrap();
    let name = format!("envoy.http.stateful_session.{name}");
    json!({"session_state": {"name": name, "typed_config": config}})
}

fn strict(mut session: Value, status: u32) -> Value {
    session["strict"] = true.into();
    session["status_on_strict_destination_not_found"] = status.into();
    session
}

/// A route of its own for each of these sessions.
fn routes(sessions: &[(&str, Value)]) -> Vec<Value> {
    let one = |(path, session): &(&str, Value)| {
        let mut one = route(path, "app", json!({}));
        let config = typed(OF_ROUTE, json!({"stateful_session": session}));
        one["typed_per_filter_config"] = json!({"session": config});
        one
    };
    sessions.iter().map(one).collect()
}

fn start(app: Value, routes: Vec<Value>) -> Pair {
    let mut setup = Setup::new(vec![app], routes);
    setup.filters = json!([filter("session", KIND, cookie(json!({"ttl": "60s"})))]);
    setup.start()
}

fn app(more: Value) -> Value {
    let endpoints = upstreams(5).into_iter().map(endpoint).collect();
    cluster("app", &[endpoints], more)
}

/// What the answer sets, as the request that repeats it has it.
fn repeated(seen: &Seen) -> Option<String> {
    match (header(seen, "set-cookie"), header(seen, "x-session")) {
        (Some(cookie), None) => {
            let pair = cookie.split(';').next().unwrap();
            Some(format!("cookie: {pair}\r\n"))
        }
        (None, Some(value)) => Some(format!("x-session: {value}\r\n")),
        (None, None) => None,
        both => panic!("{both:?}"),
    }
}

/// The cookie without its value.
fn masked(seen: &Seen) -> Option<String> {
    let cookie = header(seen, "set-cookie")?;
    let (name, rest) = cookie.split_once("=\"")?;
    let (_, rest) = rest.split_once('"')?;
    Some(format!("{name}=...{rest}"))
}

#[test]
fn a_session_that_one_proxy_began_goes_on_in_the_other() {
    let attributes = json!([{"name": "SameSite", "value": "Lax"}]);
    let pair = start(
        app(json!({})),
        routes(&[
            ("/header", in_header()),
            ("/forever", cookie(json!({}))),
            (
                "/full",
                cookie(json!({"ttl": "10s", "path": "/full", "attributes": attributes})),
            ),
            ("/strict", strict(in_header(), 0)),
        ])
        .into_iter()
        .chain([route("/", "app", json!({}))])
        .collect(),
    );
    for path in ["/own", "/header", "/forever", "/full", "/strict"] {
        let first = pair.ask(&get(path, ""));
        assert_eq!(masked(&first[0]), masked(&first[1]), "Anyam | Envoy");
        for begun in &first {
            let session = repeated(begun).unwrap();
            for _ in 0..4 {
                for seen in pair.ask(&get(path, &session)) {
                    assert_eq!(from(&seen), from(begun));
                    assert_eq!(repeated(&seen), None, "{path}");
                }
            }
        }
    }
}

#[test]
fn a_session_without_its_endpoint_begins_anew_or_fails() {
    let pair = start(
        app(json!({})),
        routes(&[
            ("/lax", in_header()),
            ("/strict", strict(in_header(), 0)),
            ("/own", strict(in_header(), 410)),
        ]),
    );
    use base64::Engine;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    for value in [
        base64("127.0.0.1:1"),
        base64("no address"),
        "not Base64!".to_owned(),
        String::new(),
    ] {
        let session = format!("x-session: {value}\r\n");
        for seen in pair.ask(&get("/lax", &session)) {
            from(&seen);
            assert!(repeated(&seen).is_some());
        }
        for path in ["/strict", "/own"] {
            let [ours, stock] = pair.ask(&get(path, &session));
            assert_eq!(ours.status, stock.status, "{path} {value}");
        }
    }
    let gone = format!("x-session: {}\r\n", base64("127.0.0.1:1"));
    let statuses = |path: &str| pair.ask(&get(path, &gone)).map(|seen| seen.status);
    assert_eq!(statuses("/strict"), [503, 503]);
    assert_eq!(statuses("/own"), [410, 410]);
}

#[test]
fn health_decides_whether_a_session_stays() {
    let all = upstreams(4);
    for (allowed, stays) in [(None, false), (Some(json!(["HEALTHY", "UNHEALTHY"])), true)] {
        let endpoints = all.iter().enumerate().map(|(index, at)| {
            let mut endpoint = endpoint(*at);
            if index == 0 {
                endpoint["health_status"] = "UNHEALTHY".into();
            }
            endpoint
        });
        let mut more = json!({});
        if let Some(statuses) = allowed {
            more["common_lb_config"] = json!({"override_host_status": {"statuses": statuses}});
        }
        let app = cluster("app", &[endpoints.collect()], more);
        let pair = start(
            app,
            routes(&[("/strict", strict(in_header(), 410)), ("/", in_header())]),
        );
        use base64::Engine;
        let sick = all[0].to_string();
        let named = base64::engine::general_purpose::STANDARD.encode(&sick);
        for seen in pair.ask(&get("/", &format!("x-session: {named}\r\n"))) {
            assert_eq!(from(&seen) == sick, stays);
            assert_eq!(repeated(&seen).is_none(), stays);
        }
        // The status of strict sessions is for endpoints that are gone.
        let wanted = if stays { 200 } else { 503 };
        for seen in pair.ask(&get("/strict", &format!("x-session: {named}\r\n"))) {
            assert_eq!(seen.status, wanted);
        }
    }
}

/// An endpoint that does not answer: a retry chooses another, and the session goes on there.
#[test]
fn a_session_follows_a_retry() {
    // Bound, so that no other test gets it, and not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = closed.local_addr().unwrap();
    let endpoints: Vec<_> = upstreams(2)
        .into_iter()
        .chain([gone])
        .map(endpoint)
        .collect();
    let retry = json!({"retry_policy": {
        "retry_on": "connect-failure",
        "num_retries": 5,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.001s"},
    }});
    let mut lax = route("/lax", "app", retry.clone());
    let config = typed(OF_ROUTE, json!({"stateful_session": in_header()}));
    lax["typed_per_filter_config"] = json!({"session": config});
    let mut once = lax.clone();
    once["match"] = json!({"prefix": "/once"});
    once["route"] = json!({"cluster": "app"});
    let pair = start(cluster("app", &[endpoints], json!({})), vec![lax, once]);
    use base64::Engine;
    let named = base64::engine::general_purpose::STANDARD.encode(gone.to_string());
    let session = format!("x-session: {named}\r\n");
    for seen in pair.ask(&get("/lax", &session)) {
        assert!(repeated(&seen).is_some());
        assert_ne!(from(&seen), gone.to_string());
    }
    let [ours, stock] = pair.ask(&get("/once", &session));
    assert_eq!((ours.status, stock.status), (503, 503));
    assert_eq!(repeated(&ours), repeated(&stock));
}

#[test]
fn routes_switch_sessions_off_and_paths_limit_cookies() {
    let mut off = route("/off", "app", json!({}));
    let config = typed(OF_ROUTE, json!({"disabled": true}));
    off["typed_per_filter_config"] = json!({"session": config});
    let mut routes = routes(&[
        ("/a", cookie(json!({"path": "/a/b"}))),
        ("/c", cookie(json!({"path": "/c/d/"}))),
        ("/none", json!({})),
    ]);
    routes.push(off);
    let pair = start(app(json!({})), routes);
    for (path, has) in [
        ("/off", false),
        ("/none", false),
        ("/a", false),
        ("/a/b", true),
        ("/a/b?c", true),
        ("/a/b/c", true),
        ("/a/bc", false),
        ("/c/d", false),
        ("/c/d/", true),
        ("/c/d/e", true),
    ] {
        for seen in pair.ask(&get(path, "")) {
            from(&seen);
            assert_eq!(repeated(&seen).is_some(), has, "{path}");
        }
    }
}
