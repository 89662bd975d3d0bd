//! A self-signed certificate that is itself trusted, and the words for those that are not; a bundle
//! that changes under many connections.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use crate::hostile_certificates::{Ends, handshake};
use crate::support::pki::{Ca, client, dns, server, uri};
use crate::support::run;
use crate::tls::{connected, handshaker};
use anyam_proxy::tls::{ClientContext, Identity, ServerContext, TlsError, TrustBundle};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls_pki_types::PrivateKeyDer;

/// A certificate that has signed itself: PEM, and as an identity.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (String, Arc<Identity>) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://mesh.local/ns/shop/sa/cart"), dns("app.test")];
    params
        .distinguished_name
        .push(DnType::CommonName, "app.test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let identity = Identity::from_der(vec![certificate.der().clone()], key).unwrap();
    (certificate.pem(), Arc::new(identity))
}

/// Server and client show the same certificate.
async fn both_show(shown: &Arc<Identity>, trust: TrustBundle) -> Ends {
    let trust = Arc::new(trust);
    let server = ServerContext::new(server(shown.clone(), Some(trust.clone())));
    let client = ClientContext::new(client(Some(shown.clone()), trust));
    handshake(&server, &client).await
}

fn trusting(pem: &str) -> TrustBundle {
    TrustBundle::from_pem(pem.as_bytes(), None).unwrap()
}

fn refused(ends: Ends) -> TlsError {
    let error = ends.0.err().unwrap();
    assert!(error.peer_was_refused(), "{error}");
    error
}

#[test]
fn a_trusted_certificate_may_be_its_own_ca() {
    run(async {
        for ca in [IsCa::Ca(BasicConstraints::Unconstrained), IsCa::NoCa] {
            let (pem, shown) = self_signed(|params| params.is_ca = ca);
            let (there, here) = both_show(&shown, trusting(&pem)).await;
            assert!(there.unwrap().info().peer_verified, "{ca:?}");
            assert!(here.unwrap().info().peer_verified, "{ca:?}");
        }
    });
}

#[test]
fn trusted_leaves_must_be_valid_and_for_the_role() {
    run(async {
        let now = time::OffsetDateTime::now_utc();
        let cases: [fn(&mut CertificateParams, time::OffsetDateTime); 3] = [
            |params, now| params.not_after = now - time::Duration::minutes(1),
            |params, now| params.not_before = now + time::Duration::hours(1),
            |params, _| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        ];
        for (place, case) in cases.into_iter().enumerate() {
            let (pem, shown) = self_signed(|params| case(params, now));
            let error = refused(both_show(&shown, trusting(&pem)).await);
            assert!(!error.to_string().contains("CA"), "{place}: {error}");
        }
        // A workload of a trust domain is never its CA.
        let (pem, shown) = self_signed(|_| {});
        let domain = [("mesh.local", pem.as_bytes())];
        let bundle = TrustBundle::from_trust_domains(domain, None).unwrap();
        refused(both_show(&shown, bundle).await);
    });
}

#[test]
fn errors_name_the_certificate_the_reason_and_the_remedy() {
    run(async {
        let ca = Ca::new();
        let (_, own) = self_signed(|_| {});
        let of_another_ca = Ca::new().issue_with(vec![], |params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "app.test");
        });
        let of_another_ca = of_another_ca.identity();
        let below = ca.issue_with(vec![dns("app.test")], |params| {
            params.distinguished_name = DistinguishedName::new();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        for (shown, words) in [
            (
                own,
                "it is self-signed and not trusted itself: add this very certificate",
            ),
            (of_another_ca, "which is not among the trusted CAs: add it"),
            (
                below.identity(),
                "the peer needs a certificate of its own with CA:FALSE",
            ),
        ] {
            let error = refused(both_show(&shown, trusting(&ca.pem())).await).to_string();
            assert!(error.contains(words), "{error}");
            assert!(error.contains("app.test"), "{error}");
        }
    });
}

pub fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command
        .args(arguments.split(' '))
        .current_dir(folder)
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
}

#[test]
fn material_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let new = "req -newkey rsa:2048 -nodes -subj /CN=app -keyout key.pem";
    openssl(folder, &format!("{new} -x509 -out cert.pem"));
    openssl(folder, &format!("{new} -out one.csr -keyout one.key"));
    openssl(
        folder,
        "x509 -req -in one.csr -signkey one.key -out one.pem",
    );
    let weak = "req -x509 -newkey rsa:1024 -nodes -subj /CN=app -keyout weak.key -out weak.pem";
    openssl(folder, weak);
    openssl(
        folder,
        "pkcs8 -topk8 -in key.pem -out pkcs8.key -passout pass:test",
    );
    let old = "rsa -in key.pem -aes128 -traditional -out old.key -passout pass:test";
    openssl(folder, old);
    for (chain, key, words) in [
        (
            "cert.pem",
            "pkcs8.key",
            "encrypted: write it without a passphrase",
        ),
        (
            "cert.pem",
            "old.key",
            "encrypted: write it without a passphrase",
        ),
        ("one.pem", "one.key", "X.509 version 1"),
        ("weak.pem", "weak.key", "RSA key has 1024 bits"),
    ] {
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let error = Identity::from_pem(&read(chain), &read(key)).unwrap_err();
        assert!(error.to_string().contains(words), "{key}: {error}");
    }
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    Identity::from_pem(&read("cert.pem"), &read("key.pem")).unwrap();
}

/// How often other tasks run while a new bundle is applied to 40 connections whose peers show this
/// many certificates in turn.
async fn turns_while_reverified(certificates: usize) -> usize {
    let ca = Ca::new();
    let server_id = ca.issue(vec![uri("spiffe://td/ns/a/sa/s")]).identity();
    let options = server(server_id, Some(ca.bundle()));
    let trust = options.trust.clone().unwrap();
    let server = ServerContext::new(options);
    let (handshaker, _) = handshaker();
    let issue = || ca.issue(vec![uri("spiffe://td/ns/a/sa/c")]).identity();
    let peers: Vec<_> = std::iter::repeat_with(issue).take(certificates).collect();
    let mut open = Vec::new();
    for peer in peers.iter().cycle().take(40) {
        let client = ClientContext::new(client(Some(peer.clone()), ca.bundle()));
        open.push(connected(&handshaker, &server, &client).await);
    }
    let turns = Rc::new(Cell::new(0));
    let count = turns.clone();
    let other = tokio::task::spawn_local(async move {
        loop {
            count.set(count.get() + 1);
            tokio::task::yield_now().await;
        }
    });
    trust.set(ca.bundle());
    assert_eq!(handshaker.reverify().await, 0);
    other.abort();
    turns.get()
}

/// The worker's other tasks go on meanwhile: a verification costs as much as many requests.
#[test]
fn a_new_bundle_is_applied_in_slices() {
    run(async {
        let turns = turns_while_reverified(40).await;
        assert!(turns >= 4, "other tasks had {turns} turns");
    });
}

/// One verification costs less than a slice.
#[test]
fn a_certificate_of_many_connections_is_verified_once() {
    run(async { assert_eq!(turns_while_reverified(1).await, 0) });
}
