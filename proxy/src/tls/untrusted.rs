//! A peer's certificate that leads to no root: why, and what helps.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::refusal::bounded;

/// Cases that webpki's errors do not distinguish: a self-signed certificate is "a CA used as an end
/// entity" to it, trusted or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    #[error(
        "its issuer is {issuer:?}, which is not among the trusted CAs: add it to them, or let the \
         peer send the intermediate certificates that lead to one of them"
    )]
    UnknownIssuer { issuer: String },
    #[error(
        "it is self-signed and not trusted itself: add this very certificate to the trusted CAs \
         (revocation lists cannot go with it), or use one that a trusted CA has issued"
    )]
    SelfSigned,
    #[error(
        "it is a CA's, issued by {issuer:?}: the peer needs a certificate of its own with CA:FALSE"
    )]
    IsCa { issuer: String },
}

impl Untrusted {
    /// `None`: something else is wrong.
    pub(super) fn because(error: &webpki::Error, certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let is_self_signed = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let issuer = bounded(parsed.issuer());
        match error {
            webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity if is_self_signed => {
                Some(Self::SelfSigned)
            }
            webpki::Error::UnknownIssuer => Some(Self::UnknownIssuer { issuer }),
            webpki::Error::CaUsedAsEndEntity => Some(Self::IsCa { issuer }),
            _ => None,
        }
    }
}
