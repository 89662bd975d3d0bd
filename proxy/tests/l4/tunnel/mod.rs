//! TCP through a tunnel between two sidecars: everything a TCP connection may do, and what the
//! inbound side refuses.

mod envoy;
mod limits;
pub mod pair;
pub mod requests;

use std::io::ErrorKind;
use std::time::Duration;

use anyam_proxy::drain::Phase;
use anyam_proxy::socket::reset_on_close;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use self::pair::{FRONT, Pair, Setup, echoes};
use crate::listener::rig::{echo_server, greeting_server, rbac};
use crate::support::run;

/// A pair, a client's connection through it, and the app's end of it.
async fn through() -> (Pair, TcpStream, TcpStream) {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pair = Pair::to(app.local_addr().unwrap());
    let client = pair.client().await;
    let (served, _) = app.accept().await.unwrap();
    (pair, client, served)
}

#[test]
fn bytes_go_there_and_back_under_the_callers_identity() {
    run(async {
        let setup = Setup {
            filters: vec![rbac("ALLOW", FRONT)],
            ..Setup::default()
        };
        let pair = Pair::with(echo_server().await, setup);
        let mut client = pair.client().await;
        echoes(&mut client, b"hello").await;
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(pair.carriers(1));
        assert!(
            pair.called
                .metric("anyam_listener_tunnels_total{listener=\"inbound\"} 1")
        );
    });
}

#[test]
fn bytes_of_a_server_that_sends_first_arrive() {
    run(async {
        let pair = Pair::to(greeting_server().await);
        let mut client = pair.client().await;
        let mut got = [0; 10];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"220 ready\n");
        client.write_all(b"QUIT\n").await.unwrap();
        client.read_exact(&mut got[..4]).await.unwrap();
        assert_eq!(&got[..4], b"BYE\n");
    });
}

#[test]
fn bulk_in_both_directions_at_once() {
    const BYTES: usize = 16 << 20;
    run(async {
        let (_pair, client, served) = through().await;
        let one_way = |mut from: tokio::net::tcp::OwnedWriteHalf, seed: u8| async move {
            let piece: Vec<u8> = (0..65_521u32).map(|i| (i % 251) as u8 ^ seed).collect();
            let mut left = BYTES;
            while left > 0 {
                let fits = left.min(piece.len());
                from.write_all(&piece[..fits]).await.unwrap();
                left -= fits;
            }
            from.shutdown().await.unwrap();
        };
        let other_way = |mut to: tokio::net::tcp::OwnedReadHalf, seed: u8| async move {
            let mut buffer = vec![0; 1 << 16];
            let mut seen = 0usize;
            loop {
                let n = to.read(&mut buffer).await.unwrap();
                if n == 0 {
                    return seen;
                }
                for (at, byte) in buffer[..n].iter().enumerate() {
                    let expected = ((seen + at) % 65_521 % 251) as u8 ^ seed;
                    assert_eq!(*byte, expected);
                }
                seen += n;
            }
        };
        let (client_read, client_write) = client.into_split();
        let (served_read, served_write) = served.into_split();
        let ((), (), up, down) = tokio::join!(
            one_way(client_write, 0),
            one_way(served_write, 0x55),
            other_way(served_read, 0),
            other_way(client_read, 0x55),
        );
        assert_eq!((up, down), (BYTES, BYTES));
    });
}

#[test]
fn either_side_may_finish_first_and_still_listen() {
    run(async {
        for client_first in [true, false] {
            let (_pair, client, served) = through().await;
            let (mut first, mut second) = match client_first {
                true => (client, served),
                false => (served, client),
            };
            first.write_all(b"all I have").await.unwrap();
            first.shutdown().await.unwrap();
            let mut got = Vec::new();
            second.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"all I have");
            second.write_all(b"and more from here").await.unwrap();
            second.shutdown().await.unwrap();
            let mut got = Vec::new();
            first.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"and more from here");
        }
    });
}

