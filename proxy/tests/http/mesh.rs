//! Two sidecars and mTLS between them.

use std::sync::Arc;
use std::time::Duration;

use anyam_proxy::config::cluster::{Transport, UpstreamProtocol};
use anyam_proxy::config::http::ForwardClientCert;
use anyam_proxy::config::policy::{Permission, Principal, Rbac, RbacAction};
use anyam_proxy::matcher::StringMatch;
use anyam_proxy::tls::{ClientContext, ServerContext};
use aws_lc_rs::digest;
use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, listen, ok, read_message};
use crate::pki::{self, Ca, Issued, uri};
use crate::settings::rules;

/// What the two sidecars show each other.
struct Identities {
    ca: Ca,
    front: Issued,
    cart: Issued,
}

impl Identities {
    fn new() -> Self {
        let ca = Ca::new();
        let issue = |name| ca.issue(vec![uri(&format!("spiffe://mesh.local/ns/shop/sa/{name}"))]);
        let (front, cart) = (issue("front"), issue("cart"));
        Self { ca, front, cart }
    }
}

/// Client sidecar and server sidecar; ALPN as given, the server's choice first.
async fn sidecars(
    identities: &Identities,
    alpn: &[&str],
    upstream: std::net::SocketAddr,
    inbound: Setup,
) -> (Proxy, Proxy) {
    let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let Identities { ca, front, cart } = identities;
    let mut server = pki::server(cart.identity(), Some(ca.bundle()));
    server.alpn = alpn.clone();
    let mut client = pki::client(Some(front.identity()), ca.bundle());
    client.alpn = alpn;
    let inbound = inbound.with(|setup| {
        setup.upstreams = vec![upstream];
        setup.tls = Some(Arc::new(ServerContext::new(server)));
        setup.manager.forward_client_cert = ForwardClientCert::SanitizeSet;
        setup.manager.client_cert_uri = true;
    });
    let inbound = Proxy::start(inbound);
    let outbound = Setup::new(inbound.address)
        .speaking(UpstreamProtocol::Auto)
        .with(|setup| setup.transport = Transport::Tls(Arc::new(ClientContext::new(client))));
    (Proxy::start(outbound), inbound)
}

#[tokio::test(flavor = "multi_thread")]
async fn spelling_survives_http2_between_sidecars_that_agreed_on_it() {
    for (alpn, kept) in [
        ("anyam-h2-case", true),
        ("anyam-h2", false),
        ("anyam-http/1.1", true),
    ] {
        let identities = Identities::new();
        let shown = digest::digest(&digest::SHA256, &identities.front.chain[0]);
        let hash: String = shown.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let upstream = h1(move |request| {
            assert_eq!(request.contains("X-SPELLED-so: 1\r\n"), kept, "{request}");
            assert!(request.to_lowercase().contains("x-spelled-so: 1\r\n"));
            assert!(!request.contains("x-anyam-header-case"), "{request}");
            let client = format!(
                "By=spiffe://mesh.local/ns/shop/sa/cart;Hash={hash};\
                 URI=spiffe://mesh.local/ns/shop/sa/front\r\n"
            );
            assert!(request.contains(&client), "{request}");
            assert!(!request.contains("spoofed"), "{request}");
            "HTTP/1.1 200 OK\r\nX-ANSWERED-So: 2\r\nContent-Length: 4\r\n\r\nfine".into()
        })
        .await;
        let (outbound, _inbound) =
            sidecars(&identities, &[alpn], upstream, Setup::new(upstream)).await;
        let mut client = Client::connect(outbound.address).await;
        for _ in 0..3 {
            let request = "GET / HTTP/1.1\r\nHost: shop\r\nX-SPELLED-so: 1\r\n\
                           x-anyam-header-case: spoofed\r\nx-forwarded-client-cert: spoofed\r\n\r\n";
            let response = client.ask(request).await;
            assert!(response.ends_with("fine"), "{response}");
            assert_eq!(
                response.contains("X-ANSWERED-So: 2\r\n"),
                kept,
                "{response}"
            );
        }
    }
}

