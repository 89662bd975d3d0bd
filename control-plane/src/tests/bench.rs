//! A control plane on real sockets, and clients to it, for tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use xds_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use xds_proto::google::rpc::Status as RpcStatus;
use xds_proto::type_url::CLUSTER;

pub(crate) use super::agent::Agent;
pub(crate) use super::credential::{Client, certificate, certificate_for, csr};
use crate::ads::Resources;
use crate::ads::testing::Memory;
use crate::api::declared::{Declared, DeclaredByTest, DeclaredWorkload};
use crate::ca::authority::Lifetimes;
use crate::ca::private;
use crate::ca::service::{FirstCredential, unix_now};
use crate::ca::token::Tokens;
use crate::ca::used::Used;
use crate::metrics::Metrics;
use crate::server::{Issuing, Options, Running, start, start_with};

pub(crate) const DOMAIN: &str = "mesh.local";

/// A Workload whose proxy never connects.
pub(crate) fn absent() -> DeclaredByTest {
    DeclaredByTest {
        workloads: vec![DeclaredWorkload {
            namespace: "shop".into(),
            name: "absent-0".into(),
            service_account: "absent".into(),
            addresses: Vec::new(),
            services: Vec::new(),
            sidecar: true,
            file: "absent.yaml".into(),
        }],
        ..DeclaredByTest::default()
    }
}

pub(crate) struct Bench {
    pub(crate) state: tempfile::TempDir,
    pub(crate) mesh: Arc<Memory>,
    pub(crate) running: Running,
}

