//! 64 MiB each way, byte by byte, in every mode.

use std::cell::Cell;
use std::rc::Rc;

use anyam_proxy::relay::RelayEnd;
use anyam_proxy::tls::{Dial, Handshaker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Rig;
use crate::support::pki::pair;
use crate::support::{run, sockets};

const TOTAL: usize = 64 << 20;

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

async fn send_pattern(mut to: impl tokio::io::AsyncWrite + Unpin) {
    let chunk: Vec<u8> = (0..251 * 1024).map(pattern).collect();
    let mut sent = 0;
    while sent < TOTAL {
        let n = chunk.len().min(TOTAL - sent);
        to.write_all(&chunk[..n]).await.unwrap();
        sent += n;
    }
    to.shutdown().await.unwrap();
}

async fn check_pattern(mut from: impl tokio::io::AsyncRead + Unpin) {
    let expected: Vec<u8> = (0..251 * 1024).map(pattern).collect();
    let mut buf = vec![0; 250 * 1024];
    let mut total = 0;
    loop {
        let n = from.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        let phase = total % 251;
        assert!(
            buf[..n] == expected[phase..phase + n],
            "differs near byte {total}"
        );
        total += n;
    }
    assert_eq!(total, TOTAL);
}

async fn bulk_both_ways(client: TcpStream, server: TcpStream) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::join!(
        send_pattern(client_write),
        send_pattern(server_write),
        check_pattern(client_read),
        check_pattern(server_read)
    );
}

#[test]
fn bulk_arrives_whole_through_pipes() {
    run(async {
        let rig = Rig::new();
        let (client, server, done) = rig.plain().await;
        let seen = Rc::new(Cell::new(0));
        let (watched, pipes) = (seen.clone(), rig.pipes.clone());
        let watcher = spawn_local(async move {
            loop {
                watched.set(watched.get().max(pipes.in_use()));
                tokio::task::yield_now().await;
            }
        });
        bulk_both_ways(client, server).await;
        let outcome = done.await.unwrap();
        watcher.abort();
        assert_eq!(
            (outcome.from_down, outcome.from_up),
            (TOTAL as u64, TOTAL as u64)
        );
        assert!(seen.get() > 0, "bulk was never spliced");
        assert!(rig.holds_nothing());
    });
}

#[test]
fn bulk_arrives_whole_when_there_are_no_pipes() {
    run(async {
        let rig = Rig::new();
        let taken: Vec<_> = std::iter::from_fn(|| rig.pipes.take()).collect();
        assert!(!taken.is_empty());
        let (client, server, done) = rig.plain().await;
        bulk_both_ways(client, server).await;
        assert_eq!(done.await.unwrap().from_down, TOTAL as u64);
        assert_eq!(rig.pipes.in_use(), taken.len());
    });
}

#[test]
fn bulk_arrives_whole_over_tls() {
    run(async {
        let rig = Rig::new();
        let handshaker = Handshaker::new(rig.pool.clone(), 4);
        let (server_context, client_context) = pair();
        let (client, down) = sockets().await;
        let (near, far) = sockets().await;
        let (up, server) = sockets().await;
        let dial = Dial::default();
        let (near, far) = tokio::join!(
            handshaker.connect(near, &client_context, &dial),
            handshaker.accept(far, &[], &server_context)
        );
        let first = rig.start(down.into(), near.unwrap().into());
        let second = rig.start(far.unwrap().into(), up.into());
        bulk_both_ways(client, server).await;
        for outcome in [first.await.unwrap(), second.await.unwrap()] {
            assert_eq!(
                (outcome.from_down, outcome.from_up),
                (TOTAL as u64, TOTAL as u64)
            );
            assert!(matches!(outcome.ended, RelayEnd::Clean { .. }));
        }
        assert!(rig.holds_nothing());
    });
}

/// The most pipes that were out at once while 64 MiB went each way.
async fn pipes_used(buffer: usize) -> usize {
    let mut rig = Rig::new();
    rig.buffer = buffer;
    let most = Rc::new(Cell::new(0));
    let (client, server, relay) = rig.plain().await;
    let (pipes, seen) = (rig.pipes.clone(), most.clone());
    let looking = spawn_local(async move {
        loop {
            seen.set(seen.get().max(pipes.in_use()));
            tokio::task::yield_now().await;
        }
    });
    bulk_both_ways(client, server).await;
    assert!(matches!(relay.await.unwrap().ended, RelayEnd::Clean { .. }));
    looking.abort();
    most.get()
}

#[test]
fn a_connection_that_may_hold_little_gets_no_pipe() {
    run(async {
        assert!(pipes_used(1 << 20).await > 0);
        assert_eq!(pipes_used(64 << 10).await, 0);
    });
}
