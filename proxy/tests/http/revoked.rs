//! A policy that is published while a request is open: tunnels and responses that it denies end,
//! the others continue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::filter::{
    FaultInjection, FilterConfig, FilterOverride, FilterOverrides, HttpFilter,
};
use anyam_proxy::config::policy::{Permission, Principal, RbacAction};
use anyam_proxy::config::route::{Action, PathMatch, PathRewrite, Route};
use anyam_proxy::matcher::{MetadataMatch, MetadataTest, StringMatch};
use anyam_proxy::metadata::{Object, Value};
use anyam_proxy::snapshot::{Listener, RouteConfig, RouteLink, Snapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Proxy, Setup, route};
use crate::peers::{Client, h2_client, listen, read_message};
use crate::settings::{delay, filter, filter_name, forward, rbac, rules};

/// Accepts upgrades and echoes; begins an endless response to any other request.
async fn upstream() -> SocketAddr {
    listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        let upgrades = request.to_lowercase().contains("upgrade: websocket");
        let head: &[u8] = if upgrades {
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
        };
        let (mut read, mut write) = tcp.split();
        // The proxy may have closed the connection.
        let _ = write.write_all(head).await;
        if upgrades {
            let _ = tokio::io::copy(&mut read, &mut write).await;
        } else {
            let _ = read.read(&mut [0]).await;
        }
    })
    .await
}

fn denying(path: &str) -> HttpFilter {
    let path = StringMatch::Exact {
        value: path.into(),
        ignore_case: false,
    };
    let permissions = vec![Permission::UrlPath(path)];
    rbac(rules(
        RbacAction::Deny,
        "secret",
        permissions,
        Principal::Any,
    ))
}

fn setup(upstream: SocketAddr, rewrites: bool, denied: Option<&str>) -> Setup {
    Setup::new(upstream).with(|setup| {
        setup.manager.filters = denied.map(denying).into_iter().collect();
        if rewrites {
            setup.matches = PathMatch::Prefix("/shop".into());
            setup.forward.rewrite = PathRewrite::Prefix("/app".into());
        }
    })
}

/// A tunnel; `Err`: the answer that refused it.
async fn try_websocket(proxy: &Proxy, path: &str) -> Result<Client, String> {
    let mut client = Client::connect(proxy.address).await;
    let ask = format!(
        "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    let answer = client.ask(&ask).await;
    match answer.starts_with("HTTP/1.1 101 ") {
        true => Ok(client),
        false => Err(answer),
    }
}

async fn websocket(proxy: &Proxy, path: &str) -> Client {
    let opened = try_websocket(proxy, path).await;
    opened.unwrap_or_else(|answer| panic!("{answer}"))
}

async fn echoes(client: &mut Client) {
    client.send("hello").await;
    let mut echo = [0; 5];
    client.tcp.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
}

async fn is_cut(client: &mut Client) {
    let mut end = [0];
    let ended = tokio::time::timeout(Duration::from_secs(20), client.tcp.read(&mut end)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_deny_ends_the_requests_that_it_denies_and_no_others() {
    let upstream = upstream().await;
    for (rewrites, before) in [
        (false, Some("/other")),
        // There was no policy before.
        (false, None),
        // The app gets another path than the one that policies are evaluated on.
        (true, Some("/other")),
    ] {
        let proxy = Proxy::start(setup(upstream, rewrites, before));
        let mut secret = websocket(&proxy, "/shop/secret").await;
        let mut open = websocket(&proxy, "/shop/open").await;
        let mut streams = Vec::new();
        let mut client = h2_client(proxy.address).await;
        for path in ["secret", "open"] {
            let uri = format!("http://shop/shop/{path}");
            let request = http::Request::get(uri).body(()).unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert_eq!(&body.data().await.unwrap().unwrap()[..], b"one");
            streams.push(body);
        }
        let newer = setup(upstream, rewrites, Some("/shop/secret"));
        proxy.store.publish(newer.snapshot(2));
        is_cut(&mut secret).await;
        assert!(streams[0].data().await.is_none_or(|data| data.is_err()));
        echoes(&mut open).await;
        let more = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(streams[1].poll_data(cx).is_pending())
        });
        assert!(more.await, "the open stream ended");
    }
}

/// Without a policy the head that policies are evaluated on is not kept; a request whose head was
/// rewritten cannot be evaluated later, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_head_was_not_kept_ends() {
    let upstream = upstream().await;
    let proxy = Proxy::start(setup(upstream, true, None));
    let mut open = websocket(&proxy, "/shop/open").await;
    echoes(&mut open).await;
    let newer = setup(upstream, true, Some("/shop/secret"));
    proxy.store.publish(newer.snapshot(2));
    is_cut(&mut open).await;
}

