//! What each endpoint gets of the requests on one long connection, while endpoints come and go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use anyam_proxy::config::cluster::{ClusterDef, LbPolicy, UpstreamProtocol};
use anyam_proxy::config::endpoint::{AssignmentPolicy, HealthStatus};
use anyam_proxy::upstream::endpoint::{Endpoint, Priority};
use bytes::Bytes;

use crate::harness::{Proxy, Setup};
use crate::peers::{h2, h2_client, read_all};

/// Requests by endpoint.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<SocketAddr, Arc<AtomicUsize>>>>);

impl Counts {
    /// An HTTP/2 server that is counted.
    async fn server(&self) -> SocketAddr {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let address = h2(move |_, mut respond| {
            counted.fetch_add(1, SeqCst);
            async move {
                let _ = respond.send_response(http::Response::new(()), true);
            }
        })
        .await;
        self.0.lock().unwrap().insert(address, count);
        address
    }

    /// How many requests each of these got since the last call.
    fn take(&self, of: &[SocketAddr]) -> Vec<usize> {
        let counts = self.0.lock().unwrap();
        of.iter().map(|at| counts[at].swap(0, SeqCst)).collect()
    }
}

fn set(proxy: &Proxy, addresses: &[SocketAddr]) {
    let cluster = proxy.store.load().clusters["shop"].clone();
    let before = cluster.endpoints.load_full();
    let endpoint = |address: &SocketAddr| {
        let state = before.find(*address).map(|(_, known)| known.state.clone());
        Arc::new(Endpoint {
            transport: Some(0),
            state: state.unwrap_or_default(),
            ..Endpoint::at(*address)
        })
    };
    let endpoints = addresses.iter().map(endpoint).collect();
    cluster.set_endpoints(vec![Priority { endpoints }], AssignmentPolicy::default());
}

async fn ask(client: &h2::client::SendRequest<Bytes>, requests: usize) {
    for _ in 0..requests {
        let mut client = client.clone().ready().await.unwrap();
        let request = http::Request::get("http://shop/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        read_all(&mut answer.into_body()).await;
    }
}

async fn new_and_old_endpoints_get_the_same(adjust: fn(&mut ClusterDef), slack: f64) {
    let counts = Counts::default();
    let mut endpoints = Vec::new();
    for _ in 0..3 {
        endpoints.push(counts.server().await);
    }
    let setup = Setup::new(endpoints[0])
        .speaking(UpstreamProtocol::Http2)
        .with(|setup| {
            setup.upstreams = endpoints.clone();
            setup.adjust = adjust;
        });
    let proxy = Proxy::start(setup);
    let client = h2_client(proxy.address).await;
    ask(&client, 300).await;
    counts.take(&endpoints);
    // One comes, one goes: the connections to those that stay go on.
    for round in 0..6 {
        if round % 2 == 0 {
            endpoints.push(counts.server().await);
        } else {
            endpoints.remove(0);
        }
        set(&proxy, &endpoints);
        let requests = 400 * endpoints.len();
        ask(&client, requests).await;
        let got = counts.take(&endpoints);
        assert_eq!(
            got.iter().sum::<usize>(),
            requests,
            "round {round}: {got:?}"
        );
        for count in &got {
            let away = (*count as f64 - 400.0).abs() / 400.0;
            assert!(away <= slack, "round {round}: {got:?}");
        }
    }
}

/// A change of the endpoints closes connections where that is wanted, those in use once they are free.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_made_anew_when_endpoints_change_where_that_is_wanted() {
    for (closes, protocol) in [
        (false, UpstreamProtocol::Http1),
        (true, UpstreamProtocol::Http1),
        (false, UpstreamProtocol::Http2),
        (true, UpstreamProtocol::Http2),
    ] {
        let counts = Counts::default();
        let upstream = match protocol {
            UpstreamProtocol::Http2 => counts.server().await,
            _ => crate::peers::h1(|_| crate::peers::ok("")).await,
        };
        let setup = Setup::new(upstream).speaking(protocol).with(|setup| {
            setup.adjust = match closes {
                true => |def| def.close_connections_on_host_set_change = true,
                false => |_| {},
            };
        });
        let proxy = Proxy::start(setup);
        let metrics = proxy.store.load().clusters["shop"].metrics.clone();
        let client = h2_client(proxy.address).await;
        ask(&client, 5).await;
        assert_eq!(metrics.connections.get(), 1);
        // The same endpoints again change nothing.
        set(&proxy, &[upstream]);
        ask(&client, 5).await;
        assert_eq!(metrics.connections.get(), 1);
        let other = counts.server().await;
        let cluster = proxy.store.load().clusters["shop"].clone();
        let sick = Arc::new(Endpoint {
            health: HealthStatus::Unhealthy,
            transport: Some(0),
            ..Endpoint::at(other)
        });
        let mut endpoints = cluster.endpoints.load().priorities[0].endpoints.clone();
        endpoints.push(sick);
        cluster.set_endpoints(vec![Priority { endpoints }], AssignmentPolicy::default());
        ask(&client, 5).await;
        let made = if closes { 2 } else { 1 };
        assert_eq!(metrics.connections.get(), made, "{closes} {protocol:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_turn_within_five_percent() {
    new_and_old_endpoints_get_the_same(|_| {}, 0.05).await;
}

/// Least request draws: five standard deviations of a draw among four.
#[tokio::test(flavor = "multi_thread")]
async fn by_least_request_as_evenly_as_draws_are() {
    let adjust = |def: &mut ClusterDef| {
        def.lb = LbPolicy::LeastRequest {
            choices: 2,
            bias: 1.0,
        };
    };
    new_and_old_endpoints_get_the_same(adjust, 0.25).await;
}
