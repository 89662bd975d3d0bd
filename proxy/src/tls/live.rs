//! Open connections with a verified peer, whose peers can be verified again.
//!
//! When a bundle or a CRL is replaced, [`LiveConnections::reverify`] goes over this worker's connections:
//! those whose peer the new bundle does not trust are shut down. Each certificate is verified once,
//! however many connections it has, and in slices: a verification costs as much as many requests. A
//! certificate's expiry does not end a connection that began before it: validity is checked at the
//! time of the handshake.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustls_pki_types::UnixTime;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::leaf::PeerRole;
use super::material::{Rotating, TrustBundle};
use super::peers::PeerCertificate;
use super::refusal::name_of;
use super::verify::{PeerRules, verify};
use crate::bug;

/// With fewer entries, closed connections are not searched for.
const PRUNE_FROM: usize = 64;
/// What one slice may cost, in [`LOOK`]s: about a millisecond.
const SLICE: usize = 4000;
const LOOK: usize = 1;
const VERIFICATION: usize = 500;

/// The socket of a TLS connection and what its peer was verified by.
pub(super) struct PeerConnection {
    pub(super) tcp: TcpStream,
    untrusted: Cell<bool>,
    verified: RefCell<Option<VerifiedPeer>>,
}

/// The inputs of a peer's verification.
pub(super) struct VerifiedPeer {
    pub(super) role: PeerRole,
    pub(super) peer: Arc<PeerCertificate>,
    pub(super) rules: Arc<PeerRules>,
    pub(super) live: Arc<Rotating<TrustBundle>>,
    /// The bundle that last verified the peer.
    pub(super) trust: Arc<TrustBundle>,
    pub(super) began: UnixTime,
}

impl PeerConnection {
    pub(super) fn new(tcp: TcpStream) -> Rc<Self> {
        Rc::new(PeerConnection {
            tcp,
            untrusted: Cell::new(false),
            verified: RefCell::new(None),
        })
    }

    pub(super) fn is_untrusted(&self) -> bool {
        self.untrusted.get()
    }

    /// Verifies again if the bundle changed.
    fn reverify(&self, known: &mut VerifyResults) -> Reverified {
        let mut verified = self.verified.borrow_mut();
        let Some(verified) = verified.as_mut() else {
            return Reverified::stays(LOOK);
        };
        let Some(trust) = verified.live.load() else {
            return Reverified::stays(LOOK);
        };
        if Arc::ptr_eq(&trust, &verified.trust) {
            return Reverified::stays(LOOK);
        }
        let (verified_again, cost) = known.verify(verified, &trust);
        if !verified_again {
            tracing::info!("closing a connection whose peer is no longer trusted");
            self.untrusted.set(true);
            // Wakes the tasks that wait for the socket; they check the flag. An error means that it
            // is closed.
            let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Both);
            return Reverified { stays: false, cost };
        }
        verified.trust = trust;
        Reverified::stays(cost)
    }
}

struct Reverified {
    stays: bool,
    cost: usize,
}

impl Reverified {
    fn stays(cost: usize) -> Self {
        Reverified { stays: true, cost }
    }
}

/// Results by certificate while connections are verified again. Dates were checked at each
/// handshake; only the bundle's trust has changed.
#[derive(Default)]
struct VerifyResults {
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

impl VerifyResults {
    /// Whether the bundle trusts the peer, and the cost of the verification.
    fn verify(&mut self, verified: &VerifiedPeer, trust: &Arc<TrustBundle>) -> (bool, usize) {
        let case = Case {
            peer: Arc::as_ptr(&verified.peer),
            rules: Arc::as_ptr(&verified.rules),
            trust: Arc::as_ptr(trust),
            role: verified.role,
        };
        if let Some(found) = self.found.get(&case) {
            return (*found, LOOK);
        }
        let Some((leaf, intermediates)) = verified.peer.chain.split_first() else {
            return (true, LOOK);
        };
        let (rules, began) = (&verified.rules, verified.began);
        let verifying = || {
            bug::point("peer");
            verify(trust, rules, verified.role, leaf, intermediates, began)
        };
        let trusted = match catch_unwind(AssertUnwindSafe(verifying)) {
            Ok(Ok(_)) => true,
            Ok(Err(why)) => {
                tracing::info!(certificate = name_of(leaf), %why, "a peer is no longer trusted");
                false
            }
            // Fails closed: the certificate was not verified against the bundle in force.
            Err(_) => {
                tracing::error!("a peer's certificate could not be verified again");
                false
            }
        };
        let held = (verified.peer.clone(), verified.rules.clone(), trust.clone());
        self.held.push(held);
        self.found.insert(case, trusted);
        (trusted, VERIFICATION)
    }
}

/// This worker's connections with a verified peer.
#[derive(Default)]
pub(super) struct LiveConnections {
    links: RefCell<Vec<Weak<PeerConnection>>>,
    prune_at: Cell<usize>,
}

impl LiveConnections {
    pub(super) fn add(&self, link: &Rc<PeerConnection>, verified: VerifiedPeer) {
        *link.verified.borrow_mut() = Some(verified);
        let mut links = self.links.borrow_mut();
        if links.len() >= self.prune_at.get().max(PRUNE_FROM) {
            links.retain(|link| link.strong_count() > 0);
            self.prune_at.set(links.len().saturating_mul(2));
        }
        // The bundle may have been replaced during the handshake.
        if link.reverify(&mut VerifyResults::default()).stays {
            links.push(Rc::downgrade(link));
        }
    }

    /// Drops closed connections.
    pub(super) fn prune(&self) {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.strong_count() > 0);
        links.shrink_to(PRUNE_FROM);
        self.prune_at.set(0);
    }

    /// Verifies the peers of all connections whose bundle was replaced, and yields between slices;
    /// returns how many connections were ended. If the future is dropped early, the next call
    /// verifies the rest.
    pub(super) async fn reverify(&self) -> usize {
        let mut known = VerifyResults::default();
        let (mut ended, mut cost) = (0usize, 0usize);
        // Connections that are made meanwhile are verified with the newest bundle.
        let mut waiting = Waiting {
            registry: self,
            links: self.links.take(),
        };
        while let Some(link) = waiting.links.pop() {
            if let Some(alive) = link.upgrade() {
                let reverified = alive.reverify(&mut known);
                cost = cost.saturating_add(reverified.cost);
                match reverified.stays {
                    true => self.links.borrow_mut().push(link),
                    false => ended = ended.saturating_add(1),
                }
            }
            if cost >= SLICE {
                cost = 0;
                tokio::task::yield_now().await;
            }
            bug::point("reverify");
        }
        ended
    }
}

/// Connections that are still to be verified; dropping this puts them back into the registry.
struct Waiting<'a> {
    registry: &'a LiveConnections,
    links: Vec<Weak<PeerConnection>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.registry.links.borrow_mut().append(&mut self.links);
    }
}
