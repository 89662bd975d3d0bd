//! Mutual TLS as the caller: TLS 1.3, AES-128-GCM, X25519, as all sides of all cases.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::{exchange, loops};
use super::{Done, block_on};
use crate::BenchError;

/// Connections of one handshake and one request each.
pub fn handshakes(
    at_once: usize,
    resume: bool,
    port: u16,
    lasting: Duration,
    scratch: &Path,
) -> Result<Done, BenchError> {
    let connector = connector(scratch, resume)?;
    block_on(async move {
        loops(at_once, lasting, move || {
            let connector = connector.clone();
            async move {
                let mut stream = connect(&connector, port).await?;
                exchange(&mut stream, true).await
            }
        })
        .await
    })
}

/// A connection, handshake done.
///
/// # Errors
/// When it cannot be made.
pub async fn connect(connector: &TlsConnector, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("server.bench").map_err(std::io::Error::other)?;
    connector.connect(name, tcp).await
}

/// What makes connections, with the client's certificate of `folder`.
///
/// # Errors
/// When a file is missing or wrong.
pub fn connector(folder: &Path, resume: bool) -> Result<TlsConnector, BenchError> {
    let bad = |what: &str| {
        let what = what.to_owned();
        move |error: rustls::pki_types::pem::Error| BenchError::Void(format!("{what}: {error}"))
    };
    let file = |name: &str| folder.join(name);
    let root = CertificateDer::from_pem_file(file("ca.crt")).map_err(bad("ca.crt"))?;
    let chain = CertificateDer::from_pem_file(file("client.crt")).map_err(bad("client.crt"))?;
    let key = PrivateKeyDer::from_pem_file(file("client.key")).map_err(bad("client.key"))?;
    let tls = |error: rustls::Error| BenchError::Void(error.to_string());
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(tls)?;
    let verifier = Spiffe(
        rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::new(provider.clone()),
        )
        .build()
        .map_err(|error| BenchError::Void(error.to_string()))?,
    );
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(vec![chain], key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if !resume {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Certificates name a SPIFFE id and no host: the chain is checked, the name is not.
#[derive(Debug)]
struct Spiffe(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for Spiffe {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        use rustls::CertificateError as E;
        match self.0.verify_server_cert(leaf, chain, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                E::NotValidForName | E::NotValidForNameContext { .. },
            )) => Ok(rustls::client::danger::ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
