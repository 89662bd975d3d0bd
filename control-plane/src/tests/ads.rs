//! Joining and being configured, over real sockets with real clients.

use super::bench::{
    Bench, Client, DOMAIN, Delta, absent, certificate, csr, eventually, names, node, options,
};
use crate::ca::service::unix_now;
use crate::ca::token::Tokens;
use crate::server::{StartError, start};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ED25519, SanType};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::google::protobuf::{Struct, Value, value::Kind};
use xds_proto::type_url::CLUSTER;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_joins_by_token_is_configured_and_renews_by_certificate() {
    let bench = Bench::new().await;
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    let web = bench.join("web-0", "web").await;

    let channel = bench.channel(Some(&web)).await;
    let mut stream = Delta::open(channel.clone(), node("web-0")).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(names(&first), ["a"]);
    stream.answer(&first, None).await;
    bench
        .mesh
        .change(&[(CLUSTER, "b", Some("1")), (CLUSTER, "a", None)]);
    let second = stream.next().await.unwrap();
    assert_eq!(names(&second), ["b"]);

    let (key, request) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let chain = certificate(channel.clone(), &request, None).await.unwrap();
    let renewed = Client::new(key, &chain);
    assert_ne!(renewed.chain[0], web.chain[0]);
    let again = bench.channel(Some(&renewed)).await;
    let mut stream = Delta::open(again, node("web-0")).await.unwrap();
    assert_eq!(names(&stream.next().await.unwrap()), ["b"]);

    let (_, request) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/cart"));
    let other = certificate(channel, &request, None).await.unwrap_err();
    assert_eq!(
        other.code(),
        Code::PermissionDenied,
        "renewal keeps the identity"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_is_configured_as_another() {
    let bench = Bench::new().await;
    let web = bench.join("web-0", "web").await;
    let refused = async |client: Option<&Client>, node: Node| {
        let channel = bench.channel(client).await;
        match Delta::open(channel, node).await {
            Ok(mut stream) => stream.next().await.unwrap_err(),
            Err(status) => status,
        }
    };
    assert_eq!(
        refused(None, node("web-0")).await.code(),
        Code::Unauthenticated
    );
    let other = refused(Some(&web), node("cart-0")).await;
    assert_eq!(other.code(), Code::PermissionDenied);
    assert!(
        other.message().contains("shop/cart-0") && other.message().contains("sa/web"),
        "{other}"
    );
    let sibling = refused(Some(&web), node("web-1")).await;
    assert_eq!(
        sibling.code(),
        Code::PermissionDenied,
        "same account, another workload"
    );
    let unknown = refused(Some(&web), node("ghost-0")).await;
    assert_eq!(unknown.code(), Code::PermissionDenied);
    for id in [
        "",
        "x",
        "sidecar~10.0.0.1~web-0~mesh.local",
        "sidecar~10.0.0.1~web-0.shop~other",
    ] {
        let node = Node {
            id: id.into(),
            ..Default::default()
        };
        assert_eq!(
            refused(Some(&web), node).await.code(),
            Code::PermissionDenied,
            "{id}"
        );
    }
    // A certificate of another mesh does not get past the handshake.
    let of_another_mesh = Bench::new().await.join("web-0", "web").await;
    let channel = bench.channel(Some(&of_another_mesh)).await;
    let (_, csr) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    assert!(certificate(channel, &csr, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_is_good_for_one_certificate_of_its_workload() {
    let bench = Bench::new().await;
    let token = bench.token("shop", "web-0", "web");
    let uri = |account: &str| format!("spiffe://{DOMAIN}/ns/shop/sa/{account}");
    let ask = async |bench: &Bench, account: &str, token: Option<&str>| {
        let channel = bench.channel(None).await;
        certificate(channel, &csr(&uri(account)).1, token).await
    };
    let code = |result: Result<Vec<String>, Status>| result.unwrap_err().code();
    assert_eq!(code(ask(&bench, "web", None).await), Code::Unauthenticated);
    assert_eq!(
        code(ask(&bench, "web", Some("junk")).await),
        Code::Unauthenticated
    );
    assert_eq!(
        code(ask(&bench, "cart", Some(&token)).await),
        Code::PermissionDenied
    );
    let removed = bench.token("shop", "removed-0", "web");
    assert_eq!(
        code(ask(&bench, "web", Some(&removed)).await),
        Code::PermissionDenied
    );
    let demoted = bench.token("shop", "cart-0", "web");
    assert_eq!(
        code(ask(&bench, "web", Some(&demoted)).await),
        Code::PermissionDenied
    );
    // What was refused for its form did not cost the token.
    ask(&bench, "web", Some(&token)).await.unwrap();
    assert_eq!(
        code(ask(&bench, "web", Some(&token)).await),
        Code::Unauthenticated
    );
    let root = bench.running.authority.root_hash();
    let bench = bench.restart().await;
    assert_eq!(bench.running.authority.root_hash(), root);
    assert_eq!(
        code(ask(&bench, "web", Some(&token)).await),
        Code::Unauthenticated
    );
}

/// A CSR that `ca::csr::validate` refuses is refused over gRPC too, and uses up no token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_more_than_the_token_says_is_refused_on_the_wire() {
    let bench = Bench::new().await;
    let token = bench.token("shop", "web-0", "web");
    let uri = format!("spiffe://{DOMAIN}/ns/shop/sa/web");
    let plain = || {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params
    };
    let mut authority = plain();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut named = plain();
    let other = SanType::DnsName("cart.shop".try_into().unwrap());
    named.subject_alt_names.push(other);
    let mut twice = plain();
    let other = format!("spiffe://{DOMAIN}/ns/shop/sa/cart");
    let other = SanType::URI(other.as_str().try_into().unwrap());
    twice.subject_alt_names.push(other);
    let good = KeyPair::generate().unwrap();
    let unusual = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let requests = [
        ("a CA", authority.serialize_request(&good)),
        ("another name", named.serialize_request(&good)),
        ("another identity too", twice.serialize_request(&good)),
        (
            "a key of no allowed kind",
            plain().serialize_request(&unusual),
        ),
    ];
    for (what, request) in requests {
        let csr = request.unwrap().pem().unwrap();
        let channel = bench.channel(None).await;
        let refused = certificate(channel, &csr, Some(&token)).await;
        let status = refused.expect_err(what);
        let codes = [Code::InvalidArgument, Code::PermissionDenied];
        assert!(codes.contains(&status.code()), "{what}: {status}");
    }
    let csr = plain().serialize_request(&good).unwrap().pem().unwrap();
    let channel = bench.channel(None).await;
    certificate(channel, &csr, Some(&token)).await.unwrap();
}

/// An expired token, or one of another mesh, is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_and_foreign_tokens_are_refused() {
    let bench = Bench::new().await;
    let (_, request) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let foreign = Bench::new().await.token("shop", "web-0", "web");
    let hash = bench.running.authority.root_hash();
    let tokens = Tokens::open(&bench.state.path().join("state"), DOMAIN, &hash).unwrap();
    let long_ago = unix_now() - 7200;
    let expired = tokens
        .mint(("shop", "web-0"), "web", long_ago, Duration::from_secs(60))
        .unwrap();
    for token in [foreign, expired] {
        let channel = bench.channel(None).await;
        let refused = certificate(channel, &request, Some(&token)).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
}

/// Node metadata that cannot be meant is refused, with what is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_a_node_are_ports_that_differ() {
    let bench = Bench::new().await;
    for (outbound, inbound) in [("0", "15006"), ("x", "15006"), ("70000", "1"), ("80", "80")] {
        let text = |text: &str| Value {
            kind: Some(Kind::StringValue(text.into())),
        };
        let fields = [
            ("OUTBOUND_PORT".into(), text(outbound)),
            ("INBOUND_PORT".into(), text(inbound)),
        ];
        let node = Node {
            metadata: Some(Struct {
                fields: fields.into(),
            }),
            ..node("web-0")
        };
        let refused = match Delta::open(bench.plain().await, node).await {
            Ok(mut stream) => stream.next().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("OUTBOUND_PORT"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_rejects_is_shown_until_it_accepts() {
    let bench = Bench::new().await;
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    let web = bench.join("web-0", "web").await;
    let mut stream = Delta::open(bench.channel(Some(&web)).await, node("web-0"))
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    stream
        .answer(&first, Some("clusters[0].lb_policy: unknown"))
        .await;
    let proxy = eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        let proxy = body["proxies"][0].clone();
        (!proxy["rejected"].is_null()).then_some(proxy)
    })
    .await;
    assert_eq!(
        proxy["rejected"]["message"],
        "clusters[0].lb_policy: unknown"
    );
    assert_eq!(
        proxy["identity"],
        format!("spiffe://{DOMAIN}/ns/shop/sa/web")
    );
    assert_eq!(proxy["synced"], false);
    let (_, check) = bench.get("/api/v1/check").await;
    let found: Vec<_> = check["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["what"])
        .collect();
    assert!(
        found[0].as_str().unwrap().contains("lb_policy"),
        "{found:?}"
    );
    assert!(
        found[1].as_str().unwrap().contains("shop/absent-0"),
        "{found:?}"
    );

    bench.mesh.change(&[(CLUSTER, "a", Some("2"))]);
    let second = stream.next().await.unwrap();
    stream.answer(&second, None).await;
    eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        (body["proxies"][0]["synced"] == true).then_some(())
    })
    .await;
    drop(stream);
    eventually(async || {
        let (_, body) = bench.get("/api/v1/proxies").await;
        body["proxies"].as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_never_reads_delays_no_other() {
    let bench = Bench::new().await;
    let big = "x".repeat(1 << 20);
    let clusters: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    let all: Vec<_> = clusters
        .iter()
        .map(|name| (CLUSTER, &**name, Some(&*big)))
        .collect();
    bench.mesh.change(&all);
    let channel = bench.plain().await;
    let slow = Delta::open(channel, node("web-0")).await.unwrap();
    let mut quick = Delta::open(bench.plain().await, node("web-1"))
        .await
        .unwrap();
    let mut seen = 0;
    while seen < 50 {
        let response = quick.next().await.unwrap();
        seen += response.resources.len();
        quick.answer(&response, None).await;
    }
    for version in 0..20 {
        bench
            .mesh
            .change(&[(CLUSTER, "c0", Some(&version.to_string()))]);
        let response = quick.next().await.unwrap();
        quick.answer(&response, None).await;
    }
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_proxies_come_back_at_once() {
    let bench = Bench::new().await;
    let clusters: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let all: Vec<_> = clusters
        .iter()
        .map(|name| (CLUSTER, &**name, Some("1")))
        .collect();
    bench.mesh.change(&all);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let channel = bench.plain().await;
        for _ in 0..50 {
            let channel = channel.clone();
            tasks.spawn(async move {
                let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
                let response = stream.next().await.unwrap();
                assert_eq!(response.resources.len(), 100);
                stream
            });
        }
    }
    let streams = tasks.join_all().await;
    assert_eq!(streams.len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_the_streams_and_frees_the_state() {
    let bench = Bench::new().await;
    let mut stream = Delta::open(bench.plain().await, node("web-0"))
        .await
        .unwrap();
    stream.next().await.unwrap();
    let second = start(
        options(bench.state.path()),
        bench.mesh.clone(),
        Arc::new(absent()),
    )
    .await;
    assert!(matches!(second, Err(StartError::InUse(_))));
    let bench = bench.restart().await;
    let end = stream.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    let mut stream = Delta::open(bench.plain().await, node("web-0"))
        .await
        .unwrap();
    stream.next().await.unwrap();
    let mut open = options(bench.state.path());
    open.insecure_ads_listen = Some("0.0.0.0:0".parse().unwrap());
    let refused = start(open, bench.mesh.clone(), Arc::new(absent())).await;
    assert!(matches!(refused, Err(StartError::NotLoopback(_))));
}
