//! Certificates for tests: good ones, and every kind of bad one.

use std::sync::Arc;

use anyam_proxy::tls::{
    ClientContext, ClientOptions, Identity, PeerRules, Rotating, ServerContext, ServerOptions,
    TrustBundle, Versions,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

pub struct Ca {
    pub issuer: CertifiedIssuer<'static, KeyPair>,
}

pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
}

impl Issued {
    pub fn identity(&self) -> Arc<Identity> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        Arc::new(Identity::from_der(self.chain.clone(), key).unwrap())
    }
}

pub fn uri(value: &str) -> SanType {
    SanType::URI(value.try_into().unwrap())
}

pub fn dns(value: &str) -> SanType {
    SanType::DnsName(value.try_into().unwrap())
}

impl Ca {
    pub fn new() -> Self {
        Ca {
            issuer: CertifiedIssuer::self_signed(ca_params(), KeyPair::generate().unwrap())
                .unwrap(),
        }
    }

    /// A CA below this one.
    pub fn intermediate(&self) -> Ca {
        let key = KeyPair::generate().unwrap();
        Ca {
            issuer: CertifiedIssuer::signed_by(ca_params(), key, &self.issuer).unwrap(),
        }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        Arc::new(TrustBundle::from_pem(self.pem().as_bytes(), None).unwrap())
    }

    pub fn issue(&self, sans: Vec<SanType>) -> Issued {
        self.issue_with(sans, |_| {})
    }

    pub fn issue_with(
        &self,
        sans: Vec<SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::hours(1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: vec![cert.der().clone()],
            key,
        }
    }

    pub fn revoke(&self, serials: &[u64]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now - time::Duration::minutes(1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::minutes(1),
            next_update: now + time::Duration::hours(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(
        rcgen::DnType::CommonName,
        format!("ca {:x}", fastrand_like()),
    );
    params
}

/// Different subjects for different CAs, so that paths are found by name.
fn fastrand_like() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn server(identity: Arc<Identity>, trust: Option<Arc<TrustBundle>>) -> ServerOptions {
    ServerOptions {
        identity: Rotating::new(Some(identity)),
        require_client_certificate: trust.is_some(),
        trust: trust.map(|trust| Rotating::new(Some(trust))),
        rules: PeerRules::default(),
        alpn: vec![b"anyam-h2".to_vec(), b"anyam-tcp".to_vec()],
        versions: Versions::TLS13_ONLY,
    }
}

pub fn client(identity: Option<Arc<Identity>>, trust: Arc<TrustBundle>) -> ClientOptions {
    ClientOptions {
        identity: identity.map(|identity| Rotating::new(Some(identity))),
        trust: Some(Rotating::new(Some(trust))),
        rules: PeerRules::default(),
        sni: None,
        alpn: vec![b"anyam-tcp".to_vec()],
        versions: Versions::TLS13_ONLY,
    }
}

/// Both ends of a mesh connection with the same root.
pub fn pair() -> (ServerContext, ClientContext) {
    let ca = Ca::new();
    let server_id = ca
        .issue(vec![uri("spiffe://mesh.local/ns/shop/sa/cart")])
        .identity();
    let client_id = ca
        .issue(vec![uri("spiffe://mesh.local/ns/shop/sa/front")])
        .identity();
    let server = ServerContext::new(server(server_id, Some(ca.bundle())));
    let client = ClientContext::new(client(Some(client_id), ca.bundle()));
    (server, client)
}
