//! `explain` gives the outcome that the request then has.

mod mesh;

use std::net::SocketAddr;
use std::sync::Arc;

use anyam_proxy::config::listener::ListenerKey;
use anyam_proxy::inspect::explain::explain;
use anyam_proxy::snapshot::Snapshot;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xds_proto::anyam::inspect::v1::decision::Outcome;
use xds_proto::anyam::inspect::v1::{Decision, Explain, Header};

use self::mesh::*;
use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, ok};

#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    host: String,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Asked {
    fn text(&self) -> String {
        let Asked {
            method, host, path, ..
        } = self;
        let target = if *method == "CONNECT" { host } else { path };
        let fields = self.headers.iter();
        let fields: String = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n")
    }

    fn question(&self, proxy: SocketAddr) -> Explain {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        Explain {
            address: proxy.ip().to_string(),
            port: proxy.port().into(),
            method: self.method.to_owned(),
            authority: self.host.clone(),
            path: self.path.clone(),
            headers: self.headers.iter().map(header).collect(),
            ..Explain::default()
        }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = prop_oneof![
        6 => Just("GET"), 2 => Just("POST"), 1 => Just("OPTIONS"), 1 => Just("get"), 1 => Just("CONNECT"),
    ];
    let host = prop_oneof![
        8 => prop::sample::select(vec!["shop", "SHOP", "shop:OWN", "shop.", "shop.:OWN"]),
        4 => prop::sample::select(vec!["admin.shop", "Admin.Shop.:81", "a.wild", "wild"]),
        3 => prop::sample::select(vec!["shop:81", "shop..", "a b", "a@shop", "[::1]:OWN", "other", "shop:0"]),
    ];
    let whole = vec![
        "*",
        "http://shop/direct",
        "http://admin.shop/",
        "ftp://shop/",
        "shop",
        "/",
    ];
    let path = prop_oneof![
        9 => "(/direct|/teapot|/redirect|/gone|/query|/app|/admin|/%61dmin|/x){1}(/|//|/\\.\\.|/\\.|%2f|;x|\\\\|/admin|/app|%00|#f){0,4}(\\?v=[12])?",
        1 => prop::sample::select(whole).prop_map(str::to_owned),
    ];
    let fields = vec![
        ("x-kind", "one"),
        ("X-Kind", "two"),
        ("x-kind", "two"),
        ("x-envoy-internal", "true"),
        ("x_forwarded_for", "10.9.9.9"),
        ("x-forwarded-client-cert", "By=me"),
        ("x-forwarded-proto", "https"),
        ("content-type", "application/grpc"),
        ("connection", "x-kind"),
        ("bad name", "x"),
        ("content-length", "0"),
    ];
    let headers = prop::collection::vec(prop::sample::select(fields), 0..3);
    (method, host, path, headers).prop_map(|(method, host, path, headers)| Asked {
        method,
        host: host.to_owned(),
        path,
        headers,
    })
}

/// The status that decisions come to.
fn promised(decisions: &[Decision]) -> u16 {
    let number = |reason: &str| {
        let words = reason.rsplit(|c: char| !c.is_ascii_digit());
        let status = words
            .filter(|word| word.len() == 3)
            .find_map(|word| word.parse().ok());
        status.unwrap_or_else(|| panic!("no status in {reason:?}"))
    };
    for one in decisions {
        match one.outcome() {
            Outcome::Denied => return 403,
            Outcome::Failed => return number(&one.reason),
            Outcome::Info if one.reason.contains("answered with") => return number(&one.reason),
            Outcome::Chosen if one.stage == "endpoint" => return 200,
            _ => {}
        }
    }
    panic!("nothing is decided: {decisions:#?}")
}

/// What the app is called by: host and path.
fn seen_by_app(asked: &Asked, decisions: &[Decision]) -> String {
    let normalised = decisions.iter().find(|one| one.stage == "request");
    normalised.map_or_else(
        || format!("{}{}", asked.host, asked.path),
        |one| one.subject.clone(),
    )
}

/// The app answers with the authority it received.
async fn says_its_call() -> SocketAddr {
    h1(|request| {
        let path = request.split(' ').nth(1).unwrap();
        let host = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("host").then_some(value)
        });
        ok(&format!("{}{path}", host.unwrap()))
    })
    .await
}

/// Envoy's mapping.
fn grpc_code(status: u16) -> &'static str {
    match status {
        400 => "13",
        403 => "7",
        404 => "12",
        502 | 503 => "14",
        _ => "2",
    }
}

