//! The control plane's end of a tap that shows everything, headers too.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::{Stream, StreamExt};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::inspect_server::{Inspect, InspectServer};
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{ControlMessage, ProxyMessage, StartTap};
use xds_proto::google::protobuf::Duration;

/// Requests shown by now, and those that were beyond the rate.
#[derive(Clone, Default)]
pub struct Tap {
    pub events: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Inspect for Tap {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ControlMessage, Status>> + Send>>;

    async fn attach(
        &self,
        call: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let events = self.events.clone();
        let mut messages = call.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(ProxyMessage { message })) = messages.message().await {
                if let Some(Message::TapEvent(event)) = message {
                    events.fetch_add(1 + event.dropped, Relaxed);
                }
            }
        });
        let all = ControlMessage {
            message: Some(Command::StartTap(StartTap {
                id: "all".into(),
                filter: None,
                max_per_second: u32::MAX,
                lasting: Some(Duration {
                    seconds: 3600,
                    nanos: 0,
                }),
                headers: true,
            })),
        };
        let commands = futures_util::stream::once(async move { Ok(all) });
        let commands = commands.chain(futures_util::stream::pending());
        Ok(Response::new(Box::pin(commands)))
    }
}

impl Tap {
    /// Serves a tap of its own.
    pub async fn start() -> (Self, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tap = Self::default();
        let service = InspectServer::new(tap.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (tap, address)
    }
}
