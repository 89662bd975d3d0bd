//! A control plane scripted by a test, over delta ADS.

use std::net::SocketAddr;
use std::pin::Pin;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request as Call, Response as Reply, Status, Streaming};
use xds_proto::envoy::service::discovery::v3 as pb;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds_proto::google::protobuf::Any;
use xds_proto::type_url;

type Streamed<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

struct Service(mpsc::UnboundedSender<Stream>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Streamed<pb::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Streamed<pb::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Call<Streaming<pb::DiscoveryRequest>>,
    ) -> Result<Reply<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        call: Call<Streaming<pb::DeltaDiscoveryRequest>>,
    ) -> Result<Reply<Self::DeltaAggregatedResourcesStream>, Status> {
        let (replies, answers) = mpsc::unbounded_channel();
        let _ = self.0.send(Stream {
            requests: call.into_inner(),
            replies,
            sent: 0,
        });
        let answers = futures_util::stream::unfold(answers, |mut answers| async move {
            answers.recv().await.map(|answer| (answer, answers))
        });
        Ok(Reply::new(Box::pin(answers)))
    }
}

/// The control plane. Runs as long as the test's runtime.
pub struct ControlPlane {
    pub address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Stream>,
}

/// A proxy's stream.
pub struct Stream {
    requests: Streaming<pb::DeltaDiscoveryRequest>,
    replies: mpsc::UnboundedSender<Result<pb::DeltaDiscoveryResponse, Status>>,
    sent: u32,
}

impl ControlPlane {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, streams) = mpsc::unbounded_channel();
        let service = AggregatedDiscoveryServiceServer::new(Service(accepted));
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Self { address, streams }
    }

    /// The next stream that a proxy opens.
    pub async fn stream(&mut self) -> Stream {
        self.streams.recv().await.unwrap()
    }

    /// A bootstrap that takes listeners and clusters from here, with resources of its own beside.
    pub fn bootstrap(&self, listeners: &[Value], clusters: &[Value]) -> Value {
        let mut bootstrap = self.without_discovery(listeners, clusters);
        let ads = json!({"resource_api_version": "V3", "ads": {}});
        bootstrap["dynamic_resources"]["lds_config"] = ads.clone();
        bootstrap["dynamic_resources"]["cds_config"] = ads;
        bootstrap
    }

    /// A bootstrap that brings its own listeners and clusters, which refer to what comes from here.
    pub fn without_discovery(&self, listeners: &[Value], clusters: &[Value]) -> Value {
        let mut control = static_cluster("xds", self.address);
        control["http2_protocol_options"] = json!({});
        let clusters: Vec<Value> = clusters.iter().cloned().chain([control]).collect();
        json!({
            "node": {"id": "test", "cluster": "test"},
            "static_resources": {"listeners": listeners, "clusters": clusters},
            "dynamic_resources": {"ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            }},
        })
    }
}

impl Stream {
    async fn next(&mut self) -> pb::DeltaDiscoveryRequest {
        self.requests.message().await.unwrap().unwrap()
    }

    /// Reads until the proxy subscribes to `name` of a type; `*` stands for all.
    pub async fn asked_for(&mut self, type_url: &str, name: &str) {
        loop {
            let request = self.next().await;
            let names = &request.resource_names_subscribe;
            let all = names.is_empty() && request.response_nonce.is_empty();
            let found = names.iter().any(|n| n == name) || name == "*" && all;
            if request.type_url == type_url && found {
                return;
            }
        }
    }

    /// Sends resources as they are; the nonce.
    pub fn send_raw(&mut self, type_url: &str, resources: Vec<pb::Resource>) -> String {
        self.sent += 1;
        let nonce = format!("n{}", self.sent);
        let response = pb::DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.clone(),
            resources,
            ..Default::default()
        };
        // A stream that is over takes no more; the test sees that where it waits.
        let _ = self.replies.send(Ok(response));
        nonce
    }

    /// Sends one resource and waits until it is acknowledged.
    pub async fn give(&mut self, resource: pb::Resource) {
        let error = self.send(resource).await;
        assert_eq!(error, None);
    }

    /// Sends one resource; the error of the NACK, if it is one.
    pub async fn send(&mut self, resource: pb::Resource) -> Option<String> {
        let type_url = resource.resource.as_ref().unwrap().type_url.clone();
        let nonce = self.send_raw(&type_url, vec![resource]);
        self.answered(&nonce).await
    }

    /// Removes one resource and waits until that is acknowledged.
    pub async fn remove(&mut self, type_url: &str, name: &str) {
        self.sent += 1;
        let nonce = format!("n{}", self.sent);
        let response = pb::DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.clone(),
            removed_resources: vec![name.into()],
            ..Default::default()
        };
        self.replies.send(Ok(response)).unwrap();
        assert_eq!(self.answered(&nonce).await, None);
    }

    /// Waits for the answer to a response: the error of a NACK, `None` for an ACK.
    pub async fn answered(&mut self, nonce: &str) -> Option<String> {
        loop {
            let request = self.next().await;
            if request.response_nonce == nonce {
                return request.error_detail.map(|status| status.message);
            }
        }
    }

    /// Ends the stream.
    pub fn cut(self) {
        // The proxy may have gone first.
        let _ = self.replies.send(Err(Status::unavailable("cut")));
    }
}

