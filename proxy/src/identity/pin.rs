//! How the CA's certificate is verified. Before the first certificate: by the root whose hash is in
//! the join token, or by the roots in a file. Afterwards: by the roots received from the CA.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::Material;
use super::token::Token;
use crate::tls;

/// For the first certificate: no client certificate, the server's root pinned by its hash.
pub(super) fn by_hash(token: &Token) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(ByHash {
        hashes: token.ca_hashes.clone(),
    });
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(for_grpc(config))
}

/// For a renewal: the current certificate is the client certificate, the server is verified by the
/// bundle.
pub(super) fn by_bundle(material: &Material) -> Result<ClientConfig, String> {
    let roots = certificates(&material.roots)?;
    let chain = certificates(&material.chain)?;
    let key = PrivateKeyDer::from_pem_slice(material.key.as_bytes()).map_err(|e| e.to_string())?;
    let config = builder()
        .map_err(|e| e.to_string())?
        .with_root_certificates(store(&roots).map_err(|e| e.to_string())?)
        .with_client_auth_cert(chain, key)
        .map_err(|e| e.to_string())?;
    Ok(for_grpc(config))
}

/// SHA-256 of a certificate.
pub(super) fn hash(der: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    // The control plane is ours: no TLS version older than the mesh's own is needed.
    ClientConfig::builder_with_provider(tls::provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn for_grpc(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session must not outlive the trust it was verified with.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    Ok(store)
}

/// Trusts roots with these hashes; the server must send such a root in its chain.
#[derive(Debug)]
struct ByHash {
    hashes: Vec<[u8; 32]>,
}

impl ByHash {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates
            .iter()
            .find(|certificate| self.hashes.contains(&hash(certificate)))
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let roots = Arc::new(store(&[root.clone().into_owned()])?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, tls::provider().clone())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, &[], now)
    }
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, server_name, now)
            .inspect_err(|_| tls::refusal::note(end_entity))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(
            rustls::PeerIncompatible::Tls12NotOffered,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
