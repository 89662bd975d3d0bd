//! The control plane's own certificate is replaced while proxies are connected.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use xds_proto::type_url::CLUSTER;

use super::bench::{Bench, Client, DOMAIN, Delta, absent, csr, names, node, options};
use crate::ads::testing::Memory;
use crate::ca::authority::Lifetimes;
use crate::ca::service::unix_now;
use crate::server::start;

const LIFE: Duration = Duration::from_secs(4);
/// Certificates seen, the first among them: the last is of a time when the first had expired.
const ROTATIONS: usize = 4;

async fn short_lived() -> Bench {
    let state = tempfile::tempdir().unwrap();
    let mesh = Arc::new(Memory::new().workload("shop", "web-0", "web"));
    let mut options = options(state.path());
    options.lifetimes = Lifetimes {
        default: LIFE,
        ..Lifetimes::default()
    };
    let running = start(options, mesh.clone(), Arc::new(absent())).await;
    Bench {
        state,
        mesh,
        running: running.unwrap(),
    }
}

/// Serial number and end (Unix seconds) of the certificate that a new handshake gets.
async fn served(bench: &Bench) -> (String, i64) {
    let stream = TcpStream::connect(bench.running.xds).await.unwrap();
    let name = ServerName::try_from("anyam-control").unwrap();
    let tls = bench.connector(None).connect(name, stream).await.unwrap();
    let (_, session) = tls.get_ref();
    let leaf = &session.peer_certificates().unwrap()[0];
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).unwrap();
    let end = leaf.validity().not_after.timestamp();
    (leaf.raw_serial_as_string(), end)
}

/// A certificate that outlives the test.
async fn join(bench: &Bench) -> Client {
    let token = bench.token("shop", "web-0", "web");
    let (key, csr) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/web"));
    let channel = bench.channel(None).await;
    let asked = Duration::from_secs(3600);
    let chain = super::bench::certificate_for(channel, &csr, Some(&token), asked).await;
    Client::new(key, &chain.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_serves_new_connections_and_cuts_no_old_one() {
    let bench = short_lived().await;
    bench.mesh.change(&[(CLUSTER, "round", Some("0"))]);
    let web = join(&bench).await;
    let mut old = Vec::new();
    for _ in 0..8 {
        let channel = bench.channel(Some(&web)).await;
        let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
        let first = stream.next().await.unwrap();
        stream.answer(&first, None).await;
        old.push(stream);
    }
    let mut seen = BTreeSet::new();
    let (first, first_end) = served(&bench).await;
    seen.insert(first);
    let mut round = 0;
    while seen.len() < ROTATIONS {
        round += 1;
        bench
            .mesh
            .change(&[(CLUSTER, "round", Some(&round.to_string()))]);
        // Every old stream gets every change, whichever certificate it began with.
        let mut reading = JoinSet::new();
        for mut stream in old {
            reading.spawn(async move {
                let response = stream.next().await.expect("the stream goes on");
                assert_eq!(names(&response), ["round"]);
                stream.answer(&response, None).await;
                stream
            });
        }
        // Meanwhile new ones come; what they are shown is good: the client checks it.
        let channel = bench.channel(Some(&web)).await;
        let mut fresh = Delta::open(channel, node("web-0")).await.unwrap();
        assert_eq!(names(&fresh.next().await.unwrap()), ["round"]);
        seen.insert(served(&bench).await.0);
        old = reading.join_all().await;
    }
    let now = i64::try_from(unix_now()).unwrap();
    assert!(now > first_end, "the first certificate has expired");
    assert_eq!(old.len(), 8);
}