/// An upgrade with a body (docker's) has no form in HTTP/2: between sidecars that support both it
/// uses HTTP/1.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_uses_http1_between_sidecars() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        while let Some(request) = read_message(&mut tcp, &mut buffer).await {
            if !request.starts_with("POST ") {
                tcp.write_all(ok("fine").as_bytes()).await.unwrap();
                continue;
            }
            let empty = request.contains("ontent-Length: 0\r\n");
            assert!(empty || request.ends_with("hello"), "{request}");
            let agree = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\n\r\n";
            tcp.write_all(agree.as_bytes()).await.unwrap();
            let (mut read, mut write) = tcp.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            return;
        }
    })
    .await;
    let identities = Identities::new();
    let alpn = ["anyam-h2-case", "anyam-h2", "anyam-http/1.1"];
    let (outbound, _inbound) = sidecars(&identities, &alpn, upstream, Setup::new(upstream)).await;
    // The second time the sidecars have agreed on HTTP/2 already.
    for length in ["Content-Length: 5", "Content-Length: 0"] {
        let mut client = Client::connect(outbound.address).await;
        let body = if length.ends_with('5') { "hello" } else { "" };
        if body.is_empty() {
            let answer = client.ask(&get("/")).await;
            assert!(answer.ends_with("fine"), "{answer}");
        }
        let post = format!(
            "POST /attach HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\n{length}\r\n\r\n{body}"
        );
        let answer = client.ask(&post).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        client.send("late").await;
        client.tcp.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "late");
    }
}

fn only(name: &str) -> Arc<Rbac> {
    let principal = StringMatch::Exact {
        value: format!("spiffe://mesh.local/ns/shop/sa/{name}").into(),
        ignore_case: false,
    };
    let principal = Principal::Authenticated(Some(principal));
    rules(RbacAction::Allow, "only", vec![Permission::Any], principal)
}

/// A policy that newly denies a peer ends its open requests, with the reason inside the mesh.
#[tokio::test(flavor = "multi_thread")]
async fn policy_by_identity_holds_for_connections_that_are_open() {
    let upstream = h1(|_| ok("fine")).await;
    let tls = {
        let (outbound, inbound) = sidecars(
            &Identities::new(),
            &["anyam-h2-case"],
            upstream,
            Setup::new(upstream).with(|setup| setup.rbac = Some(only("front"))),
        )
        .await;
        let mut client = Client::connect(outbound.address).await;
        assert!(client.ask(&get("/")).await.ends_with("fine"));
        let listener = inbound.store.load().listeners["front"].clone();
        let tls = listener.def.chains[0].tls.clone();
        let denied = Setup::new(upstream).with(|setup| {
            setup.rbac = Some(only("somebody-else"));
            setup.tls = tls.clone();
        });
        inbound.store.publish(denied.snapshot(2));
        let response = client.ask(&get("/")).await;
        assert!(
            response.starts_with("HTTP/1.1 403 ") || response.starts_with("HTTP/1.1 503 "),
            "{response}"
        );
        tls
    };
    assert!(tls.is_some());
}

/// Before ALPN on the first connection has negotiated HTTP/2, two requests wait for the only
/// connection that is allowed: both then get streams of it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_waited_for_alpn_share_the_connection() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        let request = read_message(&mut tcp, &mut buffer).await.unwrap();
        if request.starts_with("GET /never ") {
            std::future::pending::<()>().await;
        }
        let _ = tcp.write_all(ok("fine").as_bytes()).await;
    })
    .await;
    let identities = Identities::new();
    let inbound = Setup::new(upstream);
    let (outbound, inbound) = sidecars(&identities, &["anyam-h2"], upstream, inbound).await;
    let mut client = pki::client(Some(identities.front.identity()), identities.ca.bundle());
    client.alpn = vec![b"anyam-h2".to_vec()];
    let limited = Setup::new(inbound.address)
        .speaking(UpstreamProtocol::Auto)
        .with(|setup| {
            setup.transport = Transport::Tls(Arc::new(ClientContext::new(client)));
            setup.thresholds.connections = 1;
        });
    drop(outbound);
    let outbound = Proxy::start(limited);
    let mut stays = Client::connect(outbound.address).await;
    let mut passes = Client::connect(outbound.address).await;
    stays.send(&get("/never")).await;
    let answer = tokio::time::timeout(Duration::from_secs(8), passes.ask(&get("/"))).await;
    assert!(answer.expect("the request starves").ends_with("fine"));
}
