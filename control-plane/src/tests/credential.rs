//! A workload's certificate, requested as its proxy does.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tonic::transport::Channel;
use tonic::{Request, Status};
use xds_proto::istio::v1::auth::IstioCertificateRequest;
use xds_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;

pub(crate) struct Client {
    key: Vec<u8>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Client {
    pub(crate) fn new(key: KeyPair, chain: &[String]) -> Self {
        let parse = |pem: &String| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Client {
            key: key.serialize_der(),
            chain: chain.iter().map(parse).collect(),
        }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

pub(crate) fn csr(uri: &str) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

pub(crate) async fn certificate(
    channel: Channel,
    csr: &str,
    token: Option<&str>,
) -> Result<Vec<String>, Status> {
    certificate_for(channel, csr, token, Duration::ZERO).await
}

/// `lifetime`: zero for the default.
pub(crate) async fn certificate_for(
    channel: Channel,
    csr: &str,
    token: Option<&str>,
    lifetime: Duration,
) -> Result<Vec<String>, Status> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr.into(),
        validity_duration: lifetime.as_secs().cast_signed(),
        ..Default::default()
    });
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    let answer = client.create_certificate(request).await?;
    Ok(answer.into_inner().cert_chain)
}