fn holds(proxy: &Proxy, runtime: &tokio::runtime::Runtime, asked: &Asked) {
    let own = proxy.address.port().to_string();
    let asked = Asked {
        host: asked.host.replace("OWN", &own),
        ..asked.clone()
    };
    let decisions = explain(&proxy.store.load(), &asked.question(proxy.address), None).unwrap();
    let answer = runtime.block_on(async {
        let mut client = Client::connect(proxy.address).await;
        client.ask(&asked.text()).await
    });
    let what = || format!("{asked:?}\n{answer}\n{decisions:#?}");
    let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
    if let Some((_, code)) = answer.split_once("grpc-status: ") {
        // A reply to a gRPC call has the status in gRPC's terms.
        let code = code.split("\r\n").next().unwrap();
        assert_eq!(grpc_code(promised(&decisions)), code, "{}", what());
        return;
    }
    assert_eq!(promised(&decisions), status, "{}", what());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    match status {
        200 if asked.path.starts_with('/') => {
            assert_eq!(body, seen_by_app(&asked, &decisions), "{}", what());
        }
        202..=299 | 418 => assert_eq!(body, name(status), "{}", what()),
        _ => {}
    }
}

#[test]
fn a_request_gets_what_was_explained() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let upstream = runtime.block_on(says_its_call());
    for which in 0..3 {
        let proxy = Proxy::start(setup(upstream, which));
        let mut runner = TestRunner::new(Config {
            cases: 256,
            failure_persistence: None,
            ..Config::default()
        });
        let run = runner.run(&asked(), |asked| {
            holds(&proxy, &runtime, &asked);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("configuration {which}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explaining_changes_no_turn() {
    let first = h1(|_| ok("first")).await;
    let second = h1(|_| ok("second")).await;
    let proxy = Proxy::start(Setup::new(first).with(|setup| setup.upstreams.push(second)));
    let mut client = Client::connect(proxy.address).await;
    let mut turns = Vec::new();
    for asked in 0..6 {
        for _ in 0..asked {
            let question = Asked {
                method: "GET",
                host: "shop".to_owned(),
                path: "/".to_owned(),
                headers: Vec::new(),
            };
            let question = question.question(proxy.address);
            explain(&proxy.store.load(), &question, None).unwrap();
        }
        let answer = client.ask(&get("/")).await;
        turns.push(answer.rsplit("\r\n").next().unwrap().to_owned());
    }
    for pair in turns.windows(2) {
        assert_ne!(pair[0], pair[1], "{turns:?}");
    }
}

/// The listener that serves connections to an address, where connections are redirected.
#[tokio::test]
async fn the_listener_is_the_one_that_takes_over() {
    let upstream = ([127, 0, 0, 1], 1).into();
    let mut all = Snapshot::default();
    for (name, at, bound) in [
        ("front", "127.0.0.1:15001", true),
        ("exact", "10.0.0.9:9090", false),
        ("any", "0.0.0.0:8080", false),
        ("any six", "[::]:8080", false),
        ("admin", "0.0.0.0:15006", true),
    ] {
        let at: SocketAddr = at.parse().unwrap();
        let one = Setup::new(upstream).snapshot(1);
        let listener = one.listeners["front"].clone();
        drop(one);
        let mut listener = Arc::into_inner(listener).unwrap();
        let def = Arc::get_mut(&mut listener.def).unwrap();
        def.name = name.into();
        def.address = at;
        def.bind_to_port = bound;
        def.use_original_dst = name == "front";
        def.original_dst = name == "front";
        let listener = Arc::new(listener);
        all.by_socket.insert(ListenerKey::tcp(at), listener.clone());
        all.listeners.insert(name.into(), listener);
    }
    for (destination, serves) in [
        ("10.0.0.9:9090", "exact"),
        ("10.0.0.9:8080", "any"),
        ("[fd00::9]:8080", "any six"),
        ("[fd00::9]:9090", "front"),
        // A bound listener takes what is sent to its own socket, and nothing that is redirected.
        ("10.0.0.9:15006", "front"),
        ("10.0.0.9:80", "front"),
    ] {
        let destination: SocketAddr = destination.parse().unwrap();
        let question = Asked {
            method: "GET",
            host: "shop".to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
        };
        let decisions = explain(&all, &question.question(destination), None).unwrap();
        assert_eq!(decisions[0].stage, "listener");
        assert_eq!(decisions[0].subject, serves, "{destination}");
    }
    let broken = Asked {
        method: "GET",
        host: "shop".to_owned(),
        path: "/ HTTP/1.1\r\nx: y".to_owned(),
        headers: Vec::new(),
    };
    assert!(explain(&all, &broken.question(upstream), None).is_err());
}
