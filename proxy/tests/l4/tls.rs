//! The TLS stream against itself and against other stacks, over real sockets.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::support::pki::{Ca, client, dns, pair, server, uri};
use crate::support::{run, sockets};
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::tls::{
    ClientContext, Dial, Handshaker, Rotating, ServerContext, TlsStream, TrustBundle,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn connected(
    handshaker: &Handshaker,
    server: &ServerContext,
    client: &ClientContext,
) -> (TlsStream, TlsStream) {
    let (near, far) = sockets().await;
    let dial = Dial::default();
    let (client, server) = tokio::join!(
        handshaker.connect(near, client, &dial),
        handshaker.accept(far, &[], server)
    );
    (client.unwrap(), server.unwrap())
}

fn serial(stream: &TlsStream) -> String {
    let certificate = stream.info().peer_certificate.as_ref();
    certificate.unwrap().serial().to_owned()
}

pub fn handshaker() -> (Handshaker, Pool) {
    let pool = Pool::default();
    (Handshaker::new(pool.clone(), 4), pool)
}

#[test]
fn both_sides_know_each_other() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (client, server) = connected(&handshaker, &server, &client).await;
        let (there, here) = (client.info(), server.info());
        assert_eq!(
            there.peer.as_ref().unwrap().as_str(),
            "spiffe://mesh.local/ns/shop/sa/cart"
        );
        assert_eq!(here.peer.as_ref().unwrap().service_account(), Some("front"));
        assert_eq!(here.alpn.as_deref(), Some(&b"anyam-tcp"[..]));
        assert_eq!(here.version, "TLSv1.3");
        assert_eq!(here.cipher, "TLS13_AES_128_GCM_SHA256");
        assert_eq!(here.group, Some("X25519MLKEM768"));
        assert!(!here.resumed && here.peer_verified && here.peer_certificate.is_some());
    });
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    run(async {
        let (handshaker, pool) = handshaker();
        let (server, client) = pair();
        let (mut client, mut server) = connected(&handshaker, &server, &client).await;
        client
            .write_all(&vec![7; 300_000])
            .await
            .map(drop)
            .unwrap_or(());
        let mut got = vec![0; 300_000];
        let (flushed, read) = tokio::join!(client.flush(), server.read_exact(&mut got));
        flushed.unwrap();
        read.unwrap();
        // Tickets the client has not looked at yet stay in the socket; reading them leaves nothing.
        let mut byte = [0];
        let quiet = tokio::time::timeout(Duration::from_millis(20), client.read(&mut byte)).await;
        assert!(quiet.is_err());
        assert_eq!(pool.blocks_in_use(), 0);
    });
}

#[test]
fn bulk_arrives_whole_in_both_directions() {
    run(async {
        const TOTAL: usize = 64 << 20;
        let (handshaker, pool) = handshaker();
        let (server, client) = pair();
        let (client, server) = connected(&handshaker, &server, &client).await;
        let send = |stream: tokio::io::WriteHalf<TlsStream>| async move {
            let mut stream = stream;
            let chunk: Vec<u8> = (0..200_003u32).map(|i| (i % 251) as u8).collect();
            let mut sent = 0;
            while sent < TOTAL {
                let n = chunk.len().min(TOTAL - sent);
                stream.write_all(&chunk[..n]).await.unwrap();
                sent += n;
            }
            stream.shutdown().await.unwrap();
        };
        let receive = |stream: tokio::io::ReadHalf<TlsStream>| async move {
            let mut stream = stream;
            let mut buf = vec![0; 100_000];
            let mut total = 0;
            loop {
                let n = stream.read(&mut buf).await.unwrap();
                if n == 0 {
                    return total;
                }
                for (i, &byte) in buf[..n].iter().enumerate() {
                    let at = (total + i) % 200_003;
                    assert_eq!(byte, (at % 251) as u8);
                }
                total += n;
            }
        };
        let (client_read, client_write) = tokio::io::split(client);
        let (server_read, server_write) = tokio::io::split(server);
        let (_, _, up, down) = tokio::join!(
            send(client_write),
            send(server_write),
            receive(server_read),
            receive(client_read)
        );
        assert_eq!((up, down), (TOTAL, TOTAL));
        assert_eq!(pool.blocks_in_use(), 0);
    });
}

