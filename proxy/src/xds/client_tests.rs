//! The client against a small ADS server over real sockets.

#[path = "client/publish_tests.rs"]
mod publish;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;
use tonic::{Request as Call, Response as Reply, Streaming};
use xds_proto::envoy::service::discovery::v3 as pb;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use xds_proto::google::protobuf::Any;

use super::*;
use crate::config::demand::{OnDemandClient, OnDemandResource, OnDemandResponse};
use crate::xds::cache::{Mode, Validated};
use crate::xds::resource_type::ResourceType;

/// Accepts any body that is text, and publishes into a channel. Bodies that begin with `panic in`
/// cause a panic at the place that they name; the removal of `stays once` panics the first time.
struct Recorder {
    published: mpsc::UnboundedSender<Vec<Change<String>>>,
    removals: u32,
}

impl Validate for Recorder {
    type Value = String;

    fn validate(
        &mut self,
        _: ResourceType,
        name: &str,
        body: &Bytes,
    ) -> Result<Validated<String>, String> {
        let text = std::str::from_utf8(body).map_err(|_| "field: not text".to_owned())?;
        assert!(!text.starts_with("panic in validate"), "on purpose");
        Ok(Validated {
            name: name.to_owned(),
            value: text.to_owned(),
            refs: Vec::new(),
            initial_fetch_timeout: None,
        })
    }
}

impl Apply for Recorder {
    fn initialised(&mut self) -> bool {
        false
    }

    async fn listening(&self) {}

    async fn warm(&self, _: &[Change<String>], _: bool) {}

    fn awaits_checks(&self, _: &[Change<String>]) -> bool {
        false
    }

    async fn checked(&self) {}

    fn publish(&mut self, changes: Vec<Change<String>>) -> bool {
        for change in &changes {
            let bad =
                matches!(change, Change::Upsert(_, body) if body.starts_with("panic in publish"));
            assert!(!bad, "on purpose");
            if matches!(change, Change::Remove(key) if key.name == "stays once") {
                self.removals += 1;
                assert!(self.removals > 1, "on purpose");
            }
        }
        let _ = self.published.send(changes);
        true
    }

    fn key(&self, wanted: &OnDemandRequest) -> Key {
        match &wanted.what {
            OnDemandResource::Name(name) => Key::new(ResourceType::Listener, name.as_str()),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, wanted: OnDemandRequest, outcome: DemandResult) {
        let key = self.key(&wanted);
        assert_ne!(&*key.name, "panic in answer", "on purpose");
        let _ = wanted.answer.send(match outcome {
            DemandResult::Found => OnDemandResponse::Found,
            DemandResult::Absent => OnDemandResponse::Absent,
            DemandResult::Unavailable => OnDemandResponse::Unavailable,
        });
    }

    fn idle(&mut self, _: &Cache<String>, _: Now) -> Vec<Key> {
        Vec::new()
    }
}

type Streamed<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;
type DeltaReplies = mpsc::UnboundedSender<Result<pb::DeltaDiscoveryResponse, Status>>;

/// One accepted delta stream: what came, and where answers go.
struct Accepted {
    requests: Streaming<pb::DeltaDiscoveryRequest>,
    replies: DeltaReplies,
}

struct Server(mpsc::UnboundedSender<Accepted>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
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
        let requests = call.into_inner();
        let _ = self.0.send(Accepted { requests, replies });
        let answers = futures_util::stream::unfold(answers, |mut answers| async move {
            answers.recv().await.map(|answer| (answer, answers))
        });
        Ok(Reply::new(Box::pin(answers)))
    }
}

struct Rig {
    streams: mpsc::UnboundedReceiver<Accepted>,
    changes: mpsc::UnboundedReceiver<Vec<Change<String>>>,
    demand: OnDemandClient,
    handle: Handle,
}

async fn start() -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, streams) = mpsc::unbounded_channel();
    let service = AggregatedDiscoveryServiceServer::new(Server(accepted));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let config = Config {
        listeners: Mode::Named,
        clusters: Mode::Named,
        roots: vec![Key::new(ResourceType::Listener, "inbound")],
        ..Config::default()
    };
    let (recorded, changes) = mpsc::unbounded_channel();
    let (demand, wants) = OnDemandClient::new(8, Duration::from_secs(20));
    let node = Node {
        id: "node-1".into(),
        ..Node::default()
    };
    let target = ManagementServer::plain("ads", "127.0.0.1", address.port());
    let recorder = Recorder {
        published: recorded,
        removals: 0,
    };
    let (mut client, handle) = Client::new(config, recorder, target, node, Some(wants));
    tokio::spawn(async move {
        while AssertUnwindSafe(client.run()).catch_unwind().await.is_err() {
            client.restart();
        }
    });
    Rig {
        streams,
        changes,
        demand,
        handle,
    }
}

impl Accepted {
    async fn next(&mut self) -> pb::DeltaDiscoveryRequest {
        self.requests.message().await.unwrap().unwrap()
    }

    fn send(&self, nonce: &str, name: &str, body: &[u8]) {
        let resource = pb::Resource {
            name: name.into(),
            version: "1".into(),
            resource: Some(Any {
                type_url: ResourceType::Listener.type_url().into(),
                value: body.to_vec(),
            }),
            ..Default::default()
        };
        self.reply(pb::DeltaDiscoveryResponse {
            type_url: ResourceType::Listener.type_url().into(),
            nonce: nonce.into(),
            resources: vec![resource],
            ..Default::default()
        });
    }

