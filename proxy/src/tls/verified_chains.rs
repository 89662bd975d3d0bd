//! Verified chains, so that a peer that connects again needs no second check of their signatures,
//! which take a seventh of a handshake.
//!
//! The result depends on the chain's bytes, the verifier's settings, and the time. The bytes are
//! the key here; a verifier's settings never change (other trust or other rules make another one);
//! for the time the common validity of the chain's certificates is stored. Revocation lists expire
//! on their own: with them nothing is cached.

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
pub(super) struct VerifiedChains {
    /// The seconds since 1970 in which a chain is valid, first and last included.
    validity: Mutex<HashMap<Digest, RangeInclusive<i64>>>,
}

impl VerifiedChains {
    /// Whether the chain was verified before, and is still valid at `now`.
    pub(super) fn contains(&self, chain: &Digest, now: UnixTime) -> bool {
        let known = self.validity.lock().unwrap_or_else(PoisonError::into_inner);
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        known.get(chain).is_some_and(|holds| holds.contains(&now))
    }

    /// Adds a verified chain.
    pub(super) fn remember<'a>(
        &self,
        chain: Digest,
        certificates: impl Iterator<Item = &'a CertificateDer<'a>>,
    ) {
        let Some(holds) = validity(certificates) else {
            return;
        };
        let mut known = self.validity.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(chain, holds);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose,
    };
    use rustls::server::danger::ClientCertVerifier;
    use time::OffsetDateTime;

    use super::super::leaf::PeerRole;
    use super::super::material::TrustBundle;
    use super::super::verify::{PeerRules, Verifier};
    use super::*;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    const DAY: i64 = 24 * 3600;
    const FROM: i64 = 20_000 * DAY;

    fn valid(mut params: CertificateParams, days: i64) -> CertificateParams {
        params.not_before = OffsetDateTime::from_unix_timestamp(FROM).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(FROM + days * DAY).unwrap();
        params
    }

    fn ca(days: i64) -> CertificateParams {
        let mut params = valid(CertificateParams::default(), days);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn leaf(issuer: &Ca, days: i64) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec!["peer.test".to_owned()]).unwrap();
        let mut params = valid(params, days);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, issuer).unwrap().der().clone()
    }

    fn verifier(root: &Ca) -> Verifier {
        Verifier {
            role: PeerRole::Client,
            trust: Some(Arc::new(
                TrustBundle::from_pem(root.pem().as_bytes(), None).unwrap(),
            )),
            rules: Arc::new(PeerRules::default()),
            mandatory: true,
            verified_chains: VerifiedChains::default(),
        }
    }

    fn accepts(verifier: &Verifier, chain: &[CertificateDer<'_>], days: i64, seconds: i64) -> bool {
        let at = u64::try_from(FROM + days * DAY + seconds).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let verified = verifier.verify_client_cert(&chain[0], &chain[1..], at);
        verified.is_ok()
    }

    #[test]
    fn a_cached_chain_is_accepted_while_all_of_it_is_valid() {
        let root = Ca::self_signed(ca(100), KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let middle = Ca::signed_by(ca(5), key, &root).unwrap();
        let direct = [leaf(&root, 10)];
        let longer = [leaf(&middle, 10), middle.der().clone()];
        let verifier = verifier(&root);
        for (chain, days) in [(&direct[..], 10), (&longer[..], 5)] {
            assert!(accepts(&verifier, chain, 1, 0));
            // The chain is cached from here on.
            assert!(accepts(&verifier, chain, 0, 0));
            assert!(accepts(&verifier, chain, days, 0));
            assert!(!accepts(&verifier, chain, days, 1));
            assert!(!accepts(&verifier, chain, 0, -1));
        }
    }

    #[test]
    fn what_is_known_is_the_chain_to_the_last_byte() {
        let root = Ca::self_signed(ca(100), KeyPair::generate().unwrap()).unwrap();
        let good = leaf(&root, 10);
        let verifier = verifier(&root);
        assert!(accepts(&verifier, std::slice::from_ref(&good), 1, 0));
        let mut bytes = good.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(!accepts(&verifier, &[bytes.into()], 1, 0));
        let other = Ca::self_signed(ca(100), KeyPair::generate().unwrap()).unwrap();
        assert!(!accepts(&verifier, &[leaf(&other, 10)], 1, 0));
    }

    #[test]
    fn the_cache_is_bounded() {
        let chains = VerifiedChains::default();
        for n in 0..=MOST {
            let mut chain = [0; 32];
            chain[..8].copy_from_slice(&n.to_be_bytes());
            chains.remember(chain, std::iter::empty());
        }
        let known = chains.validity.lock().unwrap().len();
        assert!(known <= MOST, "{known}");
    }
}
