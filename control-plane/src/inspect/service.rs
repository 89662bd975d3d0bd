//! `anyam.inspect.v1.Inspect`: proxies dial in, so that no admin port leaves loopback.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use xds_proto::anyam::inspect::v1::inspect_server::Inspect;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{ControlMessage, Hello, ProxyMessage};
use xds_proto::envoy::config::core::v3::Node;

use super::agents::{Agents, Commands};
use crate::ads::outbound::outbound;
use crate::ads::streams::{StreamLimit, StreamPermit, Superseded};
use crate::ads::{Resources, node};
use crate::identity::Peer;

const HELLO: Duration = Duration::from_secs(10);
const COMMANDS: usize = 64;

/// The gRPC service.
#[derive(Clone)]
pub struct InspectService {
    pub agents: Arc<Agents>,
    pub resources: Arc<dyn Resources>,
    pub trust_domain: String,
    /// Streams that may be open.
    pub streams: Arc<StreamLimit>,
    /// True when the process stops.
    pub closing: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Inspect for InspectService {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let peer = node::authenticated(&request)?;
        let (permit, superseded) = self.streams.enter(&peer).ok_or_else(|| {
            Status::resource_exhausted("too many Inspect streams; raise --max-streams")
        })?;
        let (commands, outbound, end) = outbound(COMMANDS);
        let (service, inbound) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let place = (&permit, superseded);
            if let Err(status) = service.run(peer, inbound, commands.clone(), place).await {
                tracing::info!(reason = status.message(), "Inspect stream ended");
                end.with(status, &commands).await;
            }
            // The permit is held until nothing of the stream is left.
            drop(permit);
        });
        Ok(Response::new(Box::pin(outbound)))
    }
}

impl InspectService {
    async fn run(
        &self,
        peer: Peer,
        mut inbound: Streaming<ProxyMessage>,
        commands: Commands,
        (permit, mut superseded): (&StreamPermit, Superseded),
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO, inbound.message());
        let first = tokio::select! {
            first = first => first.map_err(|_| Status::deadline_exceeded("no Hello came"))??,
            why = permit.superseded(&mut superseded) => return Err(why),
        };
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message must be Hello"));
        };
        let Hello {
            node_id, version, ..
        } = hello;
        let claimed = Node {
            id: node_id,
            ..Default::default()
        };
        let view = self.resources.view();
        let node = node::authorise(&claimed, &peer, &*view, &self.trust_domain)?;
        let entry = self.agents.connect(node, &version, commands.clone());
        let mut closing = self.closing.clone();
        loop {
            let message = tokio::select! {
                message = inbound.message() => message?,
                _ = closing.wait_for(|closing| *closing) => {
                    return Err(Status::unavailable("the control plane is stopping"));
                }
                () = commands.closed() => return Ok(()),
                why = permit.superseded(&mut superseded) => return Err(why),
            };
            let Some(message) = message else {
                return Ok(());
            };
            match message.message {
                Some(Message::Report(report)) => entry.report(report),
                Some(Message::TapEvent(event)) => entry.tap_event(event),
                Some(Message::DumpChunk(chunk)) => entry.dump_chunk(chunk),
                Some(Message::Explanation(explanation)) => entry.explanation(explanation),
                Some(Message::Failure(failure)) => entry.failure(&failure),
                // A message of a newer version, or a second Hello.
                Some(Message::Hello(_)) | None => {}
            }
        }
    }
}
