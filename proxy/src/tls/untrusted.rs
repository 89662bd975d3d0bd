//! A peer's certificate that leads to no root: which one it is, why, and what helps.

use x509_parser::prelude::{FromDer, X509Certificate};

/// Limit of a name in an error message, because the peer determines its length.
const MAX_NAME: usize = 128;

/// Cases that webpki's errors do not distinguish: a self-signed certificate is "a CA used as an end
/// entity" to it, trusted or not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    #[error(
        "the issuer of {certificate:?} is {issuer:?}, which is not among the trusted CAs: add it \
         to them, or let the peer send the intermediate certificates that lead to one of them"
    )]
    UnknownIssuer { certificate: String, issuer: String },
    #[error(
        "{certificate:?} is self-signed and not trusted itself: add this very certificate to the \
         trusted CAs (revocation lists cannot go with it), or use one that a trusted CA has issued"
    )]
    SelfSigned { certificate: String },
    #[error(
        "{certificate:?} is a CA's, issued by {issuer:?}: the peer needs a certificate of its own \
         with CA:FALSE"
    )]
    IsCa { certificate: String, issuer: String },
}

impl Untrusted {
    /// `None`: something else is wrong.
    pub(super) fn because(error: &webpki::Error, certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let is_self_signed = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let issuer = bounded(parsed.issuer());
        let certificate = own_name(&parsed);
        match error {
            webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity if is_self_signed => {
                Some(Self::SelfSigned { certificate })
            }
            webpki::Error::UnknownIssuer => Some(Self::UnknownIssuer {
                certificate,
                issuer,
            }),
            webpki::Error::CaUsedAsEndEntity => Some(Self::IsCa {
                certificate,
                issuer,
            }),
            _ => None,
        }
    }
}

/// The subject, or where that is empty, as SPIFFE has it, the first alternative name.
fn own_name(certificate: &X509Certificate<'_>) -> String {
    let subject = bounded(certificate.subject());
    if !subject.is_empty() {
        return subject;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let first = names.and_then(|names| names.value.general_names.first().map(bounded));
    first.unwrap_or_default()
}

fn bounded(name: &impl ToString) -> String {
    name.to_string().chars().take(MAX_NAME).collect()
}