    fn reply(&self, response: pb::DeltaDiscoveryResponse) {
        self.replies.send(Ok(response)).unwrap();
    }
}

fn upsert(name: &str, body: &str) -> Vec<Change<String>> {
    vec![Change::Upsert(
        Key::new(ResourceType::Listener, name),
        body.to_owned(),
    )]
}

#[tokio::test]
async fn from_the_first_request_over_a_nack_to_a_reconnect() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    let first = stream.next().await;
    assert_eq!(first.node.unwrap().id, "node-1");
    assert_eq!(first.resource_names_subscribe, ["inbound"]);

    stream.send("n1", "inbound", b"good");
    let ack = stream.next().await;
    assert_eq!(
        (ack.response_nonce.as_str(), ack.error_detail),
        ("n1", None)
    );
    assert!(ack.node.is_none());
    assert_eq!(rig.changes.recv().await.unwrap(), upsert("inbound", "good"));

    stream.send("n2", "inbound", &[0xff]);
    let nack = stream.next().await;
    assert_eq!(nack.response_nonce, "n2");
    assert!(
        nack.error_detail
            .unwrap()
            .message
            .contains("field: not text")
    );
    let rejected = rig
        .handle
        .watch()
        .wait_for(|s| s.rejected.is_some())
        .await
        .is_ok();
    assert!(rejected);

    // The server ends the stream; the client reconnects and sends the versions it holds.
    stream
        .replies
        .send(Err(Status::unavailable("bye")))
        .unwrap();
    let mut again = rig.streams.recv().await.unwrap();
    let first = again.next().await;
    assert_eq!(first.initial_resource_versions["inbound"], "1");
    assert!(first.node.is_some());
    let dump = rig.handle.dump().await;
    assert_eq!(
        dump[0].active.as_ref().unwrap().1,
        Bytes::from_static(b"good")
    );
}

#[tokio::test]
async fn wants_are_asked_for_and_answered_after_publishing() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    let demand = rig.demand.clone();
    let asking = tokio::spawn(async move { demand.ask(OnDemandResource::Name("x".into())).await });
    assert_eq!(stream.next().await.resource_names_subscribe, ["x"]);
    stream.send("n1", "x", b"body");
    assert_eq!(asking.await.unwrap(), OnDemandResponse::Found);
    assert_eq!(rig.changes.try_recv().unwrap(), upsert("x", "body"));

    let demand = rig.demand.clone();
    let asking = tokio::spawn(async move { demand.ask(OnDemandResource::Name("y".into())).await });
    while stream.next().await.resource_names_subscribe != ["y"] {}
    stream.reply(pb::DeltaDiscoveryResponse {
        type_url: ResourceType::Listener.type_url().into(),
        nonce: "n2".into(),
        removed_resources: vec!["y".into()],
        ..Default::default()
    });
    assert_eq!(asking.await.unwrap(), OnDemandResponse::Absent);
}

#[tokio::test]
async fn a_message_beyond_all_bounds_ends_the_stream_and_changes_nothing() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    stream.send("n1", "inbound", b"good");
    assert_eq!(rig.changes.recv().await.unwrap(), upsert("inbound", "good"));
    stream.send("n2", "inbound", &vec![b'x'; MAX_MESSAGE + 1]);
    let mut again = rig.streams.recv().await.unwrap();
    assert_eq!(again.next().await.initial_resource_versions["inbound"], "1");
    assert!(rig.changes.try_recv().is_err());
}

#[tokio::test]
async fn a_panic_in_the_compiler_refuses_the_resource() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    stream.send("n1", "inbound", b"good");
    stream.next().await;
    assert_eq!(rig.changes.recv().await.unwrap(), upsert("inbound", "good"));
    stream.send("n2", "inbound", b"panic in validate");
    let nack = stream.next().await;
    let why = nack.error_detail.unwrap().message;
    assert!(why.contains("inbound") && why.contains("panicked"), "{why}");
    stream.send("n3", "inbound", b"better");
    assert_eq!(stream.next().await.error_detail, None);
    assert_eq!(
        rig.changes.recv().await.unwrap(),
        upsert("inbound", "better")
    );
}

#[tokio::test]
async fn after_a_panic_elsewhere_a_new_stream_lists_what_is_held() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    stream.send("n1", "inbound", b"good");
    stream.next().await;
    let demand = rig.demand.clone();
    let asking = tokio::spawn(async move {
        demand
            .ask(OnDemandResource::Name("panic in answer".into()))
            .await
    });
    stream.next().await;
    stream.send("n2", "panic in answer", b"body");
    let mut again = rig.streams.recv().await.unwrap();
    assert_eq!(again.next().await.initial_resource_versions["inbound"], "1");
    // The pending request is answered `Unavailable`.
    assert_eq!(asking.await.unwrap(), OnDemandResponse::Unavailable);
    again.send("n3", "inbound", b"better");
    assert_eq!(rig.changes.recv().await.unwrap(), upsert("inbound", "good"));
    while rig.changes.recv().await.unwrap() != upsert("inbound", "better") {}
}