pub(crate) fn options(state: &std::path::Path) -> Options {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Options {
        state_dir: state.join("state"),
        trust_domain: DOMAIN.into(),
        cluster_domain: "cluster.local".into(),
        xds_listen: any,
        api_listen: any,
        metrics_listen: Some(any),
        insecure_ads_listen: Some(any),
        names: Vec::new(),
        api_hosts: Vec::new(),
        lifetimes: Lifetimes::default(),
        max_streams: 5000,
        max_connections_per_address: 5000,
        max_connection_age: Duration::from_secs(3600),
    }
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let mesh = Memory::new()
            .workload("shop", "web-0", "web")
            .workload("shop", "web-1", "web")
            .workload("shop", "cart-0", "cart");
        Bench::with(mesh, absent()).await
    }

    pub(crate) async fn with(mesh: Memory, declared: impl Declared) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mesh = Arc::new(mesh);
        let running = start(options(state.path()), mesh.clone(), Arc::new(declared)).await;
        Bench {
            state,
            mesh,
            running: running.unwrap(),
        }
    }

    /// Another control plane of the same mesh: with its authority, and a folder of its own.
    pub(crate) async fn replica(&self) -> Self {
        let state = tempfile::tempdir().unwrap();
        let authority = Arc::clone(&self.running.authority);
        let folder = state.path().join("tokens");
        private::directory(&folder).unwrap();
        let tokens = Tokens::open(&folder, DOMAIN, &authority.root_hash()).unwrap();
        let used = Used::open(&folder, unix_now(), 8).unwrap();
        let issuing = Issuing {
            authority,
            first: FirstCredential::join_token(tokens, used),
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let shown: (Arc<dyn Resources>, Arc<dyn Declared>) =
            (self.mesh.clone(), Arc::new(absent()));
        let running = start_with(options(state.path()), Some(issuing), metrics, shown).await;
        Bench {
            state,
            mesh: Arc::clone(&self.mesh),
            running: running.unwrap(),
        }
    }

    pub(crate) async fn restart(self) -> Self {
        let Bench {
            state,
            mesh,
            running,
        } = self;
        running.stop().await;
        let running = start(options(state.path()), mesh.clone(), Arc::new(absent()))
            .await
            .unwrap();
        Bench {
            state,
            mesh,
            running,
        }
    }

    pub(crate) fn token(&self, namespace: &str, workload: &str, account: &str) -> String {
        let hash = self.running.authority.root_hash();
        let tokens = Tokens::open(&self.state.path().join("state"), DOMAIN, &hash).unwrap();
        let lifetime = Duration::from_secs(60);
        tokens
            .mint((namespace, workload), account, unix_now(), lifetime)
            .unwrap()
    }

    pub(crate) fn connector(&self, client: Option<&Client>) -> tokio_rustls::TlsConnector {
        self.connector_for(client, b"h2")
    }

    pub(crate) fn connector_for(
        &self,
        client: Option<&Client>,
        protocol: &[u8],
    ) -> tokio_rustls::TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.running.authority.root().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => builder
                .with_client_auth_cert(client.chain.clone(), client.key())
                .unwrap(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        tokio_rustls::TlsConnector::from(Arc::new(config))
    }

    pub(crate) async fn channel(&self, client: Option<&Client>) -> Channel {
        let tls = self.connector(client);
        let address = self.running.xds;
        let connect = tower::service_fn(move |_| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("anyam-control").unwrap();
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("http://anyam-control");
        endpoint.connect_with_connector(connect).await.unwrap()
    }

    pub(crate) async fn plain(&self) -> Channel {
        let address = self.running.insecure_ads.unwrap();
        let connect = tower::service_fn(move |_| async move {
            Ok::<_, std::io::Error>(TokioIo::new(TcpStream::connect(address).await?))
        });
        let endpoint = Endpoint::from_static("http://anyam-control");
        endpoint.connect_with_connector(connect).await.unwrap()
    }

    /// A workload's first certificate, by token.
    pub(crate) async fn join(&self, workload: &str, account: &str) -> Client {
        let token = self.token("shop", workload, account);
        let (key, csr) = csr(&format!("spiffe://{DOMAIN}/ns/shop/sa/{account}"));
        let channel = self.channel(None).await;
        let chain = certificate(channel, &csr, Some(&token)).await.unwrap();
        Client::new(key, &chain)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let token = std::fs::read_to_string(&self.running.token_file).unwrap();
        let bearer = format!("Bearer {}", token.trim());
        let (status, body) = self
            .http("GET", path, &[("authorization", &bearer)], "")
            .await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        let token = std::fs::read_to_string(&self.running.token_file).unwrap();
        let bearer = format!("Bearer {}", token.trim());
        let (status, body) = self
            .http("POST", path, &[("authorization", &bearer)], body)
            .await;
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, Bytes) {
        let response = self.open(method, path, headers, body).await;
        let status = response.status();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response<hyper::body::Incoming> {
        self.open_at(self.running.api, (method, path), headers, body)
            .await
    }

    pub(crate) async fn open_at(
        &self,
        port: SocketAddr,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response<hyper::body::Incoming> {
        let stream = TcpStream::connect(port).await.unwrap();
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", port.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        send.send_request(request.body(body).unwrap())
            .await
            .unwrap()
    }
}

/// Waits for what must come: looks again until it is so.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come about"
        );
        tokio::task::yield_now().await;
    }
}

pub(crate) struct Delta {
    pub(crate) send: mpsc::Sender<DeltaDiscoveryRequest>,
    pub(crate) receive: Streaming<DeltaDiscoveryResponse>,
}

pub(crate) fn node(workload: &str) -> Node {
    Node {
        id: format!("sidecar~10.0.0.1~{workload}.shop~{DOMAIN}"),
        user_agent_name: "test".into(),
        ..Default::default()
    }
}

impl Delta {
    pub(crate) async fn open(channel: Channel, node: Node) -> Result<Self, Status> {
        let (send, requests) = mpsc::channel(8);
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: CLUSTER.into(),
            ..Default::default()
        };
        send.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let stream = client
            .delta_aggregated_resources(ReceiverStream::new(requests))
            .await?;
        Ok(Delta {
            send,
            receive: stream.into_inner(),
        })
    }

    pub(crate) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.receive.message());
        next.await
            .expect("a response in time")?
            .ok_or_else(|| Status::ok("ended"))
    }

    pub(crate) async fn answer(&self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| RpcStatus {
                message: message.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.send.send(request).await.unwrap();
    }
}

pub(crate) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|one| &*one.name).collect()
}