#[test]
fn a_reset_stays_a_reset_both_ways() {
    run(async {
        for client_resets in [true, false] {
            let (_pair, client, served) = through().await;
            let (resets, mut other) = match client_resets {
                true => (client, served),
                false => (served, client),
            };
            reset_on_close(&resets);
            drop(resets);
            let error = other.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_reset_while_the_peer_does_not_read_is_noticed() {
    run(async {
        let (pair, mut client, served) = through().await;
        // Until nothing more fits: the relays on both sides are blocked.
        let piece = vec![7; 1 << 16];
        let stuck = Duration::from_millis(300);
        while tokio::time::timeout(stuck, client.write_all(&piece))
            .await
            .is_ok()
        {}
        reset_on_close(&served);
        drop(served);
        let error = loop {
            match client.write_all(&piece).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ));
        drop(pair);
    });
}

#[test]
fn an_app_that_is_not_there_resets_the_client() {
    run(async {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = gone.local_addr().unwrap();
        drop(gone);
        let pair = Pair::to(app);
        let mut client = pair.client().await;
        assert!(client.read(&mut [0]).await.is_err());
    });
}

#[test]
fn two_hundred_streams_share_two_connections() {
    run(async {
        let pair = Pair::to(echo_server().await);
        let mut clients = Vec::new();
        for _ in 0..200 {
            let mut client = pair.client().await;
            echoes(&mut client, b"one of many").await;
            clients.push(client);
        }
        assert!(pair.carriers(2));
        for (number, client) in clients.iter_mut().enumerate() {
            echoes(client, format!("number {number}").as_bytes()).await;
        }
    });
}

#[test]
fn a_burst_of_clients_waits_for_one_connection() {
    run(async {
        let pair = Pair::to(echo_server().await);
        let one = || async {
            let mut client = pair.client().await;
            echoes(&mut client, b"hello").await;
            client
        };
        let clients: Vec<_> = std::iter::repeat_with(one).take(100).collect();
        let open = futures_util::future::join_all(clients).await;
        assert_eq!(open.len(), 100);
        assert!(pair.carriers(1));
    });
}

/// Unread streams fill their own windows and delay no other on their connection.
#[test]
fn slow_streams_do_not_stall_the_others() {
    run(async {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pair = Pair::to(app.local_addr().unwrap());
        let mut slow = Vec::new();
        for _ in 0..3 {
            let mut client = pair.client().await;
            let (mut served, _) = app.accept().await.unwrap();
            // The server sends until nothing more fits; the client does not read.
            let piece = vec![7; 1 << 16];
            let stuck = Duration::from_millis(300);
            while tokio::time::timeout(stuck, served.write_all(&piece))
                .await
                .is_ok()
            {}
            // And the other way around.
            while tokio::time::timeout(stuck, client.write_all(&piece))
                .await
                .is_ok()
            {}
            slow.push((client, served));
        }
        let mut client = pair.client().await;
        let (mut served, _) = app.accept().await.unwrap();
        for _ in 0..100 {
            client.write_all(b"ping").await.unwrap();
            let mut got = [0; 4];
            served.read_exact(&mut got).await.unwrap();
            served.write_all(b"pong").await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"pong");
        }
        assert!(pair.carriers(1));
        drop(slow);
    });
}

/// When the windows of a connection are what new streams would wait for, they get another.
#[test]
fn a_connection_with_all_its_streams_is_joined_by_another() {
    run(async {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pair = Pair::to(app.local_addr().unwrap());
        let mut stuck = Vec::new();
        for _ in 0..4 {
            let mut client = pair.client().await;
            let (served, _) = app.accept().await.unwrap();
            let piece = vec![7; 1 << 16];
            let wait = Duration::from_millis(300);
            while tokio::time::timeout(wait, client.write_all(&piece))
                .await
                .is_ok()
            {}
            stuck.push((client, served));
        }
        assert!(pair.carriers(1));
        let _client = pair.client().await;
        app.accept().await.unwrap();
        assert!(pair.carriers(2));
    });
}

#[test]
fn a_drain_loses_nothing() {
    run(async {
        let pair = Pair::to(echo_server().await);
        let mut before = pair.client().await;
        echoes(&mut before, b"before").await;
        pair.called.drain.send_replace(Phase::Draining);
        for round in 0..20 {
            echoes(&mut before, format!("during {round}").as_bytes()).await;
            // New ones go by a connection that is not going away.
            let mut new = pair.client().await;
            echoes(&mut new, b"new").await;
        }
        before.shutdown().await.unwrap();
        assert_eq!(before.read(&mut [0]).await.unwrap(), 0);
        // What is left at the deadline is reset, and the reset reaches the client.
        let mut late = pair.client().await;
        echoes(&mut late, b"late").await;
        pair.called.drain.send_replace(Phase::Closing);
        assert!(late.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_caller_that_drains_cuts_at_its_deadline() {
    run(async {
        let (pair, mut client, mut served) = through().await;
        pair.caller.drain.send_replace(Phase::Draining);
        client.write_all(b"on").await.unwrap();
        let mut got = [0; 2];
        served.read_exact(&mut got).await.unwrap();
        pair.caller.drain.send_replace(Phase::Closing);
        assert!(served.read(&mut got).await.is_err());
        assert!(client.read(&mut got).await.is_err());
    });
}

#[test]
fn a_caller_that_may_not_is_reset_and_counted() {
    run(async {
        let setup = Setup {
            filters: vec![rbac("DENY", FRONT)],
            ..Setup::default()
        };
        let pair = Pair::with(echo_server().await, setup);
        let mut client = pair.client().await;
        assert!(client.read(&mut [0]).await.is_err());
        assert!(pair.refused(1));
        assert!(
            pair.called
                .metric("anyam_listener_rbac_denied_total{listener=\"inbound\"} 1")
        );
    });
}

/// Policy that turns against a caller ends what it has open inside a connection.
#[test]
fn policy_that_changes_ends_streams() {
    run(async {
        let app = echo_server().await;
        let mut pair = Pair::to(app);
        let mut client = pair.client().await;
        echoes(&mut client, b"still welcome").await;
        let denied = Setup {
            filters: vec![rbac("DENY", FRONT)],
            ..Setup::default()
        };
        let listener = pair::inbound_listener(pair.inbound, app.port(), &denied);
        pair.called.apply(&[], &[listener]);
        assert!(client.read(&mut [0]).await.is_err());
    });
}

#[test]
fn an_idle_tunnel_connection_ends_and_another_is_made() {
    run(async {
        let setup = Setup {
            tunnel: json!({"idle_timeout": "0.05s"}),
            ..Setup::default()
        };
        let pair = Pair::with(echo_server().await, setup);
        let mut client = pair.client().await;
        echoes(&mut client, b"one").await;
        // Busy for longer than the time-out, so it stays.
        tokio::time::sleep(Duration::from_millis(150)).await;
        echoes(&mut client, b"still").await;
        drop(client);
        while !pair
            .called
            .metric("anyam_listener_connections_active{listener=\"inbound\"} 0")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut client = pair.client().await;
        echoes(&mut client, b"two").await;
        assert!(pair.carriers(2));
    });
}

#[test]
fn fewer_streams_mean_more_connections() {
    run(async {
        let setup = Setup {
            tunnel: json!({"max_concurrent_streams": 2}),
            ..Setup::default()
        };
        let pair = Pair::with(echo_server().await, setup);
        let mut clients = Vec::new();
        for _ in 0..6 {
            let mut client = pair.client().await;
            echoes(&mut client, b"hello").await;
            clients.push(client);
        }
        assert!(pair.carriers(3));
        spawn_local(async move { drop(clients) }).await.unwrap();
    });
}
