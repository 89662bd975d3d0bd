//! HTTPS, gRPC and TCP probes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};
use xds_proto::grpc::health::v1::health_check_response::ServingStatus;
use xds_proto::grpc::health::v1::health_server::{Health, HealthServer};
use xds_proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

use super::sidecar::Sidecar;
use crate::ports::free_port;

/// Runs a server on a thread of its own; returns its port.
fn serve<F: Future<Output = ()>>(
    run: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
) -> u16 {
    let (sender, port) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            run(listener).await;
        });
    });
    port.recv().unwrap()
}

/// An HTTPS app with an untrusted certificate that accepts only the protocol `alpn`.
fn https(alpn: &'static [u8]) -> u16 {
    serve(move |listener| async move {
        let made = rcgen::generate_simple_self_signed(["not-this-host".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let service = service_fn(
                |request: hyper::Request<hyper::body::Incoming>| async move {
                    let mut response = hyper::Response::new(Empty::<Bytes>::new());
                    if request.uri().path() != "/healthz" {
                        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
                    }
                    Ok::<_, std::convert::Infallible>(response)
                },
            );
            let io = TokioIo::new(tls);
            // The sidecar closes the connection once it has its response.
            let _ = match alpn {
                b"h2" => {
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                }
                _ => http1::Builder::new().serve_connection(io, service).await,
            };
        }
    })
}

#[test]
fn https_is_not_verified() {
    for alpn in [b"http/1.1".as_slice(), b"h2"] {
        let port = https(alpn);
        for (path, expected) in [("/healthz", 200), ("/other", 404)] {
            let handler = json!({"port": port, "path": path, "scheme": "HTTPS"});
            let answer = Sidecar::probing(("httpGet", handler), 10).probe();
            assert_eq!(answer.status, expected, "{answer:?}");
        }
        let plain = json!({"port": port, "path": "/healthz"});
        let answer = Sidecar::probing(("httpGet", plain), 10).probe();
        assert_eq!(answer.status, 503, "{answer:?}");
    }
}

struct App;

#[tonic::async_trait]
impl Health for App {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match request.into_inner().service.as_str() {
            "" | "shop.Web" => ServingStatus::Serving,
            "shop.Broken" => ServingStatus::NotServing,
            _ => return Err(Status::not_found("no such service")),
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }
}

#[test]
fn grpc_serves_or_does_not() {
    let port = serve(|listener| async {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(HealthServer::new(App));
        server.serve_with_incoming(incoming).await.unwrap();
    });
    for (service, expected, said) in [
        ("", 200, "serving"),
        ("shop.Web", 200, "serving"),
        ("shop.Broken", 503, "NOT_SERVING"),
        ("shop.None", 503, "no such service"),
    ] {
        let handler = json!({"port": port, "service": service});
        let answer = Sidecar::probing(("grpc", handler), 10).probe();
        assert_eq!(answer.status, expected, "{service}: {answer:?}");
        assert!(answer.body.contains(said), "{service}: {answer:?}");
    }
    let answer = Sidecar::probing(("grpc", json!({"port": free_port()})), 10).probe();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("refused"), "{answer:?}");
}

#[test]
fn tcp_connects_or_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sidecar = Sidecar::probing(("tcpSocket", json!({"port": port})), 10);
    assert_eq!(sidecar.probe().status, 200);
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    drop(listener);
    // The result is kept for a moment.
    sidecar.until("the app is gone", || sidecar.probe().status == 503);
}

#[test]
fn invalid_probes_end_the_start_with_their_field() {
    let run = |probes: &str| {
        let state = tempfile::tempdir().unwrap();
        std::process::Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
            .args([
                "sidecar",
                "--workload",
                "web",
                "--address",
                "127.0.0.1",
                "--mode",
                "validate",
            ])
            .args(["--control-plane", "127.0.0.1:9", "--status-port", "15020"])
            .arg("--state-dir")
            .arg(state.path().join("identity"))
            .args(["--app-probes", probes])
            .output()
            .unwrap()
    };
    assert!(run("[]").status.success());
    for (probes, place) in [
        ("[", "--app-probes"),
        (r#"[{"name": "a/livez"}]"#, "probes[0]"),
        (
            r#"[{"name": "a/livez", "tcpSocket": {"port": 0}}]"#,
            "tcp_socket.port",
        ),
        (
            r#"[{"name": "a/livez", "udpSocket": {"port": 1}}]"#,
            "udpSocket",
        ),
        (
            r#"[{"name": "a/prestop", "httpGet": {"port": 1}}]"#,
            "probes[0].hook_token",
        ),
    ] {
        let output = run(probes);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(place),
            "{probes}: {said}"
        );
    }
}
