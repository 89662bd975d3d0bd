//! Chains that were found good, so that a peer that comes again costs no second check of the
//! signatures in them: those are a seventh of a handshake.
//!
//! A judgement depends on the chain's bytes, on what its verifier was made with, and on the time.
//! The first is the key here, the second never changes in a verifier (other trust or other rules
//! make another one), and of the third the common validity of the chain's certificates is kept
//! beside it. Revocation lists have a time of their own: with them nothing is remembered.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Chains remembered by one verifier.
const MOST: usize = 1024;

/// SHA-256 over a whole chain.
pub(super) type Digest = [u8; 32];

/// See the module.
#[derive(Default)]
pub(super) struct Judged {
    /// Seconds since 1970 in which a chain holds, both ends included.
    good: Mutex<HashMap<Digest, RangeInclusive<i64>>>,
}

impl Judged {
    /// Whether the chain was found good before, and still is at `now`.
    pub(super) fn knows(&self, chain: &Digest, now: UnixTime) -> bool {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        good.get(chain).is_some_and(|holds| holds.contains(&now))
    }

    /// Remembers a chain that was found good.
    pub(super) fn remember<'a>(
        &self,
        chain: Digest,
        certificates: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) {
        let Some(holds) = validity(certificates) else {
            return;
        };
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= MOST {
            good.clear();
        }
        good.insert(chain, holds);
    }
}

/// The key of a chain.
pub(super) fn digest<'a>(certificates: impl Iterator<Item = &'a CertificateDer<'a>>) -> Digest {
    let mut context = Context::new(&SHA256);
    for certificate in certificates {
        // With the lengths no two chains have the same bytes.
        context.update(&certificate.len().to_be_bytes());
        context.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// When all of them are valid. `None`: that cannot be read.
fn validity<'a>(
    certificates: impl Iterator<Item = &'a CertificateDer<'a>>,
) -> Option<RangeInclusive<i64>> {
    let (mut from, mut until) = (i64::MIN, i64::MAX);
    for certificate in certificates {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        from = from.max(validity.not_before.timestamp());
        until = until.min(validity.not_after.timestamp());
    }
    Some(from..=until)
}
