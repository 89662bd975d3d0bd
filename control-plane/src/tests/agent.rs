//! A proxy's Inspect stream, spoken by a test.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use xds_proto::anyam::inspect::v1::control_message::Message as Command;
use xds_proto::anyam::inspect::v1::inspect_client::InspectClient;
use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{ControlMessage, Hello, ProxyMessage};

use super::bench::{Bench, DOMAIN};

pub(crate) struct Agent {
    pub(crate) send: mpsc::Sender<ProxyMessage>,
    pub(crate) receive: Streaming<ControlMessage>,
}

impl Agent {
    /// Over the plaintext port.
    pub(crate) async fn open(bench: &Bench, workload: &str, address: &str) -> Result<Self, Status> {
        Agent::over(bench.plain().await, workload, address).await
    }

    pub(crate) async fn over(
        channel: Channel,
        workload: &str,
        address: &str,
    ) -> Result<Self, Status> {
        Agent::of(channel, ("shop", workload), address).await
    }

    pub(crate) async fn of(
        channel: Channel,
        (namespace, workload): (&str, &str),
        address: &str,
    ) -> Result<Self, Status> {
        let (send, messages) = mpsc::channel(64);
        let hello = ProxyMessage {
            message: Some(Message::Hello(Hello {
                node_id: format!("sidecar~{address}~{workload}.{namespace}~{DOMAIN}"),
                version: "0.1.0".into(),
                started: None,
            })),
        };
        send.send(hello).await.unwrap();
        let mut client = InspectClient::new(channel);
        let receive = client
            .attach(ReceiverStream::new(messages))
            .await?
            .into_inner();
        Ok(Agent { send, receive })
    }

    pub(crate) async fn say(&self, message: Message) {
        let message = ProxyMessage {
            message: Some(message),
        };
        self.send.send(message).await.unwrap();
    }

    pub(crate) async fn asked(&mut self) -> Command {
        let next = tokio::time::timeout(Duration::from_secs(10), self.receive.message());
        next.await.unwrap().unwrap().unwrap().message.unwrap()
    }
}
