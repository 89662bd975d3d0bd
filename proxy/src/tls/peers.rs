//! Certificates of connected peers. One peer has few and often many connections: those share one
//! copy, and its names are read once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::identity::PeerIdentity;
use super::leaf::{Leaf, LeafError, PeerRole};
use super::material::TrustBundle;
use super::verify::{PeerRules, verify};

/// With fewer entries, unused ones are not searched for.
const PRUNE_FROM: usize = 64;

/// A verified peer's certificate chain.
#[derive(Debug)]
pub struct PeerCertificate {
    /// The leaf first; never empty.
    pub(super) chain: Box<[CertificateDer<'static>]>,
    pub(super) identity: Option<PeerIdentity>,
    pub(super) not_after: SystemTime,
    serial: Box<str>,
    fingerprint: Box<str>,
}

impl PeerCertificate {
    /// The leaf's serial number, lower-case hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// SHA-256 of the leaf (DER), lower-case hex.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether `trust` and `rules` allow it as a client. An expired leaf is verified at the last
    /// moment of its validity.
    pub(super) fn is_trusted(&self, trust: &TrustBundle, rules: &PeerRules) -> bool {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return false;
        };
        let at = SystemTime::now().min(self.not_after);
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH);
        let at = UnixTime::since_unix_epoch(since_epoch.unwrap_or_default());
        verify(trust, rules, PeerRole::Client, leaf, intermediates, at).is_ok()
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble & 0xf), 16).unwrap_or_default();
    let digits = bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]);
    digits.collect()
}

/// This worker's.
#[derive(Default)]
pub(super) struct Peers {
    /// By the leaf's SHA-256.
    known: RefCell<HashMap<[u8; 32], Weak<PeerCertificate>>>,
    prune_at: Cell<usize>,
}

impl Peers {
    /// The one copy of `chain`; `None` when it is empty.
    ///
    /// # Errors
    /// When the leaf cannot be read.
    pub(super) fn shared(
        &self,
        chain: &[CertificateDer<'_>],
    ) -> Result<Option<Arc<PeerCertificate>>, LeafError> {
        let Some(leaf) = chain.first() else {
            return Ok(None);
        };
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, leaf).as_ref());
        let known = self.known.borrow().get(&sha256).and_then(Weak::upgrade);
        // The same leaf may come with other intermediates.
        if let Some(known) = known.filter(|known| *known.chain == *chain) {
            return Ok(Some(known));
        }
        let parsed = Leaf::parse(leaf)?;
        let peer = Arc::new(PeerCertificate {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            identity: parsed.spiffe.map(PeerIdentity::new),
            not_after: parsed.not_after,
            serial: parsed.serial,
            fingerprint: hex(&sha256).into(),
        });
        if self.known.borrow().len() >= self.prune_at.get().max(PRUNE_FROM) {
            self.prune();
        }
        let mut known = self.known.borrow_mut();
        known.insert(sha256, Arc::downgrade(&peer));
        Ok(Some(peer))
    }

    /// Drops certificates of which no connection is left.
    pub(super) fn prune(&self) {
        let mut known = self.known.borrow_mut();
        known.retain(|_, peer| peer.strong_count() > 0);
        known.shrink_to(PRUNE_FROM);
        self.prune_at.set(known.len().saturating_mul(2));
    }
}
