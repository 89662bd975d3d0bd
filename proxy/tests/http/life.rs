//! Retries, limits, new configuration, draining, mirrors.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyam_proxy::config::cluster::Thresholds;
use anyam_proxy::config::route::RetryOn;
use anyam_proxy::drain::Phase;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, h2_client, listen, ok, read_message};
use crate::settings::retry;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_made_again_with_the_same_body() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let upstream = h1(move |request| {
        assert!(request.ends_with("\r\n\r\nhello"), "{request}");
        match counter.fetch_add(1, SeqCst) {
            0 => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".into(),
            _ => ok("fine"),
        }
    })
    .await;
    let setup = Setup::new(upstream).with(|s| s.forward.retry = retry(RetryOn::FIVE_XX, 1));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    let response = client.ask(post).await;
    assert!(response.ends_with("fine"), "{response}");
    assert!(
        response.contains("x-envoy-attempt-count: 2\r\n"),
        "{response}"
    );
    assert_eq!(seen.load(SeqCst), 2);
}

/// An upstream that takes a request and says nothing: each try ends by its own idle time-out, and
/// the next one begins, also where the pause before it is longer than that time-out.
#[tokio::test(flavor = "multi_thread")]
async fn a_try_without_progress_is_made_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let upstream = listen(move |mut tcp, _| {
        let number = counter.fetch_add(1, SeqCst);
        async move {
            let mut buffer = Vec::new();
            read_message(&mut tcp, &mut buffer).await;
            match number {
                0 => drop(tcp.read(&mut [0]).await),
                _ => tcp.write_all(ok("fine").as_bytes()).await.unwrap(),
            }
        }
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        let mut policy = retry(RetryOn::FIVE_XX, 1).unwrap();
        let fields = Arc::get_mut(&mut policy).unwrap();
        fields.per_try_idle_timeout = Some(Duration::from_millis(30));
        fields.back_off_base = Duration::from_millis(100);
        fields.back_off_max = Duration::from_millis(100);
        setup.forward.retry = Some(policy);
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.ends_with("fine"), "{response}");
    assert_eq!(seen.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_and_the_last_answer_is_given() {
    let upstream =
        h1(|_| "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".into()).await;
    let setup = Setup::new(upstream).with(|s| s.forward.retry = retry(RetryOn::FIVE_XX, 2));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let response = client.ask(&get("/")).await;
    assert!(response.ends_with("busy"), "{response}");
    assert!(
        response.contains("x-envoy-attempt-count: 3\r\n"),
        "{response}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_passed_over() {
    let live = h1(|_| ok("alive")).await;
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let setup = Setup::new(dead).with(|setup| {
        setup.upstreams.push(live);
        setup.forward.retry = retry(RetryOn::CONNECT_FAILURE, 2);
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    for _ in 0..20 {
        assert!(client.ask(&get("/")).await.ends_with("alive"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_larger_than_what_may_be_kept_is_not_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let upstream = h1(move |_| {
        counter.fetch_add(1, SeqCst);
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".into()
    })
    .await;
    let setup = Setup::new(upstream).with(|s| s.forward.retry = retry(RetryOn::FIVE_XX, 3));
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let body = "x".repeat(2 << 20);
    let post = format!(
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = client.ask(&post).await;
    assert!(response.ends_with("busy"), "{response}");
    assert_eq!(seen.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn circuit_breakers() {
    let upstream = listen(|mut tcp, _| async move {
        let _ = tcp.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.thresholds = Thresholds {
            requests: 1,
            ..Thresholds::default()
        };
    });
    let proxy = Proxy::start(setup);
    let mut first = Client::connect(proxy.address).await;
    first.send(&get("/")).await;
    let mut refused = false;
    for _ in 0..200 {
        let mut second = Client::connect(proxy.address).await;
        second.send(&get("/")).await;
        let answer = tokio::time::timeout(Duration::from_millis(500), second.receive()).await;
        if let Ok(response) = answer {
            assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
            assert!(response.contains("x-envoy-overloaded: true"), "{response}");
            refused = true;
            break;
        }
    }
    assert!(refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_connection_allowed_requests_wait_for_it() {
    let upstream = h1(|_| ok("fine")).await;
    let setup = Setup::new(upstream).with(|setup| {
        setup.thresholds = Thresholds {
            connections: 1,
            ..Thresholds::default()
        };
    });
    let proxy = Proxy::start(setup);
    let asking = (0..20).map(|_| async {
        let mut client = Client::connect(proxy.address).await;
        for _ in 0..10 {
            assert!(client.ask(&get("/")).await.ends_with("fine"));
        }
    });
    futures_util::future::join_all(asking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_snapshots_under_load_lose_nothing() {
    let upstream = h1(|_| ok("fine")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let done = Arc::new(AtomicUsize::new(0));
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let clients = (0..8).map(|_| {
        let (done, answered) = (done.clone(), answered.clone());
        let address = proxy.address;
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut count = 0;
            while done.load(SeqCst) == 0 {
                let response = client.ask(&get("/")).await;
                assert!(response.ends_with("fine"), "{response}");
                let _ = answered.send(());
                count += 1;
            }
            count
        })
    });
    let clients: Vec<_> = clients.collect();
    for generation in 2..60 {
        proxy
            .store
            .publish(Setup::new(upstream).snapshot(generation));
        // Requests of before and after meet each snapshot.
        for _ in 0..2 * clients.len() {
            answers.recv().await.unwrap();
        }
    }
    done.store(1, SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_listener_is_gone_and_a_drain_end_in_order() {
    let upstream = h1(|_| ok("fine")).await;
    let proxy = Proxy::start(Setup::new(upstream));
    let mut idle = Client::connect(proxy.address).await;
    assert!(idle.ask(&get("/")).await.ends_with("fine"));
    let mut h2_idle = h2_client(proxy.address).await;
    let head = || Request::builder().uri("http://shop/").body(()).unwrap();
    let (answer, _) = h2_idle.send_request(head(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let mut snapshot = Setup::new(upstream).snapshot(2);
    snapshot.listeners = Default::default();
    proxy.store.publish(snapshot);
    assert_eq!(idle.rest().await, "");
    tokio::time::timeout(Duration::from_secs(5), async {
        // GOAWAY: no new stream is taken.
        while let Ok(ready) = h2_idle.ready().await {
            h2_idle = ready;
            match h2_idle.send_request(head(), true) {
                Ok((answer, _)) => {
                    let _ = answer.await;
                }
                Err(_) => break,
            }
        }
    })
    .await
    .unwrap();

    let proxy = Proxy::start(Setup::new(upstream));
    let mut busy = Client::connect(proxy.address).await;
    let mut quiet = Client::connect(proxy.address).await;
    assert!(quiet.ask(&get("/")).await.ends_with("fine"));
    busy.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhe")
        .await;
    proxy.drain.send(Phase::Draining).unwrap();
    assert_eq!(quiet.rest().await, "");
    let response = busy.ask("llo").await;
    assert!(response.ends_with("fine"), "{response}");
    let lower = response.to_lowercase();
    assert!(lower.contains("connection: close"), "{response}");
    assert_eq!(busy.rest().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_survives_an_upstream_that_closes_after_every_answer_under_load() {
    let upstream = listen(|mut tcp, number| async move {
        let mut buffer = Vec::new();
        for _ in 0..number % 3 + 1 {
            if read_message(&mut tcp, &mut buffer).await.is_none() {
                return;
            }
            let _ = tcp.write_all(ok("fine").as_bytes()).await;
        }
    })
    .await;
    let proxy = Proxy::start(Setup::new(upstream));
    let asking = (0..16).map(|_| async {
        let mut client = Client::connect(proxy.address).await;
        for _ in 0..100 {
            let response = client.ask(&get("/")).await;
            assert!(response.ends_with("fine"), "{response}");
        }
    });
    futures_util::future::join_all(asking).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_go_to_a_mirror_and_no_request_waits_for_it() {
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let upstream = listen(move |mut tcp, _| {
        let told = told.clone();
        async move {
            let mut buffer = Vec::new();
            while let Some(request) = read_message(&mut tcp, &mut buffer).await {
                let copy = request.contains("shop-shadow");
                told.send(request).unwrap();
                // A mirror that never answers delays no request.
                if !copy && tcp.write_all(ok("fine").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let setup = Setup::new(upstream).with(|setup| {
        setup
            .forward
            .mirrors
            .push(anyam_proxy::config::route::Mirror {
                cluster: anyam_proxy::config::ClusterRef(0),
                fraction: 1_000_000,
                keep_host: false,
            });
    });
    let proxy = Proxy::start(setup);
    let mut client = Client::connect(proxy.address).await;
    let post = "POST /x HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhello";
    assert!(client.ask(post).await.ends_with("fine"));
    let mut both = [hear.recv().await.unwrap(), hear.recv().await.unwrap()];
    both.sort_by_key(|request| request.contains("shop-shadow"));
    assert!(both[0].contains("Host: shop\r\n"));
    assert!(both[1].contains("Host: shop-shadow\r\n"), "{both:?}");
    assert!(both[1].ends_with("\r\n\r\nhello"));
}