fn resource(name: &str, version: &str, type_url: &str, value: Vec<u8>) -> pb::Resource {
    pb::Resource {
        name: name.into(),
        version: version.into(),
        resource: Some(Any {
            type_url: type_url.into(),
            value,
        }),
        ..Default::default()
    }
}

fn encoded<M: prost::Message + prost::Name + Default>(value: &Value) -> Vec<u8> {
    let message: M = xds_proto::json::decode_json(value).unwrap();
    message.encode_to_vec()
}

/// A resource of bytes that may be anything.
pub fn junk(name: &str, type_url: &str, value: &[u8]) -> pb::Resource {
    resource(name, "junk", type_url, value.to_vec())
}

pub fn listener(version: &str, value: &Value) -> pb::Resource {
    use xds_proto::envoy::config::listener::v3::Listener;
    let name = value["name"].as_str().unwrap();
    resource(
        name,
        version,
        type_url::LISTENER,
        encoded::<Listener>(value),
    )
}

pub fn cluster(version: &str, value: &Value) -> pb::Resource {
    use xds_proto::envoy::config::cluster::v3::Cluster;
    let name = value["name"].as_str().unwrap();
    resource(name, version, type_url::CLUSTER, encoded::<Cluster>(value))
}

/// Routes that answer everything with `status`.
pub fn routes(name: &str, version: &str, status: u16) -> pb::Resource {
    use xds_proto::envoy::config::route::v3::RouteConfiguration;
    let value = json!({"name": name, "virtual_hosts": [{
        "name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": status}}],
    }]});
    let body = encoded::<RouteConfiguration>(&value);
    resource(name, version, type_url::ROUTE, body)
}

pub fn endpoints(name: &str, version: &str, address: SocketAddr) -> pb::Resource {
    use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    let body = encoded::<ClusterLoadAssignment>(&assignment(name, address));
    resource(name, version, type_url::ENDPOINT, body)
}

/// The same, of any form; `of`: the `endpoints` of a ClusterLoadAssignment.
pub fn localities(name: &str, version: &str, of: &Value) -> pb::Resource {
    use xds_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
    let body = encoded::<ClusterLoadAssignment>(&json!({"cluster_name": name, "endpoints": of}));
    resource(name, version, type_url::ENDPOINT, body)
}

/// `lb_endpoints` at these addresses.
pub fn at(addresses: &[SocketAddr]) -> Value {
    let one = |address: &SocketAddr| {
        let (ip, port) = (address.ip().to_string(), address.port());
        json!({"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}})
    };
    addresses.iter().map(one).collect()
}

fn assignment(name: &str, address: SocketAddr) -> Value {
    let address = json!({"socket_address": {
        "address": address.ip().to_string(), "port_value": address.port()}});
    json!({
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    })
}

pub fn static_cluster(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": assignment(name, address),
    })
}

/// A cluster whose endpoints come over ADS.
pub fn eds_cluster(name: &str, timeout: &str) -> Value {
    let source = json!({
        "resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": timeout});
    json!({
        "name": name, "type": "EDS", "connect_timeout": "2s",
        "eds_cluster_config": {"eds_config": source},
    })
}

/// An HTTP listener on loopback; `routes`: `rds` or `route_config` of its connection manager.
pub fn http_listener(name: &str, port: u16, routes: (&str, Value)) -> Value {
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = "type.googleapis.com/envoy.extensions.filters.network\
                   .http_connection_manager.v3.HttpConnectionManager";
    let mut config = json!({
        "@type": manager,
        "stat_prefix": "http",
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    });
    config[routes.0] = routes.1;
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": config}]}],
    })
}

/// Routes by name, over ADS.
pub fn rds(name: &str, timeout: &str) -> (&'static str, Value) {
    let source = json!({
        "resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": timeout});
    (
        "rds",
        json!({"route_config_name": name, "config_source": source}),
    )
}

/// Everything goes to `cluster`.
pub fn all_to(cluster: &str) -> (&'static str, Value) {
    let hosts = json!([{
        "name": "all", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]);
    (
        "route_config",
        json!({"name": "inline", "virtual_hosts": hosts}),
    )
}
