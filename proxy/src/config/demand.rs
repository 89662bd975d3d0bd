//! On-demand discovery: the data path requests a resource that is not in the snapshot.
//!
//! The data path does not depend on xDS: it sends an [`OnDemandRequest`] and waits for the snapshot
//! that holds the resource, or for [`OnDemandResponse::Absent`]. The xDS client receives the
//! requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::name::NameRecords;
use crate::dispatcher::timer::Timers;

/// The resource, and the channel for the response. The answer comes after the snapshot that holds
/// the resource was published.
#[derive(Debug)]
pub struct OnDemandRequest {
    pub what: OnDemandResource,
    pub answer: oneshot::Sender<OnDemandResponse>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OnDemandResource {
    /// `outbound/<address>:<port>`.
    Listener(SocketAddr),
    Workload(IpAddr),
    /// A host name, lower case, fully qualified, no trailing dot.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnDemandResponse {
    /// It is in the current snapshot.
    Found,
    /// A name of the mesh has these records (only for [`OnDemandResource::Name`]).
    Name(Arc<NameRecords>),
    /// The control plane has no such resource.
    Absent,
    /// The control plane did not answer in time or is not connected.
    Unavailable,
}

/// The data path's handle. Cheap to clone; bounded.
#[derive(Clone, Debug)]
pub struct OnDemandClient {
    sender: mpsc::Sender<OnDemandRequest>,
    wait: Duration,
}

impl OnDemandClient {
    /// `wait`: the longest a connection waits for an answer.
    pub fn new(capacity: usize, wait: Duration) -> (Self, mpsc::Receiver<OnDemandRequest>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, wait }, receiver)
    }

    /// Sends a request and waits for the response. A full queue, a closed client and a time-out all
    /// give [`OnDemandResponse::Unavailable`]. For the control thread; workers have
    /// [`OnDemandClient::ask_by`].
    pub async fn ask(&self, what: OnDemandResource) -> OnDemandResponse {
        let answer = tokio::time::timeout(self.wait, self.answer(what)).await;
        answer.unwrap_or(OnDemandResponse::Unavailable)
    }

    /// As [`OnDemandClient::ask`], by a worker's clock.
    pub async fn ask_by(&self, timers: &Timers, what: OnDemandResource) -> OnDemandResponse {
        let answer = timers.timeout(self.wait, self.answer(what)).await;
        answer.unwrap_or(OnDemandResponse::Unavailable)
    }

    async fn answer(&self, what: OnDemandResource) -> OnDemandResponse {
        let (answer, answered) = oneshot::channel();
        let wanted = OnDemandRequest { what, answer };
        match self.sender.send(wanted).await {
            Ok(()) => answered.await.unwrap_or(OnDemandResponse::Unavailable),
            Err(_) => OnDemandResponse::Unavailable,
        }
    }
}
