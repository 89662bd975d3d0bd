//! Redirected connections, in a network namespace of the test's own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyam_proxy::config::demand::{
    OnDemandClient, OnDemandRequest, OnDemandResource, OnDemandResponse,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use super::rig::{
    Rig, echo_server, greeting_server, listener, original_dst_cluster, rbac, static_cluster,
};
use crate::namespace::run_in_namespace;
use crate::support::run;

/// Redirects what comes from the clients' address, so that the proxy's own dials go out.
const RULES: &str = "add table ip test; \
    add chain ip test out { type nat hook output priority -100; }; \
    add rule ip test out ip saddr 127.0.0.9 tcp dport != 15001 redirect to :15001";

fn command(line: &str) -> bool {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    Command::new(program)
        .args(words)
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the test below in a network namespace of its own, whose network it can change.
#[test]
fn redirected_connections_find_their_listener() {
    run_in_namespace("listener::redirected::in_a_namespace");
}

#[test]
#[ignore = "run by redirected_connections_find_their_listener"]
fn in_a_namespace() {
    assert!(command("ip link set lo up"));
    assert!(command("ip route add default dev lo"));
    assert!(Command::new("nft").arg(RULES).status().unwrap().success());
    run(async {
        let (demand, mut wanted) = OnDemandClient::new(16, Duration::from_millis(300));
        let mut rig = Rig::with(Some(demand));
        let (echo, mail) = (echo_server().await, greeting_server().await);
        let mut outbound = listener("outbound", 15001, json!({}), "passthrough");
        outbound["use_original_dst"] = true.into();
        outbound["traffic_direction"] = "OUTBOUND".into();
        rig.apply(
            &[
                static_cluster("echo", echo),
                static_cluster("mail", mail),
                original_dst_cluster("passthrough"),
            ],
            &[outbound.clone(), at("240.0.0.1", 80, "echo")],
        );
        super::rig::connect(15001).await;

        // Known.
        assert_eq!(talk("240.0.0.1:80").await, Some(*b"ping"));
        // A listener without connections for long would be evicted.
        let counted = "anyam_listener_connections_total{listener=\"outbound/240.0.0.1:80\"} 1";
        assert!(rig.metric(counted));

        // On demand: there by the time the answer comes.
        let answer = async {
            let wanted = wanted.recv().await.unwrap();
            assert_eq!(
                wanted.what,
                OnDemandResource::Listener("240.0.0.2:25".parse().unwrap())
            );
            rig.apply(&[], &[at("240.0.0.2", 25, "mail")]);
            wanted.answer.send(OnDemandResponse::Found).unwrap();
        };
        let (greeted, ()) = tokio::join!(talk("240.0.0.2:25"), answer);
        assert_eq!(greeted, Some(*b"220 "));

        // Reported as found, and removed before the connection looks it up: fails closed, nothing
        // is dialled.
        let answer = async {
            let wanted = wanted.recv().await.unwrap();
            wanted.answer.send(OnDemandResponse::Found).unwrap();
        };
        let (refused, ()) = tokio::join!(talk("240.0.0.5:9"), answer);
        assert_eq!(refused, None);
        let dialled = "anyam_cluster_connect_failures_total{cluster=\"passthrough\"} 1";
        assert!(!rig.metric(dialled));

        // Not in the mesh: the catch-all forwards it to its original destination. There is no such
        // host, so the client's connection fails.
        let answer = async {
            wanted
                .recv()
                .await
                .unwrap()
                .answer
                .send(OnDemandResponse::Absent)
                .unwrap();
        };
        let (refused, ()) = tokio::join!(talk("240.0.0.3:9"), answer);
        assert_eq!(refused, None);
        assert!(rig.metric(dialled));

        // The control plane does not answer: fails closed, nothing is dialled.
        assert_eq!(talk("240.0.0.4:80").await, None);
        assert!(rig.metric(dialled));
        drop(wanted.recv().await.unwrap());

        refused_from_now_on(&mut rig, &mut wanted, outbound).await;
        assert!(rig.metric(dialled));
    });
}

/// Nothing may leave the mesh any more, as is published while the look-up is under way.
async fn refused_from_now_on(
    rig: &mut Rig,
    wanted: &mut mpsc::Receiver<OnDemandRequest>,
    outbound: Value,
) {
    let answer = async {
        let wanted = wanted.recv().await.unwrap();
        rig.apply(&[], &[refusing_all(outbound)]);
        wanted.answer.send(OnDemandResponse::Absent).unwrap();
    };
    let (refused, ()) = tokio::join!(talk("240.0.0.6:9"), answer);
    assert_eq!(refused, None);
    assert!(rig.metric("anyam_listener_rbac_denied_total{listener=\"outbound\"} 1"));
}

fn refusing_all(mut listener: Value) -> Value {
    let mut rules = rbac("DENY", "");
    let policy = &mut rules["typed_config"]["rules"]["policies"]["one"];
    policy["principals"] = json!([{"any": true}]);
    let filters = &mut listener["filter_chains"][0]["filters"];
    filters.as_array_mut().unwrap().insert(0, rules);
    listener
}

fn at(address: &str, port: u16, cluster: &str) -> Value {
    let mut listener = listener(
        &format!("outbound/{address}:{port}"),
        port,
        json!({}),
        cluster,
    );
    listener["address"]["socket_address"]["address"] = address.into();
    listener["bind_to_port"] = false.into();
    listener
}

async fn talk(address: &str) -> Option<[u8; 4]> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(([127, 0, 0, 9], 0).into()).ok()?;
    let mut client = socket
        .connect(address.parse::<SocketAddr>().unwrap())
        .await
        .ok()?;

    client.write_all(b"ping").await.ok()?;
    let mut got = [0; 4];
    client.read_exact(&mut got).await.ok()?;
    Some(got)
}
