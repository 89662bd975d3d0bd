//! Our own certificate and the TLS settings of the gRPC port, of the webhook, and of the aggregated API.
//!
//! [`replica_server_config`] and [`replica_client_config`]: between replicas, which show it to each other.
//!
//! At the gRPC port a client certificate is optional in the handshake, because a workload gets its
//! first one here; a certificate that is shown must chain to our root.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use super::{Authority, CaError};

/// The certificate that new handshakes get; replaced live.
#[derive(Debug)]
pub struct Serving {
    current: RwLock<Arc<CertifiedKey>>,
    names: Vec<String>,
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|current| Arc::clone(&current))
    }
}

impl ResolvesClientCert for Serving {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current.read().ok().map(|current| Arc::clone(&current))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn tls(error: impl std::fmt::Display) -> CaError {
    CaError::Tls(error.to_string())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Serving {
    /// `names`: DNS names and addresses under which proxies reach us, beside `anyam-control`.
    ///
    /// # Errors
    /// When a name can't stand in a certificate, or signing fails.
    pub fn new(authority: &Authority, names: &[String]) -> Result<(Self, Duration), CaError> {
        let mut all = vec!["anyam-control".to_owned(), "localhost".to_owned()];
        all.extend(["127.0.0.1", "::1"].map(str::to_owned));
        let more = names.iter().filter(|name| !all.contains(name)).cloned();
        let more: Vec<String> = more.collect();
        all.extend(more);
        let (key, renew_in) = issue(authority, &all)?;
        let serving = Serving {
            current: RwLock::new(Arc::new(key)),
            names: all,
        };
        Ok((serving, renew_in))
    }

    /// Replaces the certificate; open connections keep theirs. Returns when to renew next.
    ///
    /// # Errors
    /// When signing fails; the certificate stays as it is.
    pub fn renew(&self, authority: &Authority) -> Result<Duration, CaError> {
        let (key, renew_in) = issue(authority, &self.names)?;
        match self.current.write() {
            Ok(mut current) => *current = Arc::new(key),
            Err(poisoned) => *poisoned.into_inner() = Arc::new(key),
        }
        Ok(renew_in)
    }
}

fn issue(authority: &Authority, names: &[String]) -> Result<(CertifiedKey, Duration), CaError> {
    let (key, issued) = authority.issue_serving(names)?;
    let left = SystemTime::from(issued.not_after).duration_since(SystemTime::now());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = CertifiedKey::from_der(issued.sent, key, &provider()).map_err(tls)?;
    let half_life = left.unwrap_or_default().mul_f64(0.5);
    Ok((key, half_life.max(Duration::from_secs(1))))
}

/// Renews the certificate at half its life, until `closing` turns true.
pub async fn keep_renewed(
    serving: Arc<Serving>,
    authority: Arc<Authority>,
    mut renew_in: Duration,
    mut closing: watch::Receiver<bool>,
) {
    const RETRY: Duration = Duration::from_secs(60);
    loop {
        tokio::select! {
            () = tokio::time::sleep(renew_in) => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
        renew_in = serving.renew(&authority).unwrap_or_else(|error| {
            tracing::error!(%error, "our own certificate was not renewed");
            RETRY
        });
    }
}

/// TLS 1.2 and 1.3: a stock Envoy offers no more than 1.2 as a client unless configured to.
///
/// # Errors
/// When the root can't be used as one.
pub fn server_config(
    authority: &Authority,
    serving: Arc<Serving>,
) -> Result<rustls::ServerConfig, CaError> {
    let roots = Arc::new(roots(authority)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(tls)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would keep a verification against an older trust bundle.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For API servers, which show no certificate: all that they can do here is ask for a patch.
///
/// # Errors
/// When the provider lacks the protocol versions.
pub fn webhook_config(serving: Arc<Serving>) -> Result<rustls::ServerConfig, CaError> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_no_client_auth()
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// For API servers that forward requests. `verifier`: of the front proxy's certificate; `None`: no
/// certificate is asked for.
///
/// # Errors
/// When the provider lacks the protocol versions.
pub fn api_server_config(
    serving: Arc<Serving>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<rustls::ServerConfig, CaError> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would keep a verification against an older CA.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For other replicas: a certificate of ours is required.
///
/// # Errors
/// When the root can't be used as one.
pub fn replica_server_config(
    authority: &Authority,
    serving: Arc<Serving>,
) -> Result<rustls::ServerConfig, CaError> {
    let roots = Arc::new(roots(authority)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(tls)?;
    api_server_config(serving, Some(verifier))
}

/// To other replicas, with our own certificate.
///
/// # Errors
/// When the root can't be used as one.
pub fn replica_client_config(
    authority: &Authority,
    serving: Arc<Serving>,
) -> Result<rustls::ClientConfig, CaError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_root_certificates(roots(authority)?)
        .with_client_cert_resolver(serving);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(authority: &Authority) -> Result<RootCertStore, CaError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(tls)?;
    Ok(roots)
}
