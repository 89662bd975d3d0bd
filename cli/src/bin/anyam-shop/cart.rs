//! The cart: one HTTP/1 endpoint that returns its version.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Outcome;

pub async fn run(listen: SocketAddr, version: String) -> Outcome {
    let listener = TcpListener::bind(listen).await?;
    let body = Bytes::from(version);
    loop {
        let (stream, _) = listener.accept().await?;
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_| {
                let answer = hyper::Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that disconnects needs no handling.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
