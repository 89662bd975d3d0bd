//! Requests that could be read in two ways are read in one, over HTTP/1 and HTTP/2 alike: hosts,
//! targets, methods of upgrades, names of headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::policy::{Permission, Principal, Rbac, RbacAction};
use anyam_proxy::matcher::{HeaderMatch, HeaderName, StringMatch, ValueMatch};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::hostile2::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, head};
use crate::peers::{Client, echo_body, h1, h2, h2_client, listen, ok, read_all, read_message};
use crate::settings::{rbac, rules};

/// An upgrade over HTTP/2 (RFC 8441).
fn extended_connect(path: &str) -> Request<()> {
    let mut head = Request::builder()
        .method("CONNECT")
        .uri(format!("http://shop{path}"))
        .body(())
        .unwrap();
    let websocket = h2::ext::Protocol::from_static("websocket");
    head.extensions_mut().insert(websocket);
    head
}

/// The answer to a request over HTTP/2 on a connection of its own: status and body.
async fn ask_h2(proxy: &Proxy, head: Request<()>) -> (u16, Vec<u8>) {
    let mut send = h2_client(proxy.address).await;
    let upgrade = head.extensions().get::<h2::ext::Protocol>().is_some();
    while upgrade && !send.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let (answer, _stream) = send.send_request(head, !upgrade).unwrap();
    let answer = answer.await.unwrap();
    let status = answer.status().as_u16();
    (status, read_all(&mut answer.into_body()).await)
}

/// An HTTP/1 upstream that answers with the request it got, and how many it got.
async fn mirror() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = h1(move |request| {
        counted.fetch_add(1, Relaxed);
        ok(request)
    })
    .await;
    (upstream, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_heads_are_checked_as_strictly_as_http1() {
    let (upstream, count) = mirror().await;
    let proxy = Proxy::start(Setup::new(upstream));
    let head = |uri: &str| Request::builder().uri(uri.to_owned());
    for (what, head) in [
        (
            "two hosts",
            head("http://shop/")
                .header("host", "shop")
                .header("host", "shop"),
        ),
        ("another host", head("http://shop/").header("host", "admin")),
        (
            "a second host",
            head("http://shop/")
                .header("host", "shop")
                .header("host", "admin"),
        ),
        ("an unknown scheme", head("javascript://shop/")),
        ("dots at the end", head("http://shop../")),
        ("an empty label", head("http://admin..shop/")),
        ("a comma", head("http://shop,admin/")),
    ] {
        let (status, _) = ask_h2(&proxy, head.body(()).unwrap()).await;
        assert_eq!(status, 400, "{what}");
    }
    for host in ["shop..", "admin..shop", ".shop", "shop...:80"] {
        let mut client = Client::connect(proxy.address).await;
        let answer = client
            .ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host}: {answer}");
    }
    assert_eq!(count.load(Relaxed), 0);
    let one = head("http://shop/")
        .header("host", "shop")
        .body(())
        .unwrap();
    assert_eq!(ask_h2(&proxy, one).await.0, 200);
}

/// Matches GET of `/ws`.
fn get_ws(action: RbacAction) -> Arc<Rbac> {
    let is = |value: &str| StringMatch::Exact {
        value: value.into(),
        ignore_case: false,
    };
    let get = HeaderMatch {
        name: HeaderName::parse(":method").unwrap(),
        test: ValueMatch::String(is("GET")),
        invert: false,
        treat_missing_as_empty: false,
    };
    let both = vec![Permission::Header(get), Permission::UrlPath(is("/ws"))];
    rules(action, "get", vec![Permission::And(both)], Principal::Any)
}

fn with_policy(upstream: std::net::SocketAddr, action: RbacAction) -> Proxy {
    Proxy::start(Setup::new(upstream).with(|setup| {
        setup.manager.path.normalize = true;
        setup.manager.filters.push(rbac(get_ws(action)));
    }))
}

/// Envoy's codec turns an extended CONNECT into a GET: policies see what the app receives.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_a_get_in_both_protocols() {
    let agree = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        assert!(request.starts_with("GET /ws HTTP/1.1\r\n"), "{request}");
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
    })
    .await;
    for (action, path, status) in [
        (RbacAction::Deny, "/ws", 403),
        (RbacAction::Deny, "/w%73", 403),
        (RbacAction::Allow, "/ws", 200),
        (RbacAction::Allow, "/other", 403),
    ] {
        let proxy = with_policy(agree, action);
        let (got, _) = ask_h2(&proxy, extended_connect(path)).await;
        assert_eq!(got, status, "{action:?} {path}");
    }
}

