//! Bounds open streams of a kind (ADS, Inspect) in number: in all, and per workload, whose oldest
//! stream is ended for a new one. Bounds them per workload also in the bytes of state that they
//! take, for which the oldest are ended too. So no workload takes the permits of others, and a
//! restarted proxy is not refused because of its old streams. An ended stream holds its permit
//! until its task is over, which takes seconds; a workload may have as many ending streams as open
//! ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
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
    /// By age.
    open: VecDeque<OpenStream>,
    /// The state of streams that were ended and still hold a permit.
    ending: BTreeMap<u64, usize>,
}

struct OpenStream {
    id: u64,
    /// Bytes of its state.
    bytes: usize,
    /// Dropped when the stream must end.
    _end: oneshot::Sender<()>,
}

impl OfOwner {
    fn end_oldest(&mut self) -> bool {
        let oldest = self.open.pop_front();
        let ended = oldest.map(|stream| self.ending.insert(stream.id, stream.bytes));
        ended.is_some()
    }

    fn open_bytes(&self) -> usize {
        self.open.iter().map(|stream| stream.bytes).sum()
    }

    /// The state of a stream, which may be about to end.
    fn bytes_of(&mut self, id: u64) -> Option<&mut usize> {
        match self.open.iter_mut().find(|stream| stream.id == id) {
            Some(stream) => Some(&mut stream.bytes),
            None => self.ending.get_mut(&id),
        }
    }
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
                if own.ending.len() >= OF_WORKLOAD {
                    return None;
                }
                own.end_oldest()
            }
            _ => false,
        };
        // The permit of a superseded stream is given back when its task ends.
        if open.count >= self.max && !gives_way {
            return None;
        }
        open.next = open.next.wrapping_add(1);
        open.count = open.count.saturating_add(1);
        if let Some(owner) = &owner {
            let own = open.by_owner.entry(owner.clone()).or_default();
            own.open.push_back(OpenStream {
                id,
                bytes: 0,
                _end: end,
            });
        } else {
            // A stream without an owner is never superseded.
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
            "newer streams of this workload are open: {OF_WORKLOAD}, or those that take all the state that it may have; run one proxy for each Workload"
        ))
    }

    /// Records that the stream's state takes this many bytes. When all of the workload's open
    /// streams take more than `max`, the oldest are ended.
    ///
    /// # Errors
    /// When that many streams of the workload, or streams with that much state, have not ended yet.
    pub fn weigh(&self, bytes: usize, max: usize) -> Result<(), OfWorkloadError> {
        let Some(owner) = &self.owner else {
            return Ok(());
        };
        let mut open = self.limit.lock();
        let Some(own) = open.by_owner.get_mut(owner) else {
            return Ok(());
        };
        if let Some(of_stream) = own.bytes_of(self.id) {
            *of_stream = bytes;
        }
        while own.open.len() > 1 && own.open_bytes() > max {
            if own.ending.len() >= OF_WORKLOAD || own.ending.values().sum::<usize>() > max {
                return Err(OfWorkloadError(max));
            }
            own.end_oldest();
        }
        Ok(())
    }
}

/// Too much state of one workload's streams.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the streams of this workload take more than {0} bytes of state; run one proxy for each Workload"
)]
pub struct OfWorkloadError(usize);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.lock();
        open.count = open.count.saturating_sub(1);
        let Some(owner) = &self.owner else { return };
        if let Some(own) = open.by_owner.get_mut(owner) {
            match own.open.iter().position(|stream| stream.id == self.id) {
                Some(at) => drop(own.open.remove(at)),
                None => drop(own.ending.remove(&self.id)),
            }
            if own.open.is_empty() && own.ending.is_empty() {
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
    fn the_oldest_end_for_the_state_of_newer_streams_and_no_others() {
        let limit = StreamLimit::new(1000);
        let mut cart = limit.enter(&peer("cart")).unwrap();
        cart.0.weigh(1000, 100).unwrap();
        let mut web: Vec<_> = (0..4).map(|_| limit.enter(&peer("web")).unwrap()).collect();
        for stream in &web[..3] {
            stream.0.weigh(30, 100).unwrap();
        }
        assert!(web.iter_mut().all(|stream| !has_ended(&mut stream.1)));
        web[3].0.weigh(60, 100).unwrap();
        let ended: Vec<bool> = web.iter_mut().map(|it| has_ended(&mut it.1)).collect();
        assert_eq!(ended, [true, true, false, false]);
        assert!(!has_ended(&mut cart.1));
        // The state of streams that are ending is bounded too.
        web[3].0.weigh(71, 100).unwrap();
        assert!(has_ended(&mut web[2].1));
        let mut another = limit.enter(&peer("web")).unwrap();
        another.0.weigh(30, 100).unwrap();
        assert!(has_ended(&mut web[3].1));
        let more = limit.enter(&peer("web")).unwrap();
        assert_eq!(more.0.weigh(71, 100), Err(OfWorkloadError(100)));
        web[3].0.weigh(0, 100).unwrap();
        assert_eq!(more.0.weigh(71, 100), Ok(()));
        assert!(has_ended(&mut another.1));
        drop((web, another, more, cart));
        assert!(limit.lock().by_owner.is_empty());
    }

    #[test]
    fn when_all_permits_are_taken_only_a_workloads_own_oldest_is_superseded() {
        let limit = StreamLimit::new(OF_WORKLOAD);
        let _web: Vec<_> = (0..OF_WORKLOAD)
            .map(|_| limit.enter(&peer("web")).unwrap())
            .collect();
        assert!(limit.enter(&peer("cart")).is_none());
        assert!(limit.enter(&peer("web")).is_some());
        assert!(limit.enter(&peer("")).is_none());
    }
}
