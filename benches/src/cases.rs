//! What is measured.

use clap::ValueEnum;

/// A case: bootstraps for a peer's processes, and the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Plain HTTP/1.1, 100 B answers, 64 connections, one proxy
    Http1,
    /// HTTP/1.1, a pair of sidecars with HTTP/2 over mutual TLS between, 16 connections
    Mtls,
}

impl Case {
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1 plain, 100 B, 64 connections",
            Self::Mtls => {
                "sidecar pair: HTTP/1.1 \u{2192} HTTP/2 over mTLS \u{2192} HTTP/1.1, 100 B, 16 connections (TLS 1.3, X25519, P-256 certificates)"
            }
        }
    }

    /// One bootstrap for each process of a peer, in the order in which to start them.
    pub fn bootstraps(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Http1 => &[("http1", include_str!("../bootstrap/http1.yaml"))],
            Self::Mtls => &[
                ("mtls-server", include_str!("../bootstrap/mtls-server.yaml")),
                ("mtls-client", include_str!("../bootstrap/mtls-client.yaml")),
            ],
        }
    }

    pub fn connections(self) -> usize {
        match self {
            Self::Http1 => 64,
            Self::Mtls => 16,
        }
    }
}