/// h2 removes a fragment from `:path` before the proxy gets the head, so it cannot be refused as over
/// HTTP/1. Policy, log, tap and app all get the same path without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_over_http2_is_cut_off_for_policy_log_and_app() {
    for (path, received) in [
        ("/ws#other", "/ws"),
        ("/ws#/../other", "/ws"),
        ("/ws?a=1#?b=2", "/ws?a=1"),
        ("/other#/../ws", "/other"),
        ("/other/..#/ws", "/"),
        ("#/ws", "/"),
    ] {
        for action in [RbacAction::Deny, RbacAction::Allow] {
            let (upstream, count) = mirror().await;
            let mut proxy = with_policy(upstream, action);
            let matches = received.starts_with("/ws");
            let allowed = matches == (action == RbacAction::Allow);

            let mut raw = Raw::connect(proxy.address).await;
            let last = END_STREAM | END_HEADERS;
            assert!(raw.send(HEADERS, last, 1, &head(path)).await);
            let (_, _, body) = raw.wait_for(DATA).await;
            let line = format!("GET {received} HTTP/1.1\r\n");
            assert_eq!(body.starts_with(line.as_bytes()), allowed, "{path}");
            assert_eq!(count.load(Relaxed), usize::from(allowed), "{path}");

            let event = proxy.tap.recv().await.unwrap();
            assert_eq!(event.path, received);
            assert_eq!(event.status, if allowed { 200 } else { 403 }, "{path}");
            drop(raw);
            assert_eq!(proxy.end()[0]["path"], received);
        }
    }
}

/// Over HTTP/2 a 2xx would mean to the client that its upgrade was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_the_app_ignored_is_not_agreed_to() {
    let (upstream, count) = mirror().await;
    let proxy = Proxy::start(Setup::new(upstream));
    let (status, _) = ask_h2(&proxy, extended_connect("/ws")).await;
    assert!(status >= 400, "{status}");
    assert_eq!(count.load(Relaxed), 1);
    let mut client = Client::connect(proxy.address).await;
    let upgrade =
        "GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = client.ask(upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_success_of_an_http2_upstream_agrees_to_an_upgrade() {
    let upstream = h2(|request, respond| echo_body(request, respond, 202)).await;
    let proxy = Proxy::start(Setup::new(upstream).speaking(UpstreamProtocol::Http2));
    let mut client = Client::connect(proxy.address).await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    client.send("GET /next HTTP/1.1\r\n\r\n").await;
    client.tcp.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "GET /next HTTP/1.1\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_offered_one_upgrade() {
    for fields in [
        "Upgrade: websocket\r\nUpgrade: evil/1\r\n",
        "Upgrade: evil/1\r\nUpgrade: websocket\r\n",
        "Upgrade: evil/1, websocket\r\n",
        "Upgrade: websocket,evil/1\r\n",
    ] {
        let (upstream, _) = mirror().await;
        let proxy = Proxy::start(Setup::new(upstream));
        let mut client = Client::connect(proxy.address).await;
        let request =
            format!("GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\n{fields}\r\n");
        let answer = client.ask(&request).await.to_lowercase();
        assert_eq!(answer.matches("upgrade: ").count(), 1, "{fields}: {answer}");
        assert!(
            answer.contains("\r\nupgrade: websocket\r\n"),
            "{fields}: {answer}"
        );
        assert!(!answer.contains("evil"), "{fields}: {answer}");
    }
}

/// An app that makes variables of header names does not distinguish `-` and `_`.
#[tokio::test(flavor = "multi_thread")]
async fn underscores_forge_nothing() {
    const NAMES: [&str; 12] = [
        "x_forwarded_client_cert",
        "x-forwarded_client_cert",
        "x_forwarded_for",
        "x_forwarded_proto",
        "x_request_id",
        "x_envoy_original_path",
        "content_length",
        "x_envoy_attempt_count",
        "x-envoy_upstream-service-time",
        "x_envoy-anything",
        "x_forwarded_prefix",
        "x-forwarded_anything",
    ];
    let (upstream, _) = mirror().await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let mut request = "GET / HTTP/1.1\r\nHost: shop\r\n".to_owned();
    let mut head = Request::builder().uri("http://shop/");
    for name in NAMES {
        request += &format!("{}: forged\r\n", name.to_uppercase());
        head = head.header(name, "forged");
    }
    request += "my_own: kept\r\n\r\n";
    let head = head.header("my_own", "kept").body(()).unwrap();
    let (_, two) = ask_h2(&proxy, head).await;
    for answer in [client.ask(&request).await, String::from_utf8(two).unwrap()] {
        assert!(answer.contains("my_own: kept"), "{answer}");
        assert!(!answer.contains("forged"), "{answer}");
    }
}
