//! Bounds open streams of a kind (ADS, Inspect): in all, and per workload, whose oldest stream is
//! ended for a new one. So no workload takes the permits of others, and a restarted proxy is not
//! refused because of its old streams. An ended stream holds its permit until its task is over, some
//! seconds; at most as many are ending as a workload may have.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tonic::Status;

use crate::identity::Peer;

/// Of one workload: its stream, and those of connections that are about to end.
pub const OF_WORKLOAD: usize = 16;

/// Namespace, and workload or (where a certificate names none) service account.
type Owner = (String, String);

/// See the module.
pub struct StreamLimit {
    max: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Default)]
struct OpenStreams {
    count: usize,
    next: u64,
    by_owner: HashMap<Owner, OfOwner>,
}

#[derive(Default)]
struct OfOwner {
    /// By age; dropping the sender ends the stream.
    open: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Streams that were ended and still hold a permit.
    ending: usize,
}

/// A stream's permit, given back when dropped.
pub struct StreamPermit {
    limit: Arc<StreamLimit>,
    owner: Option<Owner>,
    id: u64,
}

/// Resolves when the stream must end for a newer one of its workload.
pub type Superseded = oneshot::Receiver<()>;

impl StreamLimit {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(StreamLimit {
            max,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, OpenStreams> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a stream of `peer`; over the plaintext port only the sum is bounded. `None`: all
    /// are taken, by others or by the workload's own streams that are about to end.
    pub fn enter(self: &Arc<Self>, peer: &Peer) -> Option<(StreamPermit, Superseded)> {
        let owner = peer.verified.as_ref().map(|verified| {
            let account = &verified.identity.service_account;
            let name = match verified.workload.is_empty() {
                true => format!("sa/{account}"),
                false => verified.workload.clone(),
            };
            (verified.identity.namespace.clone(), name)
        });
        let mut open = self.lock();
        let (end, superseded) = oneshot::channel();
        let id = open.next;
        let own = owner
            .as_ref()
            .and_then(|owner| open.by_owner.get_mut(owner));
        let gives_way = match own {
            Some(own) if own.open.len() >= OF_WORKLOAD => {
                if own.ending >= OF_WORKLOAD {
                    return None;
                }
                own.ending += 1;
                own.open.pop_front().is_some()
            }
            _ => false,
        };
        // The permit of a stream that gives way is given back when its task has noticed.
        if open.count >= self.max && !gives_way {
            return None;
        }
        open.next += 1;
        open.count += 1;
        if let Some(owner) = &owner {
            let own = open.by_owner.entry(owner.clone()).or_default();
            own.open.push_back((id, end));
        } else {
            // Nothing supersedes it.
            drop(end);
        }
        let permit = StreamPermit {
            limit: Arc::clone(self),
            owner,
            id,
        };
        Some((permit, superseded))
    }
}

impl StreamPermit {
    /// Waits until a newer stream of the workload takes the permit.
    pub async fn superseded(&self, superseded: &mut Superseded) -> Status {
        if self.owner.is_none() {
            std::future::pending::<()>().await;
        }
        // Closed: its sender was dropped.
        let _ = superseded.await;
        Status::aborted(format!(
            "{OF_WORKLOAD} newer streams of this workload are open; run one proxy for each Workload"
        ))
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.lock();
        open.count -= 1;
        let Some(owner) = &self.owner else { return };
        if let Some(own) = open.by_owner.get_mut(owner) {
            match own.open.iter().position(|(id, _)| *id == self.id) {
                Some(at) => drop(own.open.remove(at)),
                None => own.ending -= 1,
            }
            if own.open.is_empty() && own.ending == 0 {
                open.by_owner.remove(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, VerifiedPeer};

    fn peer(workload: &str) -> Peer {
        Peer {
            address: None,
            verified: Some(VerifiedPeer {
                identity: Identity {
                    trust_domain: "m".to_owned(),
                    namespace: "shop".to_owned(),
                    service_account: "web".to_owned(),
                },
                workload: workload.to_owned(),
                not_after: 0,
                serial: String::new(),
            }),
            insecure: false,
        }
    }

    fn has_ended(superseded: &mut Superseded) -> bool {
        superseded.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn a_workload_displaces_only_its_own_oldest() {
        let limit = StreamLimit::new(20);
        let mut cart = limit.enter(&peer("cart")).unwrap();
        let mut web: Vec<_> = (0..OF_WORKLOAD + 2)
            .map(|_| limit.enter(&peer("web")).unwrap())
            .collect();
        let ended: Vec<bool> = web.iter_mut().map(|it| has_ended(&mut it.1)).collect();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 2);
        assert!(ended[0] && ended[1] && !has_ended(&mut cart.1));
        drop(web);
        assert_eq!(limit.lock().count, 1);
        assert_eq!(limit.lock().by_owner.len(), 1);
    }

    #[test]
    fn streams_that_do_not_end_when_they_give_way_are_bounded() {
        let limit = StreamLimit::new(1000);
        let mut web: Vec<_> = (0..2 * OF_WORKLOAD)
            .map(|_| limit.enter(&peer("web")).unwrap())
            .collect();
        assert!(limit.enter(&peer("web")).is_none());
        assert!(limit.enter(&peer("cart")).is_some());
        web.remove(0);
        assert!(limit.enter(&peer("web")).is_some());
        drop(web);
        assert_eq!(limit.lock().count, 0);
        assert!(limit.lock().by_owner.is_empty());
    }

    #[test]
    fn when_all_permits_are_taken_a_workload_comes_in_for_its_own_oldest_only() {
        let limit = StreamLimit::new(OF_WORKLOAD);
        let _web: Vec<_> = (0..OF_WORKLOAD)
            .map(|_| limit.enter(&peer("web")).unwrap())
            .collect();
        assert!(limit.enter(&peer("cart")).is_none());
        assert!(limit.enter(&peer("web")).is_some());
        assert!(limit.enter(&peer("")).is_none());
    }
}
