//! What can go wrong with TLS, and whose fault it is.

use std::io;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls_pki_types::UnixTime;

use super::refusal;

/// Why a handshake or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This side does not have its certificate or trust bundle yet.
    #[error("TLS is not ready: {0}; waiting for it from the control plane")]
    NotReady(&'static str),
    /// This side's settings do not make a TLS configuration.
    #[error("TLS settings: {0}")]
    Setup(rustls::Error),
    /// This side refused the peer's certificate.
    #[error("TLS: the peer's certificate {certificate:?} is refused: {}", reason(.why))]
    Refused {
        /// Its subject, or what else identifies it.
        certificate: String,
        why: CertificateError,
    },
    /// The protocol failed: the peer violated it, rejected our certificate, or showed none.
    #[error("TLS: {}", plainly(.0))]
    Protocol(#[source] rustls::Error),
    /// The peer closed the connection during the handshake.
    #[error("the connection ended during the TLS handshake")]
    Closed,
    /// A resumed session of a peer whose certificate has expired.
    #[error(
        "the peer's certificate {certificate:?} expired before its session was resumed: renew it"
    )]
    ExpiredSession { certificate: String },
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl TlsError {
    /// What a step of a handshake failed with; to be called on that thread, before it does anything
    /// else.
    pub(crate) fn of_step(error: rustls::Error) -> Self {
        match (error, refusal::take()) {
            (rustls::Error::InvalidCertificate(why), Some(certificate)) => {
                TlsError::Refused { certificate, why }
            }
            (other, _) => TlsError::Protocol(other),
        }
    }

    /// The same for a connector of tokio-rustls.
    pub(crate) fn of_connector(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(inner) => Self::of_step(rustls::Error::clone(inner)),
            None => TlsError::Io(error),
        }
    }

    /// Whether this side rejected the peer's certificate (or the lack of one).
    pub fn peer_was_refused(&self) -> bool {
        matches!(
            self,
            TlsError::ExpiredSession { .. }
                | TlsError::Refused { .. }
                | TlsError::Protocol(
                    rustls::Error::InvalidCertificate(_)
                        | rustls::Error::NoCertificatesPresented
                        | rustls::Error::InvalidCertRevocationList(_)
                )
        )
    }
}

/// What happened, and what helps.
fn plainly(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            format!("the peer's certificate is refused: {}", reason(why))
        }
        rustls::Error::NoCertificatesPresented => {
            "the peer sent no certificate, and one is required here".into()
        }
        other => other.to_string(),
    }
}

fn reason(why: &CertificateError) -> String {
    use CertificateError as E;
    match why {
        E::Other(own) => own.0.to_string(),
        E::Revoked => "it was revoked".into(),
        E::ExpiredContext { not_after, .. } => format!(
            "it, or one of its issuers, ended on {}: renew it, or correct the clock of this machine",
            date(*not_after)
        ),
        E::Expired => "it, or one of its issuers, has ended: renew it".into(),
        E::NotValidYetContext { not_before, .. } => format!(
            "it, or one of its issuers, begins on {}: correct the clock of this machine, or of the \
             one that issued it",
            date(*not_before)
        ),
        E::NotValidYet => "it, or one of its issuers, is not valid yet: correct the clock".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its extended key usage is for another purpose: a server's needs serverAuth, a client's \
             clientAuth"
                .into()
        }
        E::BadSignature => "a signature is not valid: the trusted CA of its issuer's name has another \
             key, or the peer's private key is not the certificate's"
            .into(),
        E::UnknownRevocationStatus => {
            "no revocation list covers it: add its issuer's to the lists".into()
        }
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "its issuer's revocation list has ended: replace the list".into()
        }
        E::BadEncoding => "it cannot be parsed".into(),
        other => other.to_string(),
    }
}

/// 9999-12-31T23:59:59Z, RFC 5280's "no expiration" (4.1.2.5).
const LAST: u64 = 253_402_300_799;

fn date(time: UnixTime) -> String {
    let since = Duration::from_secs(time.as_secs().min(LAST));
    let time = SystemTime::UNIX_EPOCH.checked_add(since);
    httpdate::fmt_http_date(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Io(error) => error,
            TlsError::Closed => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            TlsError::NotReady(_) => io::Error::new(io::ErrorKind::NotConnected, error),
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// What a read or write on an established connection fails with, inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum ConnectionLost {
    /// `UnexpectedEof`: bytes may be missing.
    #[error("the peer ended the connection without close_notify: the stream may be truncated")]
    Truncated,
    /// `PermissionDenied`.
    #[error("the peer's certificate is no longer trusted")]
    Distrusted,
}

impl From<ConnectionLost> for io::Error {
    fn from(lost: ConnectionLost) -> Self {
        let kind = match lost {
            ConnectionLost::Truncated => io::ErrorKind::UnexpectedEof,
            ConnectionLost::Distrusted => io::ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_why_and_what_helps() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let said = |why| {
            let certificate = "CN=front".to_owned();
            TlsError::Refused { certificate, why }.to_string()
        };
        let expired = said(CertificateError::ExpiredContext {
            time: time(1_700_000_000),
            not_after: time(784_111_777),
        });
        assert_eq!(
            expired,
            "TLS: the peer's certificate \"CN=front\" is refused: it, or one of its issuers, ended on \
             Sun, 06 Nov 1994 08:49:37 GMT: renew it, or correct the clock of this machine"
        );
        let future = said(CertificateError::NotValidYetContext {
            time: time(0),
            not_before: time(u64::MAX),
        });
        assert!(future.contains("begins on Fri, 31 Dec 9999 23:59:59 GMT: correct the clock"));
        for why in [
            CertificateError::InvalidPurpose,
            CertificateError::BadSignature,
            CertificateError::UnknownRevocationStatus,
            CertificateError::ExpiredRevocationList,
        ] {
            let said = said(why.clone());
            assert!(!said.contains(&format!("{why:?}")), "{said}");
        }
    }
}
