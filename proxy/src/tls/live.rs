//! Connections whose peer was judged, so that they can be judged again.
//!
//! When a bundle or a CRL is replaced, [`Registry::rejudge`] goes over this worker's connections:
//! those whose peer the new bundle does not believe are shut down. The end of a certificate does
//! not end a connection that began while it was good: the time of judgement stays the time of
//! the handshake.

use std::cell::{Cell, RefCell};
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

    /// Judges again if the bundle changed; false: the connection was ended.
    fn rejudge(&self) -> bool {
        let mut verdict = self.verdict.borrow_mut();
        let Some(verdict) = verdict.as_mut() else {
            return true;
        };
        let Some(trust) = verdict.live.load() else {
            return true;
        };
        if Arc::ptr_eq(&trust, &verdict.trust) {
            return true;
        }
        let Some((leaf, intermediates)) = verdict.peer.chain.split_first() else {
            return true;
        };
        let judged = judge(
            &trust,
            &verdict.rules,
            verdict.role,
            leaf,
            intermediates,
            verdict.began,
        );
        if let Err(why) = judged {
            tracing::info!(%why, "closing a connection whose peer is no longer trusted");
            self.distrusted.set(true);
            // Wakes whoever waits on the socket; they find the flag. A failure means it is gone.
            let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Both);
            return false;
        }
        verdict.trust = trust;
        true
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
        links.push(Rc::downgrade(link));
    }

    /// Forgets connections that are closed.
    pub(super) fn prune(&self) {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.strong_count() > 0);
        links.shrink_to(PRUNE_FROM);
        self.prune_at.set(0);
    }

    /// Judges every connection whose bundle was replaced; returns how many were ended.
    pub(super) fn rejudge(&self) -> usize {
        let mut ended = 0;
        self.links.borrow_mut().retain(|link| match link.upgrade() {
            Some(link) if link.rejudge() => true,
            Some(_) => {
                ended += 1;
                false
            }
            None => false,
        });
        ended
    }
}
