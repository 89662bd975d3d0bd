//! The TLS stream against other stacks, slow ones and junk.

use std::process::Stdio;

use crate::support::pki::{Ca, dns, pair, server, uri};
use crate::support::{run, sockets};
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::tls::{Dial, Handshaker, ServerContext, Versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn handshaker() -> Handshaker {
    Handshaker::new(Pool::default(), 4)
}

/// Copies bytes between sockets, `chunk` at a time, each in a segment of its own.
async fn drip(mut from: TcpStream, mut to: TcpStream, chunk: usize) {
    from.set_nodelay(true).unwrap();
    to.set_nodelay(true).unwrap();
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let up = async {
        let mut buf = [0; 8192];
        while let Ok(n @ 1..) = from_read.read(&mut buf).await {
            for part in buf[..n].chunks(chunk) {
                to_write.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        let _ = to_write.shutdown().await;
    };
    let down = async {
        let mut buf = [0; 8192];
        while let Ok(n @ 1..) = to_read.read(&mut buf).await {
            for part in buf[..n].chunks(chunk) {
                from_write.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        let _ = from_write.shutdown().await;
    };
    tokio::join!(up, down);
}

#[test]
fn handshakes_and_data_in_parts_of_any_size() {
    for chunk in [1, 2, 3, 5, 7, 64, 1000] {
        run(async {
            let handshaker = handshaker();
            let (server, client) = pair();
            let (near, middle_near) = sockets().await;
            let (middle_far, far) = sockets().await;
            tokio::task::spawn_local(drip(middle_near, middle_far, chunk));
            let dial = Dial::default();
            let (client, server) = tokio::join!(
                handshaker.connect(near, &client, &dial),
                handshaker.accept(far, &[], &server)
            );
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            client.write_all(&[5; 40_000]).await.unwrap();
            let mut got = vec![0; 40_000];
            let (closed, read) = tokio::join!(client.shutdown(), server.read_exact(&mut got));
            closed.unwrap();
            read.unwrap();
            assert!(got.iter().all(|&b| b == 5));
        });
    }
}

#[test]
fn tokio_rustls_on_the_other_end() {
    run(async {
        let handshaker = handshaker();
        let (server, client) = pair();
        let (near, far) = sockets().await;
        let connector = tokio_rustls::TlsConnector::from(client.rustls_config().unwrap());
        let name = rustls_pki_types::ServerName::try_from("cart").unwrap();
        let (there, here) = tokio::join!(
            connector.connect(name, near),
            handshaker.accept(far, &[], &server)
        );
        let (mut there, mut here) = (there.unwrap(), here.unwrap());
        let echo = async {
            let mut buf = vec![0; 70_000];
            loop {
                let n = here.read(&mut buf).await.unwrap();
                if n == 0 {
                    here.shutdown().await.unwrap();
                    return;
                }
                here.write_all(&buf[..n]).await.unwrap();
                here.flush().await.unwrap();
            }
        };
        let talk = async {
            let sent: Vec<u8> = (0..500_000u32).map(|i| (i * 7 % 253) as u8).collect();
            let (mut read, mut write) = tokio::io::split(&mut there);
            let mut got = Vec::new();
            let send = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let ((), received) = tokio::join!(send, read.read_to_end(&mut got));
            received.unwrap();
            assert!(got == sent);
        };
        tokio::join!(echo, talk);
    });
}

#[test]
fn junk_instead_of_a_handshake() {
    run(async {
        let ca = Ca::new();
        let identity = ca.issue(vec![uri("spiffe://td/x")]).identity();
        let server = ServerContext::new(server(identity, None));
        let handshaker = Handshaker::new(Pool::default(), 4);
        for junk in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x00\x05hello",
            b"\x16\x03\x01\xff\xff",
            b"\x80\x2e\x01\x03\x01",
            b"\x15\x03\x03\x00\x02\x02\x28",
        ] {
            let (mut near, far) = sockets().await;
            near.write_all(junk).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(handshaker.accept(far, &[], &server).await.is_err());
        }
    });
}

/// openssl s_client as another implementation: a whole exchange over TLS 1.2 and 1.3, key
/// updates, and a renegotiation, which is refused.
#[test]
fn openssl_on_the_other_end() {
    run(async {
        let ca = Ca::new();
        let identity = ca.issue(vec![dns("localhost")]).identity();
        for (version, command) in [
            ("-tls1_3", "hello\n"),
            ("-tls1_2", "hello\n"),
            ("-tls1_3", "K\n"),
        ] {
            let mut options = server(identity.clone(), None);
            options.versions = Versions::default();
            options.alpn.clear();
            let server = ServerContext::new(options);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let spawned = tokio::process::Command::new("openssl")
                .args(["s_client", version, "-connect", &address.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn();
            let mut openssl = spawned.expect("openssl is installed");
            let (far, _) = listener.accept().await.unwrap();
            let handshaker = Handshaker::new(Pool::default(), 4);
            let mut stream = handshaker.accept(far, &[], &server).await.unwrap();
            let mut input = openssl.stdin.take().unwrap();
            input.write_all(command.as_bytes()).await.unwrap();
            if command == "K\n" {
                // The key update has arrived; data under the new keys still fits.
                std::future::poll_fn(|cx| stream.poll_read_ready(cx))
                    .await
                    .unwrap();
                input.write_all(b"hello\n").await.unwrap();
            }
            let mut got = [0; 6];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"hello\n");
            stream.write_all(b"bye\n").await.unwrap();
            stream.flush().await.unwrap();
            if version == "-tls1_2" {
                // TLS 1.2: a request to renegotiate is answered with no_renegotiation.
                input.write_all(b"R\n").await.unwrap();
                let end = stream.read(&mut got).await;
                assert!(!matches!(end, Ok(1..)), "renegotiated");
            }
        }
    });
}
