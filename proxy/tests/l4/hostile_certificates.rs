//! Certificates and handshakes that a hostile peer will send: each is refused, on both sides.

use std::sync::Arc;

use crate::support::pki::{Ca, Issued, client, dns, server, uri};
use crate::support::{run, sockets};
use anyam_proxy::dispatcher::buffer::Pool;
use anyam_proxy::matcher::StringMatch;
use anyam_proxy::tls::{
    ClientContext, Dial, Handshaker, Identity, PeerRules, SanMatch, ServerContext, TlsError,
    TlsStream, TlsVersion, TrustBundle, Versions,
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType};
use tokio::io::AsyncReadExt;

pub const ID: &str = "spiffe://mesh.local/ns/shop/sa/front";

pub type Ends = (Result<TlsStream, TlsError>, Result<TlsStream, TlsError>);

/// (client's view, server's view)
pub async fn handshake(server: &ServerContext, client: &ClientContext) -> Ends {
    let handshaker = Handshaker::new(Pool::default(), 4);
    let (near, far) = sockets().await;
    let dial = Dial::default();
    tokio::join!(
        handshaker.connect(near, client, &dial),
        handshaker.accept(far, &[], server)
    )
}

pub struct Mesh {
    pub ca: Ca,
    pub bundle: Arc<TrustBundle>,
}

impl Mesh {
    fn new() -> Self {
        let ca = Ca::new();
        let bundle =
            TrustBundle::from_trust_domains([("mesh.local", ca.pem().as_bytes())], None).unwrap();
        Mesh {
            ca,
            bundle: Arc::new(bundle),
        }
    }

    fn good(&self) -> Arc<Identity> {
        self.ca.issue(vec![uri(ID)]).identity()
    }

    /// How a server sees a client with this certificate.
    async fn client_shows(&self, shown: Arc<Identity>) -> Result<TlsStream, TlsError> {
        let server = ServerContext::new(server(self.good(), Some(self.bundle.clone())));
        let client = ClientContext::new(client(Some(shown), self.bundle.clone()));
        handshake(&server, &client).await.1
    }

    /// How a client sees a server with this certificate.
    async fn server_shows(&self, shown: Arc<Identity>) -> Result<TlsStream, TlsError> {
        let server = ServerContext::new(server(shown, Some(self.bundle.clone())));
        let client = ClientContext::new(client(Some(self.good()), self.bundle.clone()));
        handshake(&server, &client).await.0
    }
}

fn hour() -> time::Duration {
    time::Duration::hours(1)
}

