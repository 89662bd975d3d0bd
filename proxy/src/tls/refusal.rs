//! The name of a certificate that was refused.
//!
//! rustls' errors choose the alert that the peer receives, and most have no room for a name. So a
//! verifier stores the name in a thread-local, and the caller of that handshake step reads it: on the
//! same thread, without an await in between.

use std::cell::Cell;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Limit of a name in an error message, because the peer determines its length.
const MAX_NAME: usize = 128;

thread_local! {
    static REFUSED: Cell<Option<String>> = const { Cell::new(None) };
}

/// A verifier refuses this certificate.
pub(crate) fn note(certificate: &[u8]) {
    REFUSED.set(Some(name_of(certificate)));
}

/// The certificate that this thread refused last; once.
pub(super) fn take() -> Option<String> {
    REFUSED.take()
}

/// The subject, or where that is empty, as SPIFFE has it, the first alternative name; of a
/// certificate without either, or that cannot be parsed, its SHA-256.
pub(super) fn name_of(certificate: &[u8]) -> String {
    let parsed = X509Certificate::from_der(certificate).ok();
    let name = parsed.and_then(|(_, parsed)| subject_or_alternative(&parsed));
    name.unwrap_or_else(|| {
        let digest = digest(&SHA256, certificate);
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        format!("SHA-256 {hex}")
    })
}

fn subject_or_alternative(certificate: &X509Certificate<'_>) -> Option<String> {
    let subject = bounded(certificate.subject());
    if !subject.is_empty() {
        return Some(subject);
    }
    let names = certificate.subject_alternative_name().ok().flatten()?;
    names.value.general_names.first().map(bounded)
}

/// At most [`MAX_NAME`] characters of a name.
pub(super) fn bounded(name: &impl ToString) -> String {
    name.to_string().chars().take(MAX_NAME).collect()
}
