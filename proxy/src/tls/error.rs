//! What can go wrong with TLS, and whose fault it is.

use std::io;

/// Why a handshake or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// This side cannot speak TLS yet.
    #[error("TLS is not ready: {0}; waiting for it from the control plane")]
    NotReady(&'static str),
    /// This side's settings do not make a TLS configuration.
    #[error("TLS settings: {0}")]
    Setup(rustls::Error),
    /// The protocol failed: the peer broke it, refused us, or was refused.
    #[error("TLS: {}", plainly(.0))]
    Protocol(#[source] rustls::Error),
    /// The peer closed the connection during the handshake.
    #[error("the connection ended during the TLS handshake")]
    Closed,
    /// A resumed session of a peer whose certificate has ended since.
    #[error("the peer's certificate ended before its session was resumed")]
    ExpiredSession,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

impl TlsError {
    /// Whether this side rejected the peer's certificate (or the lack of one).
    pub fn peer_was_refused(&self) -> bool {
        matches!(
            self,
            TlsError::ExpiredSession
                | TlsError::Protocol(
                    rustls::Error::InvalidCertificate(_)
                        | rustls::Error::NoCertificatesPresented
                        | rustls::Error::InvalidCertRevocationList(_)
                )
        )
    }
}

/// What happened, without rustls' wrapping of our own verdicts.
fn plainly(error: &rustls::Error) -> String {
    use rustls::{CertificateError as Certificate, Error};
    match error {
        Error::InvalidCertificate(Certificate::Other(verdict)) => {
            format!("the peer's certificate is refused: {}", verdict.0)
        }
        Error::InvalidCertificate(Certificate::Revoked) => {
            "the peer's certificate is refused: it was revoked".into()
        }
        other => other.to_string(),
    }
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