#[test]
fn small_reads_and_vectored_writes_keep_the_order() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (mut client, mut server) = connected(&handshaker, &server, &client).await;
        let parts: Vec<Vec<u8>> = (0..40usize)
            .map(|i| vec![i as u8; i * 977 % 20_000])
            .collect();
        let whole: Vec<u8> = parts.concat();
        let writer = async {
            let mut slices: Vec<_> = parts.iter().map(|p| std::io::IoSlice::new(p)).collect();
            let mut slices = &mut slices[..];
            while slices.iter().any(|s| !s.is_empty()) {
                let n = client.write_vectored(slices).await.unwrap();
                std::io::IoSlice::advance_slices(&mut slices, n);
            }
            client.shutdown().await.unwrap();
        };
        let reader = async {
            let mut got = Vec::new();
            let mut buf = [0; 333];
            loop {
                match server.read(&mut buf).await.unwrap() {
                    0 => return got,
                    n => got.extend_from_slice(&buf[..n]),
                }
            }
        };
        let ((), got) = tokio::join!(writer, reader);
        assert!(got == whole);
    });
}

#[test]
fn the_end_without_close_notify_is_truncation() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (mut client, mut server) = connected(&handshaker, &server, &client).await;
        client.write_all(b"half a").await.unwrap();
        client.flush().await.unwrap();
        anyam_proxy::socket::shutdown_write(client.socket()).unwrap();
        let mut got = Vec::new();
        let error = server.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(
            (&got[..], error.kind()),
            (&b"half a"[..], ErrorKind::UnexpectedEof)
        );
        // It stays that way.
        assert_eq!(
            server.read(&mut [0]).await.unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
    });
}

#[test]
fn after_close_notify_the_other_direction_continues() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (mut client, mut server) = connected(&handshaker, &server, &client).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 9]).await.unwrap(), 0);
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
    });
}

