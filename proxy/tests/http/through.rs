//! Valid but unusual requests and responses are forwarded.

use anyam_proxy::config::cluster::UpstreamProtocol;
use anyam_proxy::config::route::{
    Action, PathMatch, PathRewrite, Redirect, Route, UpgradeOverride,
};
use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup, route};
use crate::peers::{Client, get, h1, h2, h2_client, listen, ok, read_all, read_message};

/// Answers with the request it received.
async fn repeats() -> std::net::SocketAddr {
    h1(|request| ok(&request.to_lowercase())).await
}

/// An upstream that sends all it has at once, before the end of the body, and closes the connection.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_of_a_response_that_is_cut_reaches_the_client() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nno size\r\n",
    ] {
        let upstream = listen(move |mut tcp, _| async move {
            read_message(&mut tcp, &mut Vec::new()).await;
            tcp.write_all(response.as_bytes()).await.unwrap();
        })
        .await;
        let proxy = Proxy::start(Setup::new(upstream));
        let mut client = Client::connect(proxy.address).await;
        client.send(&get("/")).await;
        let seen = client.rest().await;
        assert!(seen.starts_with("HTTP/1.1 200 "), "{response}: {seen}");
        assert!(seen.contains("part"), "{response}: {seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{response}: {seen}");
    }
}

