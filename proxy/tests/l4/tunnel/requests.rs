//! Answers of the inbound side to a peer that opens tunnels by hand, as any HBONE client would.

use std::net::SocketAddr;
use std::sync::Arc;

use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::tls::{ClientContext, Dial, Handshaker, TlsStream};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode, Uri};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{JoinHandle, spawn_local};

use super::pair::{FRONT, Pair, Setup, inbound_listener};
use crate::listener::rig::{connect as connect_to_port, echo_server, rbac};
use crate::support::pki::{client, uri};
use crate::support::run;

/// An HTTP/2 client over mTLS, as `front`.
pub async fn hbone(pair: &Pair) -> SendRequest<Bytes> {
    hbone_with_end(pair).await.0
}

/// And how it ends.
async fn hbone_with_end(pair: &Pair) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    hbone_by(pair, &h2::client::Builder::new()).await
}

/// The same by settings of its own.
pub async fn hbone_by(
    pair: &Pair,
    builder: &h2::client::Builder,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (send, connection) = builder.handshake(mtls(pair).await).await.unwrap();
    (send, spawn_local(connection))
}

async fn mtls(pair: &Pair) -> TlsStream {
    let identity = pair.ca.issue(vec![uri(FRONT)]).identity();
    let mut options = client(Some(identity), pair.ca.bundle());
    options.alpn = vec![b"h2".to_vec()];
    let context = Arc::new(ClientContext::new(options));
    let tls = Handshaker::new(Pool::default(), 8);
    let tcp = connect_to_port(pair.inbound).await;
    tls.connect(tcp, &context, &Dial::default()).await.unwrap()
}

pub fn connect_request(authority: &str) -> Request<()> {
    let uri = Uri::builder().authority(authority).build().unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(uri);
    // What HBONE clients send along, and no decision is based on.
    request
        .header("baggage", "k8s.namespace.name=admin")
        .header("forwarded", "for=10.9.9.9;host=elsewhere")
        .body(())
        .unwrap()
}

async fn status(send: &SendRequest<Bytes>, request: Request<()>) -> StatusCode {
    let mut send = send.clone().ready().await.unwrap();
    let (response, _stream) = send.send_request(request, false).unwrap();
    response.await.unwrap().status()
}

/// Without an ALPN header the declared port decides, and the bytes arrive.
#[test]
fn a_tunnel_without_an_alpn_header_carries_bytes() {
    run(async {
        let app = echo_server().await;
        let setup = Setup {
            filters: vec![rbac("ALLOW", FRONT)],
            ..Setup::default()
        };
        let pair = Pair::with(app, setup);
        let send = hbone(&pair).await;
        let mut send = send.ready().await.unwrap();
        let request = connect_request(&app.to_string());
        let (response, mut stream) = send.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        stream
            .send_data(Bytes::from_static(b"hello"), true)
            .unwrap();
        let mut body = response.into_body();
        let mut got = Vec::new();
        while let Some(piece) = body.data().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(got, b"hello");
    });
}

#[test]
fn what_leads_elsewhere_is_refused_and_counted() {
    run(async {
        let app = echo_server().await;
        let pair = Pair::to(app);
        let send = hbone(&pair).await;
        let port = app.port();
        let mut refused = 0;
        for (authority, answer) in [
            // Another's address, in several spellings.
            (format!("127.0.0.2:{port}"), 421),
            (format!("10.0.0.1:{port}"), 421),
            (format!("[::1]:{port}"), 421),
            // Itself.
            (format!("127.0.0.1:{}", pair.inbound), 421),
            // Names are not looked up.
            (format!("localhost:{port}"), 400),
            ("127.0.0.1".to_owned(), 400),
            // A port without a chain.
            ("127.0.0.1:1".to_owned(), 404),
        ] {
            let got = status(&send, connect_request(&authority)).await;
            assert_eq!(got, answer, "{authority}");
            refused += 1;
            assert!(pair.refused(refused));
        }
        let get = Request::get(format!("http://127.0.0.1:{port}/"))
            .body(())
            .unwrap();
        assert_eq!(status(&send, get).await, 405);
        let mut odd = connect_request(&app.to_string());
        odd.headers_mut().insert("alpn", "%zz".parse().unwrap());
        assert_eq!(status(&send, odd).await, 400);
        let mut wrong = connect_request(&app.to_string());
        wrong
            .headers_mut()
            .insert("alpn", "anyam-h2".parse().unwrap());
        assert_eq!(status(&send, wrong).await, 404);
        // The connection and its other streams are unaffected.
        assert_eq!(status(&send, connect_request(&app.to_string())).await, 200);
    });
}

/// The same identity, another port: another answer.
#[test]
fn policy_applies_to_the_inner_port() {
    run(async {
        let (open, closed) = (echo_server().await, echo_server().await);
        let mut pair = Pair::to(open);
        let setup = |filters| Setup {
            filters,
            ..Setup::default()
        };
        let mut listener = inbound_listener(pair.inbound, open.port(), &setup(Vec::new()));
        let denied = setup(vec![rbac("DENY", FRONT)]);
        let denied = inbound_listener(pair.inbound, closed.port(), &denied);
        let mut chain = denied["filter_chains"][1].clone();
        chain["name"] = json!("closed");
        listener["filter_chains"]
            .as_array_mut()
            .unwrap()
            .push(chain);
        pair.called.apply(&[], &[listener]);
        let send = hbone(&pair).await;
        assert_eq!(status(&send, connect_request(&open.to_string())).await, 200);
        assert_eq!(
            status(&send, connect_request(&closed.to_string())).await,
            403
        );
        assert!(
            pair.called
                .metric("anyam_listener_rbac_denied_total{listener=\"inbound\"} 1")
        );
    });
}