#[test]
fn a_reset_is_an_error() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (client, mut server) = connected(&handshaker, &server, &client).await;
        anyam_proxy::socket::reset_on_close(client.socket());
        drop(client);
        let error = server.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn garbage_after_the_handshake_is_refused() {
    run(async {
        let (handshaker, pool) = handshaker();
        let (server, client) = pair();
        let (client, mut server) = connected(&handshaker, &server, &client).await;
        let junk = [23, 3, 3, 0, 40]
            .iter()
            .copied()
            .chain([9; 40])
            .collect::<Vec<u8>>();
        client.socket().writable().await.unwrap();
        client.socket().try_write(&junk).unwrap();
        let error = server.read(&mut [0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(
            server.write(b"x").await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
        drop((client, server));
        assert_eq!(pool.blocks_in_use(), 0);
    });
}

#[test]
fn bytes_read_before_are_part_of_the_handshake() {
    run(async {
        let (handshaker, _) = handshaker();
        let (server, client) = pair();
        let (near, mut far) = sockets().await;
        let dial = Dial {
            sni: Some("Cart.Shop"),
            alpn: None,
        };
        let accept = async {
            let mut prefix = vec![0; 700];
            far.read_exact(&mut prefix).await.unwrap();
            handshaker.accept(far, &prefix, &server).await
        };
        let (client, server) = tokio::join!(handshaker.connect(near, &client, &dial), accept);
        assert!(client.is_ok());
        assert_eq!(server.unwrap().info().sni.as_deref(), Some("cart.shop"));
    });
}

#[test]
fn sessions_resume_until_the_bundle_changes() {
    run(async {
        let ca = Ca::new();
        let server_id = ca.issue(vec![uri("spiffe://td/ns/a/sa/s")]).identity();
        let client_id = ca.issue(vec![uri("spiffe://td/ns/a/sa/c")]).identity();
        let server_options = server(server_id, Some(ca.bundle()));
        let trust = server_options.trust.clone().unwrap();
        let server = ServerContext::new(server_options);
        let client = ClientContext::new(client(Some(client_id), ca.bundle()));
        let (handshaker, _) = handshaker();
        let mut resumed = Vec::new();
        for round in 0..4 {
            if round == 2 {
                trust.set(ca.bundle());
            }
            let (mut there, mut here) = connected(&handshaker, &server, &client).await;
            // Reading makes the client find its ticket.
            here.write_all(b"x").await.unwrap();
            there.read_exact(&mut [0]).await.unwrap();
            assert_eq!(
                here.info().peer.as_ref().unwrap().service_account(),
                Some("c")
            );
            resumed.push(here.info().resumed);
        }
        assert_eq!(resumed, [false, true, false, true]);
    });
}

#[test]
fn connections_of_an_untrusted_peer_are_closed_and_others_are_not() {
    run(async {
        let ca = Ca::new();
        let server_id = ca.issue(vec![uri("spiffe://td/ns/a/sa/s")]).identity();
        let number = |serial: u64| {
            ca.issue_with(vec![uri("spiffe://td/ns/a/sa/c")], |params| {
                params.serial_number = Some(serial.into());
            })
        };
        let good = ClientContext::new(client(Some(number(1000).identity()), ca.bundle()));
        let bad = ClientContext::new(client(Some(number(2000).identity()), ca.bundle()));
        let options = server(server_id, Some(ca.bundle()));
        let trust = options.trust.clone().unwrap();
        let server = ServerContext::new(options);
        let (handshaker, _) = handshaker();
        let (mut good_there, mut good_here) = connected(&handshaker, &server, &good).await;
        let (mut bad_there, mut bad_here) = connected(&handshaker, &server, &bad).await;
        assert_eq!(handshaker.reverify().await, 0);
        let crl = ca.revoke(&[2000]);
        let bundle = TrustBundle::from_pem(ca.pem().as_bytes(), Some(crl.as_bytes())).unwrap();
        trust.set(Arc::new(bundle));
        let reading = async { bad_here.read(&mut [0]).await.unwrap_err() };
        let verifying = handshaker.reverify();
        let (error, ended) = tokio::join!(reading, verifying);
        assert_eq!((error.kind(), ended), (ErrorKind::PermissionDenied, 1));
        assert!(bad_there.read(&mut [0]).await.is_err());
        good_there.write_all(b"x").await.unwrap();
        good_there.flush().await.unwrap();
        good_here.read_exact(&mut [0]).await.unwrap();
        // And a new connection of the revoked peer is refused.
        let (near, far) = sockets().await;
        let dial = Dial::default();
        let (_, refused) = tokio::join!(
            handshaker.connect(near, &bad, &dial),
            handshaker.accept(far, &[], &server)
        );
        assert!(refused.err().unwrap().peer_was_refused());
    });
}

#[test]
fn connections_of_one_peer_share_its_certificate() {
    run(async {
        let ca = Ca::new();
        let issue = |name: &str| ca.issue(vec![uri(name)]).identity();
        let server = ServerContext::new(server(issue("spiffe://td/ns/a/sa/s"), Some(ca.bundle())));
        let options = client(Some(issue("spiffe://td/ns/a/sa/c")), ca.bundle());
        let identity = options.identity.clone();
        let client = ClientContext::new(options);
        let (handshaker, _) = handshaker();
        let shown = |stream: &TlsStream| stream.info().peer_certificate.clone().unwrap();
        let (_one, there) = connected(&handshaker, &server, &client).await;
        let (_other, also) = connected(&handshaker, &server, &client).await;
        assert!(Arc::ptr_eq(&shown(&there), &shown(&also)));
        identity.unwrap().set(issue("spiffe://td/ns/a/sa/c"));
        let (_third, renewed) = connected(&handshaker, &server, &client).await;
        assert_ne!(shown(&renewed).fingerprint(), shown(&there).fingerprint());
    });
}

#[test]
fn a_renewed_certificate_reaches_new_connections_only() {
    run(async {
        let ca = Ca::new();
        let issue = || ca.issue(vec![uri("spiffe://td/ns/a/sa/s")]).identity();
        let options = server(issue(), None);
        let identity = options.identity.clone();
        let server = ServerContext::new(options);
        let client = ClientContext::new(client(None, ca.bundle()));
        let (handshaker, _) = handshaker();
        let (mut old_there, mut old_here) = connected(&handshaker, &server, &client).await;
        identity.set(issue());
        handshaker.reverify().await;
        let (new_there, _) = connected(&handshaker, &server, &client).await;
        assert_ne!(serial(&new_there), serial(&old_there));
        old_here.write_all(b"still").await.unwrap();
        old_here.flush().await.unwrap();
        old_there.read_exact(&mut [0; 5]).await.unwrap();
    });
}

#[test]
fn nothing_is_accepted_before_there_is_a_certificate() {
    run(async {
        let (handshaker, _) = handshaker();
        let ca = Ca::new();
        let mut options = server(ca.issue(vec![dns("x")]).identity(), None);
        options.identity = Rotating::new(None);
        let (_near, far) = sockets().await;
        let refused = handshaker
            .accept(far, &[], &ServerContext::new(options))
            .await;
        assert!(
            refused
                .err()
                .unwrap()
                .to_string()
                .contains("no certificate yet")
        );
    });
}
