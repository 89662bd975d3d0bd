//! HTTP/1 on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::route::Action;
use anyam_proxy::config::route::PathMatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup, route};
use crate::peers::{Client, get, h1, listen, ok, read_message};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_answer() {
    let upstream = h1(|request| {
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Host: shop\r\n"), "{request}");
        ok("hello")
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..3 {
        let response = client.ask(&get("/a?b=c")).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nhello"), "{response}");
        assert!(response.contains("x-envoy-upstream-service-time: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_over_one_upstream_connection() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let upstream = listen(move |mut tcp, _| {
        counter.fetch_add(1, SeqCst);
        async move {
            let mut buffer = Vec::new();
            while let Some(request) = read_message(&mut tcp, &mut buffer).await {
                let path = request.split(' ').nth(1).unwrap().to_owned();
                tcp.write_all(ok(&path).as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let all: String = (0..20).map(|n| get(&format!("/{n}"))).collect();
    client.send(&all).await;
    for n in 0..20 {
        let response = client.receive().await;
        assert!(response.ends_with(&format!("\r\n\r\n/{n}")), "{response}");
    }
    assert_eq!(seen.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn spelling_and_order_of_headers_are_kept() {
    let upstream = h1(|request| {
        let at = |name: &str| {
            request
                .find(name)
                .unwrap_or_else(|| panic!("{name}: {request}"))
        };
        assert!(at("X-FIRST: 1") < at("x-Second: 2"));
        "HTTP/1.1 200 OK\r\nX-ANSWER: yes\r\nContent-Length: 0\r\n\r\n".into()
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nX-FIRST: 1\r\nx-Second: 2\r\n\r\n";
    let response = client.ask(request).await;
    assert!(response.contains("X-ANSWER: yes\r\n"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_with_a_length_chunked_and_with_trailers() {
    let upstream = h1(|request| {
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        if request
            .to_lowercase()
            .contains("transfer-encoding: chunked")
        {
            assert!(request.contains("X-Sum: 42\r\n"), "{request}");
            return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Back\r\n\r\n\
                    3\r\nabc\r\n0\r\nX-Back: 7\r\n\r\n"
                .into();
        }
        ok(body)
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    assert!(client.ask(post).await.ends_with("\r\n\r\nhello"));
    let chunked = "POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nConnection: te\r\n\
                   Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 42\r\n\r\n";
    let response = client.ask(chunked).await;
    assert!(response.contains("3\r\nabc\r\n0\r\n"), "{response}");
    assert!(response.contains("X-Back: 7\r\n"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_until_close_reaches_http_10_and_11() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        read_message(&mut tcp, &mut buffer).await;
        let answer = "HTTP/1.1 200 OK\r\n\r\nuntil the end";
        tcp.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.contains("until the end"), "{response}");
    let mut old = Client::connect(proxy.address).await;
    old.send("GET / HTTP/1.0\r\nHost: shop\r\n\r\n").await;
    let response = old.rest().await;
    assert!(response.ends_with("\r\n\r\nuntil the end"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_the_destination_is_meant() {
    let upstream = h1(|request| ok(&request.replace("\r\n", "|"))).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let response = client.rest().await;
    let host = format!("GET / HTTP/1.1|host: {}|", proxy.address);
    assert!(response.starts_with("HTTP/1.0 200 "), "{response}");
    assert!(response.contains(&host), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_pass_and_expectations_are_met() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        assert!(request.ends_with("\r\n\r\nhello"), "{request}");
        let answer = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n{}",
            ok("done")
        );
        tcp.write_all(answer.as_bytes()).await.unwrap();
        tcp.read_u8().await.unwrap_err();
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    let head = "POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let go_on = client.ask(head).await;
    assert!(go_on.starts_with("HTTP/1.1 100 "), "{go_on}");
    let hints = client.ask("hello").await;
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    assert!(hints.contains("Link: </a.css>"));
    assert!(client.receive().await.ends_with("done"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_the_upstream_closed_does_not_show() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        read_message(&mut tcp, &mut buffer).await;
        tcp.write_all(ok("once").as_bytes()).await.unwrap();
        // Closed while idle, without `connection: close` in the response.
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    for method in ["GET", "POST", "GET", "POST", "DELETE"] {
        for _ in 0..50 {
            let request =
                format!("{method} / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc");
            let response = client.ask(&request).await;
            assert!(
                response.starts_with("HTTP/1.1 200 "),
                "{method}: {response}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let upstream = h1(|_| ok("here")).await;
    let setup = Setup::new(upstream).with(|setup| setup.matches = PathMatch::Prefix("/a".into()));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/b")).await;
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert!(response.contains("proxy-status: "), "{response}");
    assert!(response.contains("route_not_found"), "{response}");
    // The connection stays open.
    assert!(client.ask(&get("/a")).await.ends_with("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_responses() {
    let upstream = h1(|_| ok("here")).await;
    let direct = Action::Direct {
        status: 418,
        body: bytes::Bytes::from_static(b"short and stout"),
    };
    let setup = Setup::new(upstream).with(|s| {
        s.more_routes
            .push(route(PathMatch::Exact("/tea".into()), direct))
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/tea?milk")).await;
    assert!(response.starts_with("HTTP/1.1 418 "), "{response}");
    assert!(response.ends_with("short and stout"));
    assert!(client.ask(&get("/")).await.ends_with("here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_and_a_cut_response() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let proxy = Proxy::start(Setup::new(closed));
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains("error=connection_refused"), "{response}");

    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        read_message(&mut tcp, &mut buffer).await;
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this";
        tcp.write_all(cut.as_bytes()).await.unwrap();
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    let response = client.rest().await;
    assert!(response.ends_with("only this"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_the_connection_closed() {
    let upstream = h1(|_| panic!("nothing may arrive")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let long = format!(
        "GET / HTTP/1.1\r\nHost: shop\r\nX-Long: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let many: String = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (
            "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: +1\r\n\r\na",
            "400",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET /\0 HTTP/1.1\r\nHost: shop\r\n\r\n", "400"),
        ("nonsense\r\n\r\n", "400"),
        (long.as_str(), "431"),
        (
            &format!("GET / HTTP/1.1\r\nHost: shop\r\n{many}\r\n"),
            "431",
        ),
    ] {
        let mut client = Client::connect(proxy.address).await;
        // A second request behind it must not be looked at.
        client.send(request).await;
        let _ = client.tcp.write_all(get("/").as_bytes()).await;
        let response = client.rest().await;
        let start = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&start), "{request:?}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
        assert!(
            response.to_lowercase().contains("connection: close"),
            "{response}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unread_rest_of_a_request_does_not_become_a_request() {
    let upstream = h1(|_| ok("fine")).await;
    let refuse = Action::Direct {
        status: 403,
        body: bytes::Bytes::from_static(b"no"),
    };
    let setup = Setup::new(upstream).with(|s| {
        s.more_routes
            .push(route(PathMatch::Exact("/no".into()), refuse))
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let smuggled = get("/smuggled");
    let request = format!(
        "POST /no HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    client.send(&request).await;
    client.send(&get("/next")).await;
    assert!(client.receive().await.starts_with("HTTP/1.1 403 "));
    assert!(client.receive().await.ends_with("fine"));
    // A body that does not come in time costs the connection.
    client
        .send("POST /no HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    assert!(client.rest().await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_and_no_content_have_no_body() {
    let upstream = h1(|request| {
        if request.starts_with("HEAD") {
            return "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".into();
        }
        "HTTP/1.1 204 No Content\r\n\r\n".into()
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    client.send("HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.tcp.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("Content-Length: 1000\r\n"), "{head}");
    let response = client.ask(&get("/")).await;
    assert!(response.starts_with("HTTP/1.1 204 "), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_limits() {
    let upstream = listen(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.forward.timeout = Some(Duration::from_millis(50));
        setup.manager.request_headers_timeout = Some(Duration::from_millis(50));
        setup.manager.stream_idle_timeout = Some(Duration::from_millis(150));
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert!(response.contains("response_timeout"), "{response}");

    let mut slow = Client::connect(proxy.address).await;
    slow.send("GET / HTTP/1.1\r\nHo").await;
    let response = slow.rest().await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.contains("request_header_timeout"), "{response}");

    // The body stops coming: the stream is idle, whatever the route's timeout is.
    let mut stalled = Client::connect(proxy.address).await;
    stalled
        .send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf")
        .await;
    let response = stalled.rest().await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.contains("stream_idle_timeout"), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_ends_its_upstream_request() {
    let (gone, mut told) = tokio::sync::mpsc::channel(1);
    let upstream = listen(move |mut tcp, _| {
        let gone = gone.clone();
        async move {
            let mut buffer = Vec::new();
            read_message(&mut tcp, &mut buffer).await;
            gone.send("here").await.unwrap();
            let _ = tcp.read_to_end(&mut buffer).await;
            gone.send("gone").await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/")).await;
    assert_eq!(told.recv().await, Some("here"));
    drop(client);
    assert_eq!(told.recv().await, Some("gone"));
}