/// A route for half of all requests, which disables the policy.
fn exempt_half() -> Arc<Route> {
    let mut exempt = route(
        PathMatch::Prefix("/".into()),
        Action::Forward(Box::new(forward())),
    );
    let route = Arc::get_mut(&mut exempt).unwrap();
    route.matches.fraction = Some(500_000);
    route.filters = FilterOverrides(vec![(filter_name("rbac"), FilterOverride::Disabled)]).shared();
    exempt
}

/// The next snapshot, with everything as it was.
fn unchanged(now: &Snapshot) -> Snapshot {
    Snapshot {
        generation: now.generation + 1,
        listeners: now.listeners.clone(),
        by_socket: now.by_socket.clone(),
        removed: now.removed.clone(),
        routes: now.routes.clone(),
        clusters: now.clusters.clone(),
        secrets: now.secrets.clone(),
        workloads: now.workloads.clone(),
    }
}

/// The next snapshot when a cluster has changed: listeners and routes get other links.
fn relinked(now: &Snapshot) -> Snapshot {
    let fresh = |link: &RouteLink| {
        let routes = link.target().unwrap();
        RouteLink::Inline(Arc::new(RouteConfig {
            table: routes.table.clone(),
            clusters: routes.clusters.clone(),
        }))
    };
    let listeners = now.listeners.iter().map(|(name, listener)| {
        let listener = Listener {
            def: listener.def.clone(),
            clusters: listener.clusters.clone(),
            routes: listener.routes.iter().map(fresh).collect(),
        };
        (name.clone(), Arc::new(listener))
    });
    Snapshot {
        listeners: listeners.collect(),
        ..unchanged(now)
    }
}

/// A request that is evaluated again keeps the draw by which it was routed; the policy applies to one
/// of the two routes only.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_evaluated_again_keeps_its_draw() {
    let upstream = upstream().await;
    let configured = |exempt: Option<Arc<Route>>| {
        setup(upstream, false, Some("/shop/open")).with(|setup| {
            setup.more_routes = exempt.into_iter().collect();
        })
    };
    let proxy = Proxy::start(configured(Some(exempt_half())));
    let mut open = loop {
        match try_websocket(&proxy, "/shop/open").await {
            Ok(open) => break open,
            Err(refused) => assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}"),
        }
    };
    for round in 0..60 {
        let now = proxy.store.load();
        proxy.store.publish(match round % 3 {
            0 => unchanged(&now),
            1 => relinked(&now),
            // Other rules and another table, with the same contents.
            _ => configured(Some(exempt_half())).snapshot(now.generation + 1),
        });
        // Its task runs, and looks at what was published.
        echoes(&mut open).await;
    }
    let refusing = configured(None).snapshot(proxy.store.generation() + 1);
    proxy.store.publish(refusing);
    is_cut(&mut open).await;
}

/// Metadata that a filter has set on a request gives it no other route when it is evaluated again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_evaluated_again_keeps_its_route_whatever_filters_have_set() {
    let upstream = upstream().await;
    let configured = |denied: &str| {
        setup(upstream, false, Some(denied)).with(|setup| {
            setup.manager.filters.insert(0, marking());
            setup.more_routes = vec![denying_marked()];
        })
    };
    let proxy = Proxy::start(configured("/other"));
    let mut open = websocket(&proxy, "/shop/open").await;
    let mut secret = websocket(&proxy, "/shop/secret").await;
    proxy.store.publish(configured("/shop/secret").snapshot(2));
    is_cut(&mut secret).await;
    echoes(&mut open).await;
}

/// A filter that leaves metadata on every request, and delays it for a moment.
fn marking() -> HttpFilter {
    let metadata = Object::from([("mark".into(), Value::Bool(true))]);
    let fault = FaultInjection {
        metadata,
        ..delay(Duration::from_millis(1), Arc::default())
    };
    filter("fault", FilterConfig::Fault(Arc::new(fault)))
}

/// A route for requests with that metadata, of which a policy denies all.
fn denying_marked() -> Arc<Route> {
    let mut marked = route(
        PathMatch::Prefix("/".into()),
        Action::Forward(Box::new(forward())),
    );
    let everything = rules(
        RbacAction::Deny,
        "all",
        vec![Permission::Any],
        Principal::Any,
    );
    let route = Arc::get_mut(&mut marked).unwrap();
    route.matches.metadata = vec![MetadataMatch {
        namespace: "fault".into(),
        path: vec!["mark".into()],
        test: MetadataTest::Present(true),
        invert: false,
    }];
    let denied = FilterOverride::Config(FilterConfig::Rbac(everything));
    route.filters = FilterOverrides(vec![(filter_name("rbac"), denied)]).shared();
    marked
}