/// Certificates that each side must refuse, though this CA signed most of them.
fn hostile(mesh: &Mesh) -> Vec<(&'static str, Issued)> {
    let ca = &mesh.ca;
    let with = |sans: Vec<SanType>| ca.issue(sans);
    let changed = |change: fn(&mut rcgen::CertificateParams)| ca.issue_with(vec![uri(ID)], change);
    let other_ca = Ca::new();
    let mut long = ca.intermediate();
    let mut issuers = vec![long.issuer.der().clone()];
    for _ in 0..6 {
        long = long.intermediate();
        issuers.insert(0, long.issuer.der().clone());
    }
    let mut too_long = long.issue(vec![uri(ID)]);
    too_long.chain.extend(issuers);
    vec![
        ("no SAN", with(vec![])),
        ("only a DNS name", with(vec![dns("front.shop.svc")])),
        (
            "another trust domain",
            with(vec![uri("spiffe://evil.local/ns/shop/sa/front")]),
        ),
        (
            "trust domain as a prefix",
            with(vec![uri("spiffe://mesh.local.evil/ns/shop/sa/front")]),
        ),
        (
            "upper-case trust domain",
            with(vec![uri("spiffe://MESH.local/ns/shop/sa/front")]),
        ),
        (
            "not SPIFFE",
            with(vec![uri("https://mesh.local/ns/shop/sa/front")]),
        ),
        (
            "dot segments",
            with(vec![uri("spiffe://mesh.local/ns/shop/../sa/front")]),
        ),
        (
            "query",
            with(vec![uri("spiffe://mesh.local/ns/shop/sa/front?x")]),
        ),
        ("another issuer", other_ca.issue(vec![uri(ID)])),
        (
            "expired",
            changed(|p| p.not_after = p.not_before + time::Duration::minutes(1)),
        ),
        (
            "not yet valid",
            changed(|p| p.not_before = time::OffsetDateTime::now_utc() + hour() / 2),
        ),
        (
            "a CA as a leaf",
            changed(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        (
            "an EKU for something else",
            changed(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
        ),
        ("a chain too long", too_long),
    ]
}

#[test]
fn certificates_that_are_not_accepted() {
    run(async {
        let mesh = Mesh::new();
        assert!(mesh.client_shows(mesh.good()).await.is_ok());
        assert!(mesh.server_shows(mesh.good()).await.is_ok());
        for (what, shown) in hostile(&mesh) {
            let error = other_client_shows(&mesh, &shown).await.err();
            let error = error.unwrap_or_else(|| panic!("a client with {what} was believed"));
            assert!(error.peer_was_refused(), "client with {what}: {error}");
            let error = other_server_shows(&mesh, &shown).await.err();
            let error = error.unwrap_or_else(|| panic!("a server with {what} was believed"));
            assert!(error.peer_was_refused(), "server with {what}: {error}");
        }
    });
}

#[test]
fn names_made_to_be_read_in_two_ways() {
    run(async {
        let mesh = Mesh::new();
        let several = vec![uri(ID), uri("spiffe://mesh.local/ns/shop/sa/admin")];
        let fake_dns = SanType::DnsName("spiffe://mesh.local/ns/shop/sa/admin".try_into().unwrap());
        let nul = uri("spiffe://mesh.local/ns/shop/sa/front\0.evil");
        for (what, sans) in [
            ("several URIs", several),
            (
                "a DNS name that looks like a SPIFFE id",
                vec![uri(ID), fake_dns],
            ),
            ("NUL in the URI", vec![nul]),
            ("NUL in a DNS name", vec![uri(ID), dns("front\0.evil")]),
        ] {
            let issued = mesh.ca.issue(sans);
            let error = other_client_shows(&mesh, &issued).await;
            let error = error.err().unwrap_or_else(|| panic!("{what} was believed"));
            assert!(error.peer_was_refused(), "client with {what}: {error}");
            let error = other_server_shows(&mesh, &issued).await;
            let error = error.err().unwrap_or_else(|| panic!("{what} was believed"));
            assert!(error.peer_was_refused(), "server with {what}: {error}");
        }
        assert!(
            other_client_shows(&mesh, &mesh.ca.issue(vec![uri(ID)]))
                .await
                .is_ok()
        );
    });
}

fn certified(shown: &Issued) -> Arc<rustls::sign::SingleCertAndKey> {
    let key = rustls_pki_types::PrivateKeyDer::try_from(shown.key.serialize_der()).unwrap();
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(shown.chain.clone(), signer);
    Arc::new(certified.into())
}

/// Our server with a client of another TLS stack, which does not check its own certificate.
pub async fn other_client_shows(mesh: &Mesh, shown: &Issued) -> Result<TlsStream, TlsError> {
    let server = ServerContext::new(server(mesh.good(), Some(mesh.bundle.clone())));
    let base = ClientContext::new(client(None, mesh.bundle.clone()));
    let mut config = (*base.rustls_config().unwrap()).clone();
    config.client_auth_cert_resolver = certified(shown);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let handshaker = Handshaker::new(Pool::default(), 4);
    let (near, far) = sockets().await;
    let name = rustls_pki_types::ServerName::try_from("x").unwrap();
    let talk = async {
        if let Ok(mut stream) = connector.connect(name, near).await {
            let _ = stream.read(&mut [0]).await;
        }
    };
    let mut accepting = std::pin::pin!(handshaker.accept(far, &[], &server));
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        accepted = &mut accepting => accepted,
        () = &mut talk => accepting.await,
    }
}

/// How our client sees a server of another TLS stack.
pub async fn other_server_shows(mesh: &Mesh, shown: &Issued) -> Result<TlsStream, TlsError> {
    let client = ClientContext::new(client(Some(mesh.good()), mesh.bundle.clone()));
    let config = rustls::ServerConfig::builder_with_provider(anyam_proxy::tls::provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(certified(shown));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let handshaker = Handshaker::new(Pool::default(), 4);
    let (near, far) = sockets().await;
    let dial = Dial::default();
    let (connected, _) = tokio::join!(
        handshaker.connect(near, &client, &dial),
        acceptor.accept(far)
    );
    connected
}

#[test]
fn a_client_without_a_certificate_is_turned_away_where_one_is_required() {
    run(async {
        let mesh = Mesh::new();
        let mut options = server(mesh.good(), Some(mesh.bundle.clone()));
        let anonymous = ClientContext::new(client(None, mesh.bundle.clone()));
        let strict = ServerContext::new(options.clone());
        assert!(
            handshake(&strict, &anonymous)
                .await
                .1
                .err()
                .unwrap()
                .peer_was_refused()
        );
        options.require_client_certificate = false;
        let (_, here) = handshake(&ServerContext::new(options.clone()), &anonymous).await;
        let here = here.unwrap();
        assert!(here.info().peer.is_none() && !here.info().peer_verified);
        // An optional certificate is verified too.
        let untrusted = Ca::new().issue(vec![uri(ID)]).identity();
        let untrusted = ClientContext::new(client(Some(untrusted), mesh.bundle.clone()));
        assert!(
            handshake(&ServerContext::new(options), &untrusted)
                .await
                .1
                .is_err()
        );
    });
}

#[test]
fn the_servers_account_must_be_the_expected_one() {
    run(async {
        let mesh = Mesh::new();
        let server = ServerContext::new(server(mesh.good(), Some(mesh.bundle.clone())));
        let expects = |value: &str| {
            let value = StringMatch::Exact {
                value: value.into(),
                ignore_case: false,
            };
            let mut options = client(Some(mesh.good()), mesh.bundle.clone());
            options.rules = PeerRules {
                sans: vec![SanMatch::Uri(value)],
                ..PeerRules::default()
            };
            ClientContext::new(options)
        };
        assert!(handshake(&server, &expects(ID)).await.0.is_ok());
        for wrong in [
            &ID[..ID.len() - 1],
            "spiffe://mesh.local/ns/shop/sa/front2",
            "",
        ] {
            let refused = handshake(&server, &expects(wrong)).await.0;
            assert!(
                refused
                    .err()
                    .unwrap()
                    .to_string()
                    .contains("subject alternative name")
            );
        }
    });
}

#[test]
fn revocation_lists() {
    run(async {
        let ca = Ca::new();
        let numbered = |serial: u64| {
            ca.issue_with(vec![uri(ID)], |p| p.serial_number = Some(serial.into()))
                .identity()
        };
        let crl = ca.revoke(&[77]);
        let roots = ca.pem();
        let bundle = TrustBundle::from_pem(roots.as_bytes(), Some(crl.as_bytes())).unwrap();
        let bundle = Arc::new(bundle);
        let server = ServerContext::new(server(numbered(1), Some(bundle.clone())));
        let shows = |serial| ClientContext::new(client(Some(numbered(serial)), bundle.clone()));
        assert!(handshake(&server, &shows(78)).await.1.is_ok());
        let error = handshake(&server, &shows(77)).await.1.err().unwrap();
        assert!(error.to_string().contains("revoked"), "{error}");
        for junk in [
            &b""[..],
            b"junk",
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        ] {
            assert!(TrustBundle::from_pem(roots.as_bytes(), Some(junk)).is_err());
        }
    });
}

#[test]
fn old_versions_are_refused_where_only_the_new_one_is_allowed() {
    run(async {
        let mesh = Mesh::new();
        let server = ServerContext::new(server(mesh.good(), Some(mesh.bundle.clone())));
        let mut options = client(Some(mesh.good()), mesh.bundle.clone());
        options.versions = Versions {
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls12,
        };
        let (there, here) = handshake(&server, &ClientContext::new(options)).await;
        assert!(there.is_err() && here.is_err());
    });
}
