//! The call to the CA.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use xds_proto::istio::v1::auth::IstioCertificateRequest;
use xds_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;

use super::token::Token;
use super::{IdentitySettings, Material, csr, pin};
use crate::tls::SpiffeId;
use crate::xds::channel::{ChannelError, ManagementServer, TlsSettings};

/// The longest the CA may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// No CA sends more.
const MAX_RESPONSE: usize = 256 << 10;

/// Why there is no (new) certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    #[error("no CA at hand: {0}")]
    Channel(#[from] ChannelError),
    #[error("the CA refused ({}): {}", .0.code(), .0.message())]
    Refused(#[from] tonic::Status),
    #[error("no key or signing request: {0}")]
    Csr(#[from] rcgen::Error),
    #[error("TLS to the CA cannot be set up: {0}")]
    Tls(String),
    #[error("the CA's answer cannot be used: {0}")]
    Answer(String),
    #[error("the cluster of the CA has no TLS; certificates are asked for over TLS only")]
    Plaintext,
    #[error("the token cannot be presented: it has characters that a header may not have")]
    TokenText,
}

impl CaError {
    /// The CA rejected the credential: a retry with the same one is useless.
    pub(super) fn is_refusal(&self) -> bool {
        use tonic::Code::{PermissionDenied, Unauthenticated};
        matches!(self, CaError::Refused(status) if matches!(status.code(), PermissionDenied | Unauthenticated))
    }
}

/// The credential for the CA.
pub(super) enum Credential<'a> {
    Token(&'a Token),
    Certificate(&'a Material),
}

/// Requests a certificate for a new key.
pub(super) async fn create_certificate(
    target: &ManagementServer,
    settings: &IdentitySettings,
    credential: Credential<'_>,
) -> Result<Material, CaError> {
    let request = csr::request(&settings.spiffe_id)?;
    let channel = channel(target, &credential).await?;
    let mut message = tonic::Request::new(IstioCertificateRequest {
        csr: request.csr,
        validity_duration: settings
            .ttl
            .map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
        metadata: None,
    });
    message.set_timeout(TIMEOUT);
    if let Credential::Token(token) = &credential {
        let bearer = format!("Bearer {}", token.text);
        let value = bearer.parse().map_err(|_| CaError::TokenText)?;
        message.metadata_mut().insert("authorization", value);
    }
    let mut client =
        IstioCertificateServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let calling = client.create_certificate(message);
    let response = tokio::time::timeout(TIMEOUT, calling)
        .await
        .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer in time")))?;
    let chain = response.into_inner().cert_chain;
    let material = assemble(request.key, &chain)?;
    check(&material, &settings.spiffe_id, &credential)?;
    Ok(material)
}

async fn channel(
    target: &ManagementServer,
    credential: &Credential<'_>,
) -> Result<tonic::transport::Channel, CaError> {
    if !target.uses_tls() {
        return Err(CaError::Plaintext);
    }
    let config = match credential {
        Credential::Token(token) => pin::by_hash(token).map_err(|e| CaError::Tls(e.to_string()))?,
        Credential::Certificate(material) => pin::by_bundle(material).map_err(CaError::Tls)?,
    };
    let config = Arc::new(config);
    let name = target.server_name().to_owned();
    let server_name = ServerName::try_from(name.clone())
        .map_err(|_| CaError::Tls(format!("{name:?} is not a server name")))?;
    let target = target.with_tls(move || {
        Ok(TlsSettings {
            config: config.clone(),
            server_name: server_name.clone(),
        })
    });
    Ok(target.connect().await?)
}

/// The CA sends the leaf first and the root last; an entry may hold several PEM blocks.
fn assemble(key: String, chain: &[String]) -> Result<Material, CaError> {
    let mut blocks = Vec::new();
    for entry in chain {
        blocks.extend(pin::certificates(entry).map_err(CaError::Answer)?);
    }
    let Some((root, chain)) = blocks.split_last().filter(|(_, chain)| !chain.is_empty()) else {
        let why = format!(
            "{} certificates; a leaf and its root are needed",
            blocks.len()
        );
        return Err(CaError::Answer(why));
    };
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("CERTIFICATE", der));
    Ok(Material {
        key,
        chain: chain.iter().map(|der| pem(der)).collect(),
        roots: pem(root),
    })
}

/// Checks that the response fits the request.
fn check(material: &Material, id: &SpiffeId, credential: &Credential<'_>) -> Result<(), CaError> {
    let (identity, _) = material
        .parse(id.trust_domain())
        .map_err(|e| CaError::Answer(e.to_string()))?;
    if identity.spiffe_id() != Some(id) {
        let got = identity
            .spiffe_id()
            .map_or("no SPIFFE id", SpiffeId::as_str);
        let why = format!("the certificate is for {got}, not for {id}");
        return Err(CaError::Answer(why));
    }
    if let Credential::Token(token) = credential {
        let roots = pin::certificates(&material.roots).map_err(CaError::Answer)?;
        let known = roots
            .iter()
            .any(|root| token.ca_hashes.contains(&pin::hash(root)));
        if !known {
            let why = "its root is neither the token's nor in the file of roots".to_owned();
            return Err(CaError::Answer(why));
        }
    }
    Ok(())
}