/// A chain that requires other names, or another root, than the connection was verified by.
#[test]
fn a_stricter_chain_is_not_reached_through_a_tunnel() {
    run(async {
        let app = echo_server().await;
        let mut pair = Pair::to(app);
        let mut listener = inbound_listener(pair.inbound, app.port(), &Setup::default());
        let tls = &mut listener["filter_chains"][1]["transport_socket"]["typed_config"];
        let names = json!([{"san_type": "URI", "matcher": {"exact": FRONT}}]);
        let common = &mut tls["common_tls_context"];
        common["combined_validation_context"] = json!({
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": {"name": "ROOTCA"},
        });
        common
            .as_object_mut()
            .unwrap()
            .remove("validation_context_sds_secret_config");
        pair.called.apply(&[], &[listener]);
        let send = hbone(&pair).await;
        assert_eq!(status(&send, connect_request(&app.to_string())).await, 403);
    });
}

/// Streams that are refused by the hundred cost the peer its connection.
#[test]
fn a_flood_of_refused_streams_ends_the_connection() {
    run(async {
        let pair = Pair::to(echo_server().await);
        let (send, end) = hbone_with_end(&pair).await;
        while let Ok(mut send) = send.clone().ready().await {
            let (response, _) = send
                .send_request(connect_request("127.0.0.2:80"), true)
                .unwrap();
            if response.await.is_err() {
                break;
            }
        }
        let ended = end.await.unwrap().unwrap_err();
        assert_eq!(ended.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    });
}

/// As on a connection of requests.
#[test]
fn a_flood_of_control_frames_ends_the_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let floods: [(&str, &[u8]); 3] = [
        ("SETTINGS", b"\0\0\0\x04\0\0\0\0\0"),
        ("PING", b"\0\0\x08\x06\0\0\0\0\0datadata"),
        ("PRIORITY", b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x01"),
    ];
    run(async {
        let app = echo_server().await;
        let pair = Pair::to(app);
        for (what, flood) in floods {
            let (mut reader, mut writer) = tokio::io::split(mtls(&pair).await);
            let flooding = spawn_local(async move {
                let mut bytes = PREFACE.to_vec();
                while writer.write_all(&bytes).await.is_ok() {
                    bytes = flood.repeat(100);
                    tokio::task::yield_now().await;
                }
            });
            let mut code = None;
            let mut head = [0; 9];
            while reader.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; length as usize];
                reader.read_exact(&mut payload).await.unwrap();
                // GOAWAY: the last stream, then the code.
                if head[3] == 7 {
                    code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            flooding.abort();
            assert_eq!(code, Some(h2::Reason::ENHANCE_YOUR_CALM.into()), "{what}");
        }
        // Others go on.
        let send = hbone(&pair).await;
        assert_eq!(status(&send, connect_request(&app.to_string())).await, 200);
    });
}

#[test]
fn a_client_without_a_certificate_gets_no_tunnel() {
    run(async {
        let pair = Pair::to(SocketAddr::from(([127, 0, 0, 1], 9)));
        let mut tcp = connect_to_port(pair.inbound).await;
        // The preface in the clear is no ClientHello.
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"\0\0"), "HTTP/2 was used: {rest:?}");
        assert!(
            pair.called
                .metric("anyam_listener_tls_errors_total{listener=\"inbound\"} 1")
        );
    });
}

/// For an app's own TLS, the header does not decide what is carried.
#[test]
fn only_names_of_the_mesh_choose_a_chain() {
    run(async {
        let (app, own) = (echo_server().await, echo_server().await);
        let mut pair = Pair::to(app);
        let mut listener = inbound_listener(pair.inbound, app.port(), &Setup::default());
        let chains = listener["filter_chains"].as_array_mut().unwrap();
        // As a permissive port has them: mTLS by its names, all other TLS passed through.
        let mut declared = chains[1].clone();
        declared["name"] = json!("declared");
        declared["filter_chain_match"]["destination_port"] = own.port().into();
        declared["filter_chain_match"]["application_protocols"] = json!(["anyam-http/1.1"]);
        let mut through = chains[1].clone();
        through["name"] = json!("through");
        through["filter_chain_match"] =
            json!({"destination_port": own.port(), "transport_protocol": "tls"});
        through.as_object_mut().unwrap().remove("transport_socket");
        chains.extend([declared, through]);
        pair.called.apply(&[], &[listener]);
        let send = hbone(&pair).await;
        for (alpn, answer) in [
            // Not declared, in one way or another: what the port is declared to be.
            (None, 200),
            (Some("foo"), 200),
            (Some("h2, http%2F1.1"), 200),
            (Some("anyam-http%2F1.1"), 200),
            (Some("foo, anyam-http%2F1.1"), 200),
            // Declared, and not what the port takes.
            (Some("anyam-tcp"), 404),
            (Some("anyam-h2, foo"), 404),
        ] {
            let mut request = connect_request(&own.to_string());
            if let Some(alpn) = alpn {
                request.headers_mut().insert("alpn", alpn.parse().unwrap());
            }
            assert_eq!(status(&send, request).await, answer, "{alpn:?}");
        }
    });
}
