//! A fresh key and the signing request for it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

use crate::tls::SpiffeId;

/// The private key, which never leaves the proxy, and the signing request, both PEM.
pub(super) struct SigningRequest {
    pub(super) key: String,
    pub(super) csr: String,
}

/// Makes a P-256 key and a request for exactly one name: the SPIFFE id.
pub(super) fn request(id: &SpiffeId) -> Result<SigningRequest, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    let csr = params.serialize_request(&key)?.pem()?;
    Ok(SigningRequest {
        key: key.serialize_pem(),
        csr,
    })
}