fn upgrade(kind: &str, more: &str) -> String {
    format!("GET /u HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_configuration_does_not_name_is_ignored() {
    let setup = Setup::new(repeats().await).with(|setup| {
        setup.forward.upgrades.push(UpgradeOverride {
            kind: "off/1".into(),
            enabled: false,
            terminate_connect: false,
        });
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    for kind in ["TLS/1.2", "tcp", "foo, bar/2"] {
        let answer = client.ask(&upgrade(kind, "")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{kind}: {answer}");
        let seen = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(!seen.contains("upgrade"), "{kind}: {seen}");
    }
    let answer = client.ask(&upgrade("off/1", "")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

/// Of several, only the first that is allowed is requested.
#[tokio::test(flavor = "multi_thread")]
async fn only_an_upgrade_that_is_allowed_is_passed_on() {
    let proxy = Proxy::start(Setup::new(repeats().await));
    for several in [
        "websocket, evil/1",
        "evil/1, WebSocket",
        "websocket\r\nUpgrade: evil/1",
        "evil/1\r\nUpgrade: websocket",
    ] {
        let mut client = Client::connect(proxy.address).await;
        let answer = client.ask(&upgrade(several, "")).await;
        let seen = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(seen.contains("\r\nupgrade: websocket\r\n"), "{seen}");
        assert!(!seen.contains("evil"), "{seen}");
    }
}

/// As docker's `exec` does: a body, then 101, then bytes.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_comes_after_the_requests_body() {
    let upstream = listen(|mut tcp, _| async move {
        let request = read_message(&mut tcp, &mut Vec::new()).await.unwrap();
        let lower = request.to_lowercase();
        assert!(lower.contains("\r\nupgrade: tcp\r\n"), "{request}");
        assert!(request.contains("{\"Tty\":true}"), "{request}");
        let agree = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        tcp.write_all(agree.as_bytes()).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| setup.manager.upgrades.push("tcp".into()));
    let proxy = Proxy::start(setup);
    let start =
        "POST /exec/1/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n";
    for body in [
        "Content-Length: 12\r\n\r\n{\"Tty\":true}",
        "Transfer-Encoding: chunked\r\n\r\nc\r\n{\"Tty\":true}\r\n0\r\n\r\n",
        "Expect: 100-continue\r\nContent-Length: 12\r\n\r\n{\"Tty\":true}",
    ] {
        let mut client = Client::connect(proxy.address).await;
        // What follows the body waits for the answer.
        client.send(&format!("{start}{body}early")).await;
        let mut answer = client.receive().await;
        if answer.starts_with("HTTP/1.1 100 ") {
            answer = client.receive().await;
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{body}: {answer}");
        client.send(" and late").await;
        client.tcp.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "early and late", "{body}");
    }
}

/// HTTP/2 has no form for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_to_http2_is_refused() {
    let upstream = h2(|_, mut respond| async move {
        let _ = respond.send_response(Response::new(()), true);
    })
    .await;
    let setup = Setup::new(upstream).speaking(UpstreamProtocol::Http2);
    let proxy = Proxy::start(setup.with(|setup| setup.manager.upgrades.push("tcp".into())));
    let mut client = Client::connect(proxy.address).await;
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                Content-Length: 2\r\n\r\n{}";
    let answer = client.ask(post).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_is_met_here_or_by_the_upstream() {
    let upstream = listen(|mut tcp, _| async move {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let expects = String::from_utf8(head).unwrap().to_lowercase();
            let expects = expects.contains("expect: 100-continue");
            if expects {
                let go_on = b"HTTP/1.1 100 Continue\r\nX-Mine: yes\r\n\r\n";
                tcp.write_all(go_on).await.unwrap();
            }
            tcp.read_exact(&mut [0; 5]).await.unwrap();
            let answer = ok(if expects { "asked" } else { "just sent" });
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    for (proxied, says) in [(false, "just sent"), (true, "asked")] {
        let setup = Setup::new(upstream);
        let proxy = Proxy::start(setup.with(|setup| setup.manager.proxy_100_continue = proxied));
        let mut client = Client::connect(proxy.address).await;
        let head =
            "POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        let go_on = client.ask(head).await;
        assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
        assert_eq!(go_on.contains("X-Mine"), proxied, "{go_on}");
        let answer = client.ask("hello").await;
        assert!(answer.ends_with(says), "{answer}");

        let mut client = h2_client(proxy.address).await.ready().await.unwrap();
        let head = http::Request::post("http://shop/").header("expect", "100-continue");
        let (answer, mut send) = client.send_request(head.body(()).unwrap(), false).unwrap();
        send.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(read_all(&mut body).await, says.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn utf8_in_a_path_arrives_as_a_uri() {
    let upstream = h1(|request| ok(request.split(' ').nth(1).unwrap())).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask(&get("/caf\u{e9}?q=\u{fc}")).await;
    assert!(answer.ends_with("/caf%C3%A9?q=%C3%BC"), "{answer}");
    client
        .tcp
        .write_all(b"GET /\xe9 HTTP/1.1\r\nHost: shop\r\n\r\n")
        .await
        .unwrap();
    // What is not UTF-8 is not taken for anything.
    let answer = client.receive().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_the_server_as_a_whole_takes_a_route_that_takes_every_path() {
    let upstream = h1(|request| ok(request.split("\r\n").next().unwrap())).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask("OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(answer.ends_with("OPTIONS * HTTP/1.1"), "{answer}");
    let setup = Setup::new(upstream).with(|s| s.matches = PathMatch::Prefix("/a".into()));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask("OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_as_large_as_envoys_pass_both_ways_of_http() {
    let answer = |bytes: usize| {
        let long = "a".repeat(bytes);
        format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 0\r\n\r\n")
    };
    let upstream = h1(move |request| {
        let path = request.split(' ').nth(1).unwrap();
        answer(path[1..].parse().unwrap())
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    for (bytes, status) in [(60_000, "200"), (80_000, "200"), (82_000, "502")] {
        let answer = client.ask(&get(&format!("/{bytes}"))).await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{bytes}: {}", &answer[..40]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blanks_after_the_size_of_an_answers_chunk_are_taken() {
    let upstream = h1(|request| {
        let blanks = " ".repeat(match request.split(' ').nth(1).unwrap() {
            "/padded" => 4,
            _ => 400,
        });
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             5{blanks}\r\nhello\r\n1 ;x\r\n!\r\n0{blanks}\r\n\r\n"
        )
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let answer = client.ask(&get("/padded")).await;
    assert!(
        answer.ends_with("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
        "{answer}"
    );
    client.send(&get("/endless")).await;
    let answer = client.rest().await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    // Padding in a request is refused: another parser may read it differently.
    let mut client = Client::connect(proxy.address).await;
    client
        .send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n")
        .await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400 "));
}

fn redirect(path: &str, change: impl FnOnce(&mut Redirect)) -> std::sync::Arc<Route> {
    let mut to = Redirect {
        status: 301,
        scheme: None,
        host: None,
        port: None,
        keeps_port: false,
        path: PathRewrite::None,
        strip_query: false,
    };
    change(&mut to);
    route(
        PathMatch::Exact(path.into()),
        Action::Redirect(Box::new(to)),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_say_no_port_that_the_scheme_says_and_one_query() {
    let setup = Setup::new(repeats().await).with(|setup| {
        let scheme = |scheme: &'static str, port: u16| {
            move |to: &mut Redirect| {
                to.scheme = Some(scheme.into());
                to.port = Some(port);
            }
        };
        let full = |to: &mut Redirect| to.path = PathRewrite::Full("/n?z=1".into());
        setup.more_routes.extend([
            redirect("/https", scheme("https", 443)),
            redirect("/http", scheme("http", 80)),
            redirect("/odd", scheme("https", 80)),
            redirect("/own", full),
            redirect("/stripped", move |to| {
                full(to);
                to.strip_query = true;
            }),
            redirect("/port", |to| to.port = Some(80)),
            redirect("/secure", |to| to.scheme = Some("https".into())),
        ]);
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    for (path, host, location) in [
        ("/https", "shop", "https://shop/https"),
        ("/https?q", "shop:8080", "https://shop/https?q"),
        ("/http", "shop:8080", "http://shop/http"),
        ("/odd", "shop", "https://shop:80/odd"),
        ("/port", "shop:8080", "http://shop/port"),
        ("/secure", "shop:443", "https://shop/secure"),
        ("/secure", "shop:80", "https://shop/secure"),
        ("/secure", "shop:8080", "https://shop:8080/secure"),
        ("/own?q=2", "shop", "http://shop/n?z=1"),
        ("/own", "shop:8080", "http://shop:8080/n?z=1"),
        ("/stripped?q=2", "shop", "http://shop/n?z=1"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = client.ask(&request).await.to_lowercase();
        let line = format!("location: {location}\r\n");
        assert!(answer.contains(&line), "{path} {host}: {answer}");
    }
}
