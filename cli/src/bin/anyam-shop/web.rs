//! The front: calls catalogue, cart and store for every visit.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

use crate::Outcome;
use crate::catalogue::v1::GetRequest;
use crate::catalogue::v1::catalogue_client::CatalogueClient;

#[derive(Clone)]
struct Front {
    catalogue: CatalogueClient<Channel>,
    http: Client<HttpConnector, Empty<Bytes>>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Front {
    async fn visit(&self, id: u32) -> Result<String, Failure> {
        let mut catalogue = self.catalogue.clone();
        let item = catalogue
            .get(GetRequest { id })
            .await
            .map_err(|status| format!("catalogue: {} {}", status.code(), status.message()))?
            .into_inner();
        let cart = self
            .cart()
            .await
            .map_err(|error| format!("cart: {error}"))?;
        let visits = crate::store::increment("store:6380")
            .await
            .map_err(|error| format!("store: {error}"))?;
        Ok(serde_json::json!({
            "item": item.name, "replica": item.replica, "cart": cart, "visits": visits,
        })
        .to_string())
    }

    async fn cart(&self) -> Result<String, Failure> {
        let response = self.http.get("http://cart:8080/".parse()?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("{status}: {body}").into())
        }
    }
}

async fn answer(
    front: Front,
    request: hyper::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request
        .uri()
        .path()
        .trim_start_matches('/')
        .parse()
        .unwrap_or(0);
    let (status, body) = match front.visit(id).await {
        Ok(body) => (StatusCode::OK, body),
        Err(failure) => (StatusCode::BAD_GATEWAY, failure.to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

pub async fn run(listen: SocketAddr) -> Outcome {
    let front = Front {
        catalogue: CatalogueClient::new(
            Endpoint::from_static("http://catalogue:9090").connect_lazy(),
        ),
        http: Client::builder(TokioExecutor::new()).build_http(),
    };
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let front = front.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(front.clone(), request));
            // A client that disconnects needs no handling.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
