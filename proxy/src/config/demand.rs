//! How the data path asks for a resource it is the first to need.
//!
//! The data path knows nothing of xDS: it sends a [`Wanted`] and waits for the snapshot that has
//! it, or for the word that there is none. The xDS client is on the other end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::timer::Timers;

/// What is wanted, and where the answer goes. The answer comes after the snapshot that holds the
/// resource was published.
#[derive(Debug)]
pub struct Wanted {
    pub what: Resource,
    pub answer: oneshot::Sender<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `outbound/<address>:<port>`.
    Listener(SocketAddr),
    Workload(IpAddr),
    /// A host name, lower case, fully qualified, no trailing dot.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is in the current snapshot.
    Found,
    /// A name of the mesh resolved to these addresses (only for [`Resource::Name`]).
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// The control plane says there is none.
    Absent,
    /// The control plane did not answer in time or is not connected.
    Unavailable,
}

/// The data path's handle. Cheap to clone; bounded.
#[derive(Clone, Debug)]
pub struct Demand {
    sender: mpsc::Sender<Wanted>,
    wait: Duration,
}

impl Demand {
    /// `wait`: the longest a connection waits for an answer.
    pub fn new(capacity: usize, wait: Duration) -> (Self, mpsc::Receiver<Wanted>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (Self { sender, wait }, receiver)
    }

    /// Asks and waits. A full queue, a closed client and a time-out all answer
    /// [`Answer::Unavailable`]. For the control thread; workers have [`Demand::ask_by`].
    pub async fn ask(&self, what: Resource) -> Answer {
        let answer = tokio::time::timeout(self.wait, self.answer(what)).await;
        answer.unwrap_or(Answer::Unavailable)
    }

    /// As [`Demand::ask`], by a worker's clock.
    pub async fn ask_by(&self, timers: &Timers, what: Resource) -> Answer {
        let answer = timers.timeout(self.wait, self.answer(what)).await;
        answer.unwrap_or(Answer::Unavailable)
    }

    async fn answer(&self, what: Resource) -> Answer {
        let (answer, answered) = oneshot::channel();
        let wanted = Wanted { what, answer };
        match self.sender.send(wanted).await {
            Ok(()) => answered.await.unwrap_or(Answer::Unavailable),
            Err(_) => Answer::Unavailable,
        }
    }
}
