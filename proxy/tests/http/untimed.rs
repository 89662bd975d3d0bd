//! A new policy ends connections that wait without any time-out.

use std::time::Duration;

use anyam_proxy::config::policy::{Permission, Principal, RbacAction};
use tokio::io::AsyncWriteExt;

use crate::harness::{Proxy, Setup};
use crate::peers::{Client, get, h1, listen, ok, read_message};
use crate::settings::rules;

/// How long a connection may last that a policy denies.
const SOON: Duration = Duration::from_secs(5);

/// Publishes the same configuration with a policy that denies everyone.
fn deny(proxy: &Proxy, setup: Setup) {
    let permissions = vec![Permission::Any];
    let rules = rules(RbacAction::Deny, "everyone", permissions, Principal::Any);
    let denied = setup.with(|setup| setup.rbac = Some(rules));
    proxy.store.publish(denied.snapshot(2));
}

#[tokio::test]
async fn a_response_that_rests_without_a_time_out_is_ended() {
    let upstream = listen(|mut tcp, _| async move {
        let mut buffer = Vec::new();
        read_message(&mut tcp, &mut buffer).await;
        let event = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n";
        tcp.write_all(event.as_bytes()).await.unwrap();
        // Waits until the proxy closes the connection.
        read_message(&mut tcp, &mut buffer).await;
    })
    .await;
    let setup = || {
        Setup::new(upstream).with(|setup| {
            setup.manager.idle_timeout = Some(Duration::from_millis(50));
            setup.manager.stream_idle_timeout = None;
            setup.forward.timeout = None;
        })
    };
    let proxy = Proxy::start(setup());
    let mut client = Client::connect(proxy.address).await;
    client.send(&get("/events")).await;
    while !client.buffer.ends_with(b"event\r\n") {
        tokio::io::AsyncReadExt::read_buf(&mut client.tcp, &mut client.buffer)
            .await
            .unwrap();
    }
    // The idle time-out of a connection as old as this exchange has passed.
    let idle = Client::connect(proxy.address).await;
    assert_eq!(idle.rest().await, "");
    deny(&proxy, setup());
    let rest = tokio::time::timeout(SOON, client.rest()).await;
    assert!(!rest.unwrap().ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn a_connection_of_undetected_protocol_is_ended() {
    let upstream = h1(|_| ok("")).await;
    let setup = || {
        Setup::new(upstream).with(|setup| {
            setup.manager.idle_timeout = None;
            setup.manager.stream_idle_timeout = None;
        })
    };
    let proxy = Proxy::start(setup());
    // A later connection shows that the worker has accepted the first.
    let mut client = Client::connect(proxy.address).await;
    client.send("PRI").await;
    let mut next = Client::connect(proxy.address).await;
    next.ask(&get("/")).await;
    deny(&proxy, setup());
    let rest = tokio::time::timeout(SOON, client.rest()).await;
    assert_eq!(rest.unwrap(), "");
}
