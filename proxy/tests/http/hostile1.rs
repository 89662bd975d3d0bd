//! What hostile HTTP/1 peers send, on both sides of the engine.

use std::sync::Arc;
use std::sync::Mutex;

use anyam_proxy::config::route::{Action, PathMatch};
use anyam_proxy::message::path::{EscapedSlashes, Fragment, PathOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::{Proxy, Setup, route};
use crate::peers::{Client, get, h1, listen, ok, read_message};

const HOST: &str = "Host: shop\r\n";

/// Refused requests: start line and fields (without Host), what follows, the status.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "400",
    ),
    (
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        "400",
    ),
    (
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
        "x",
        "400",
    ),
    ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n", "x", "400"),
    ("POST / HTTP/1.1\r\nContent-Length: 0x1\r\n", "x", "400"),
    ("POST / HTTP/1.1\r\nContent-Length: 1_0\r\n", "x", "400"),
    (
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n",
        "0\r\n\r\n",
        "501",
    ),
    (
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
        "0\r\n\r\n",
        "501",
    ),
    ("GET / HTTP/1.1\r\nX: a\nY: b\r\n", "", "400"),
    ("GET / HTTP/1.1\r\nX: a\rY: b\r\n", "", "400"),
    ("GET / HTTP/1.1\r\nX: a\0b\r\n", "", "400"),
    ("GET / HTTP/1.1\r\nX: a\r\n b\r\n", "", "400"),
    ("GET / HTTP/1.1\r\nX : a\r\n", "", "400"),
    ("GET / HTTP/1.1\r\nHost: other\r\n", "", "400"),
    ("GET /#fragment HTTP/1.1\r\n", "", "400"),
    ("GET ftp://shop/ HTTP/1.1\r\n", "", "400"),
    ("GET / HTTP/2.0\r\n", "", "426"),
    ("GET / HTTP/1.1\r\nExpect: miracles\r\n", "", "417"),
    ("CONNECT shop HTTP/1.1\r\n", "", "400"),
    (
        "CONNECT shop:80 HTTP/1.1\r\nContent-Length: 5\r\n",
        "hello",
        "400",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_reach_no_upstream_and_end_their_connection() {
    let upstream = h1(|request| panic!("arrived: {request}")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    for (start, body, status) in REFUSED {
        let mut client = Client::connect(proxy.address).await;
        client.send(&format!("{start}{HOST}\r\n{body}")).await;
        let _ = client.tcp.write_all(get("/behind").as_bytes()).await;
        let response = client.rest().await;
        let want = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&want), "{start:?}: {response}");
        assert_eq!(
            response.matches("\r\ndate: ").count(),
            1,
            "{start:?}: {response}"
        );
        assert!(
            response.to_lowercase().contains("connection: close"),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunk_faults_end_both_connections() {
    // The upstream gets a request it can see is not complete, and no answer of its own counts.
    let (told, mut ends) = mpsc::unbounded_channel();
    let upstream = listen(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut all = Vec::new();
            let _ = tcp.read_to_end(&mut all).await;
            let _ = told.send(String::from_utf8_lossy(&all).into_owned());
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    for body in [
        "5\r\nhello\r\n5;a\rb\r\nhello\r\n",
        "5\r\nhelloX\r\n",
        "5\nhello",
        "g\r\n",
        "0\r\nX : y\r\n\r\n",
    ] {
        let mut client = Client::connect(proxy.address).await;
        let head = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}{body}")).await;
        let _ = client.tcp.write_all(get("/behind").as_bytes()).await;
        let response = client.rest().await;
        assert!(
            response.starts_with("HTTP/1.1 400 "),
            "{body:?}: {response}"
        );
        assert_eq!(
            response.matches("\r\ndate: ").count(),
            1,
            "{body:?}: {response}"
        );
        // The fault may be found before the request went anywhere.
        if let Ok(seen) = ends.try_recv() {
            assert!(
                !seen.contains("0\r\n\r\n") && !seen.contains("behind"),
                "{seen:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_tiny_pieces_is_the_same_request() {
    let upstream = h1(|request| ok(&format!("{}", request.len()))).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let request = "POST /a HTTP/1.1\r\nHost: shop\r\nx-request-id: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        client.tcp.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let dripped = client.receive().await;
    let whole = client.ask(request).await;
    assert!(
        dripped.starts_with("HTTP/1.1 200 ") && whole.starts_with("HTTP/1.1 200 "),
        "{dripped}{whole}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_enters_a_tunnel_before_it_is_agreed_on() {
    let (told, mut heard) = mpsc::unbounded_channel::<String>();
    let upstream = listen(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut buffer = Vec::new();
            let request = read_message(&mut tcp, &mut buffer).await.unwrap();
            // What came with the request would be in the buffer, or arrive before the client's
            // answer.
            told.send(String::from_utf8_lossy(&buffer).into_owned()).unwrap();
            if request.contains("/no") {
                tcp.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            } else {
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                tcp.write_all(switch).await.unwrap();
            }
            let mut rest = Vec::new();
            let _ = tcp.read_to_end(&mut rest).await;
            told.send(String::from_utf8_lossy(&rest).into_owned()).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let early = get("/smuggled");
    for (path, status, after) in [("/yes", "101", early.as_str()), ("/no", "403", "")] {
        let mut client = Client::connect(proxy.address).await;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        );
        client.send(&format!("{head}{early}")).await;
        let response = client.receive().await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
        assert_eq!(
            heard.recv().await.as_deref(),
            Some(""),
            "with the request, nothing"
        );
        client.tcp.shutdown().await.unwrap();
        assert_eq!(
            client.rest().await,
            "",
            "nothing answers what was held back"
        );
        assert_eq!(heard.recv().await.as_deref(), Some(after));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_can_be_smuggled_neither_in_trailers_nor_out_by_connection() {
    let upstream = h1(|request| ok(&request.replace("\r\n", "|"))).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let response = client
        .ask(
            "POST / HTTP/1.1\r\nHost: shop\r\nConnection: x-forwarded-proto, x-own, host, cookie\r\nX-Own: 1\r\nCookie: c\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nX-Forwarded-Client-Cert: evil\r\n\
             x-forwarded-for: evil\r\nHost: evil\r\nContent-Length: 3\r\nx-envoy-internal: evil\r\n\r\n",
        )
        .await;
    assert!(response.contains("|X-Sum: 7||"), "{response}");
    assert!(
        !response.contains("evil") && !response.contains("X-Own"),
        "{response}"
    );
    for kept in ["|Host: shop|", "|Cookie: c|", "x-forwarded-proto: http|"] {
        assert!(response.contains(kept), "{kept} in {response}");
    }
}

/// What a hostile upstream answers.
const HOSTILE: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nab",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 99 Low\r\n\r\n",
    "HTTP/3.0 200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.9\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_answer_is_a_bad_gateway() {
    let next = Arc::new(Mutex::new(String::new()));
    let answers = next.clone();
    let upstream = h1(move |_| answers.lock().unwrap().clone()).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(90_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(200));
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    let mut client = Client::connect(proxy.address).await;
    for answer in HOSTILE
        .iter()
        .copied()
        .chain([long.as_str(), many.as_str()])
    {
        *next.lock().unwrap() = answer.to_owned();
        let response = client.ask(&get("/")).await;
        assert!(
            response.starts_with("HTTP/1.1 502 "),
            "{answer:.80}: {response}"
        );
    }
    *next.lock().unwrap() = flood;
    client.send(&get("/")).await;
    let hints = loop_until_final(&mut client).await;
    assert!(hints < 64, "{hints} interim responses");
}

/// Counts the interim responses before the final one, which must be a bad gateway.
async fn loop_until_final(client: &mut Client) -> usize {
    let mut hints = 0;
    loop {
        let response = client.receive().await;
        if response.starts_with("HTTP/1.1 502 ") {
            return hints;
        }
        assert!(response.starts_with("HTTP/1.1 103 "), "{response}");
        hints += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_no_request_is_discarded() {
    let upstream = h1(|_| format!("{}{}", ok("asked"), ok("poison"))).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..5 {
        let response = client.ask(&get("/")).await;
        assert!(response.ends_with("\r\n\r\nasked"), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_short_does_not_look_complete() {
    let next = Arc::new(Mutex::new(""));
    let answers = next.clone();
    let upstream = listen(move |mut tcp, _| {
        let answer = *answers.lock().unwrap();
        async move {
            read_message(&mut tcp, &mut Vec::new()).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nxx\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\nX : y\r\n\r\n",
    ] {
        *next.lock().unwrap() = answer;
        let mut client = Client::connect(proxy.address).await;
        client.send(&get("/")).await;
        let response = client.rest().await;
        assert!(
            response.starts_with("HTTP/1.1 200 "),
            "{answer:?}: {response}"
        );
        assert!(
            !response.ends_with("0\r\n\r\n") && !response.contains("Y"),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_a_path_meets_its_rule() {
    let upstream = h1(|request| ok(request.split(' ').nth(1).unwrap())).await;
    let refuse = Action::Direct {
        status: 403,
        body: bytes::Bytes::from_static(b"no"),
    };
    let setup = Setup::new(upstream).with(|setup| {
        setup.manager.path = PathOptions {
            normalize: true,
            merge_slashes: true,
            escaped_slashes: EscapedSlashes::UnescapeAndForward,
            fragment: Fragment::Reject,
        };
        let admin = PathMatch::SeparatedPrefix("/admin".into());
        setup.more_routes.push(route(admin, refuse));
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    for path in [
        "/admin",
        "/admin/",
        "/admin?x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%2e/admin",
        "/x/%2E%2e/admin",
        "/x/..%2fadmin",
        "/%2fadmin",
        "/x%5c..%5Cadmin",
        "/\\admin",
        "/x\\..\\admin",
        "/../../admin",
        "/admin/x/..",
        "/adm%69n",
        "http://shop//admin",
        "http://SHOP:80/./admin",
    ] {
        let response = client.ask(&get(path)).await;
        assert!(response.starts_with("HTTP/1.1 403 "), "{path}: {response}");
    }
    // Others are forwarded in the form that was evaluated.
    for (path, forwarded) in [
        ("/x/../admin/../b?/../c", "/b?/../c"),
        ("/adm%6Fn", "/admon"),
        ("/a%20b", "/a%20b"),
    ] {
        let response = client.ask(&get(path)).await;
        assert!(
            response.ends_with(&format!("\r\n\r\n{forwarded}")),
            "{path}: {response}"
        );
    }
}
