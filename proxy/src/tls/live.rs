//! Connections whose peer was judged, so that they can be judged again.
//!
//! When a bundle or a CRL is replaced, [`Registry::rejudge`] goes over this worker's connections:
//! those whose peer the new bundle does not believe are shut down. Each certificate is verified
//! once, however many connections it has, and in slices: a verification costs as much as many
//! requests. The end of a certificate does not end a connection that began while it was good: the
//! time of judgement stays the time of a handshake.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustls_pki_types::UnixTime;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::material::{Rotating, TrustBundle};
use super::peers::PeerCertificate;
use super::verify::{PeerRole, PeerRules, judge};

/// Below this many entries dead ones are not looked for.
const PRUNE_FROM: usize = 64;
/// What one slice may cost, in [`LOOK`]s: about a millisecond.
const SLICE: usize = 4000;
const LOOK: usize = 1;
const VERIFICATION: usize = 500;

/// The socket of a TLS connection and the verdict on its peer.
pub(super) struct PeerConnection {
    pub(super) tcp: TcpStream,
    distrusted: Cell<bool>,
    verdict: RefCell<Option<Verdict>>,
}

/// What a peer was judged by.
pub(super) struct Verdict {
    pub(super) role: PeerRole,
    pub(super) peer: Arc<PeerCertificate>,
    pub(super) rules: Arc<PeerRules>,
    pub(super) live: Arc<Rotating<TrustBundle>>,
    /// The bundle that last said yes.
    pub(super) trust: Arc<TrustBundle>,
    pub(super) began: UnixTime,
}

impl PeerConnection {
    pub(super) fn new(tcp: TcpStream) -> Rc<Self> {
        Rc::new(PeerConnection {
            tcp,
            distrusted: Cell::new(false),
            verdict: RefCell::new(None),
        })
    }

    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted.get()
    }

    /// Judges again if the bundle changed.
    fn rejudge(&self, known: &mut Known) -> Rejudged {
        let mut verdict = self.verdict.borrow_mut();
        let Some(verdict) = verdict.as_mut() else {
            return Rejudged::stays(LOOK);
        };
        let Some(trust) = verdict.live.load() else {
            return Rejudged::stays(LOOK);
        };
        if Arc::ptr_eq(&trust, &verdict.trust) {
            return Rejudged::stays(LOOK);
        }
        let (believed, cost) = known.judge(verdict, &trust);
        if !believed {
            tracing::info!("closing a connection whose peer is no longer trusted");
            self.distrusted.set(true);
            // Wakes whoever waits on the socket; they find the flag. A failure means it is gone.
            let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Both);
            return Rejudged { stays: false, cost };
        }
        verdict.trust = trust;
        Rejudged::stays(cost)
    }
}

struct Rejudged {
    stays: bool,
    cost: usize,
}

impl Rejudged {
    fn stays(cost: usize) -> Self {
        Rejudged { stays: true, cost }
    }
}

/// What was found of each certificate while connections are judged again. Their dates were judged
/// at each handshake; what changes is whom the bundle believes.
#[derive(Default)]
struct Known {
    found: HashMap<Case, bool>,
    /// Held, so that no address in [`Case`] is used twice.
    held: Vec<(Arc<PeerCertificate>, Arc<PeerRules>, Arc<TrustBundle>)>,
}

/// A certificate, rules and bundle by their addresses.
#[derive(PartialEq, Eq, Hash)]
struct Case {
    peer: *const PeerCertificate,
    rules: *const PeerRules,
    trust: *const TrustBundle,
    role: PeerRole,
}

impl Known {
    /// Whether the bundle believes the peer, and what it cost to know.
    fn judge(&mut self, verdict: &Verdict, trust: &Arc<TrustBundle>) -> (bool, usize) {
        let case = Case {
            peer: Arc::as_ptr(&verdict.peer),
            rules: Arc::as_ptr(&verdict.rules),
            trust: Arc::as_ptr(trust),
            role: verdict.role,
        };
        if let Some(found) = self.found.get(&case) {
            return (*found, LOOK);
        }
        let Some((leaf, intermediates)) = verdict.peer.chain.split_first() else {
            return (true, LOOK);
        };
        let (rules, began) = (&verdict.rules, verdict.began);
        let judged = judge(trust, rules, verdict.role, leaf, intermediates, began);
        if let Err(why) = &judged {
            tracing::info!(%why, "a peer is no longer trusted");
        }
        let held = (verdict.peer.clone(), verdict.rules.clone(), trust.clone());
        self.held.push(held);
        self.found.insert(case, judged.is_ok());
        (judged.is_ok(), VERIFICATION)
    }
}

/// This worker's judged connections.
#[derive(Default)]
pub(super) struct Registry {
    links: RefCell<Vec<Weak<PeerConnection>>>,
    prune_at: Cell<usize>,
}

impl Registry {
    pub(super) fn add(&self, link: &Rc<PeerConnection>, verdict: Verdict) {
        *link.verdict.borrow_mut() = Some(verdict);
        let mut links = self.links.borrow_mut();
        if links.len() >= self.prune_at.get().max(PRUNE_FROM) {
            links.retain(|link| link.strong_count() > 0);
            self.prune_at.set(links.len() * 2);
        }
        // The bundle may have been replaced during the handshake.
        if link.rejudge(&mut Known::default()).stays {
            links.push(Rc::downgrade(link));
        }
    }

    /// Forgets connections that are closed.
    pub(super) fn prune(&self) {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.strong_count() > 0);
        links.shrink_to(PRUNE_FROM);
        self.prune_at.set(0);
    }

    /// Judges every connection whose bundle was replaced, and lets others run between slices;
    /// returns how many were ended. Not to be cancelled: what it did not come to would not be
    /// judged again.
    pub(super) async fn rejudge(&self) -> usize {
        let mut known = Known::default();
        let (mut ended, mut cost) = (0, 0);
        // Those that come meanwhile are judged by what holds then.
        let mut waiting = self.links.take();
        while let Some(link) = waiting.pop() {
            if let Some(alive) = link.upgrade() {
                let rejudged = alive.rejudge(&mut known);
                cost += rejudged.cost;
                match rejudged.stays {
                    true => self.links.borrow_mut().push(link),
                    false => ended += 1,
                }
            }
            if cost >= SLICE {
                cost = 0;
                tokio::task::yield_now().await;
            }
        }
        ended
    }
}
