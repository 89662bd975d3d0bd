//! What is said of certificates that are refused: which one, why, and what helps.

use std::path::Path;
use std::sync::Arc;

use crate::hostile_certificates::{ID, Mesh, other_client_shows, other_server_shows};
use crate::support::pki::{Ca, Issued, client, server, uri};
use crate::support::run;
use crate::trusted::openssl;
use anyam_proxy::tls::{ClientContext, ServerContext, TrustBundle};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The subject of every peer here.
const NAME: &str = "CN=front.shop";
/// The serial number that the CA has revoked.
const REVOKED: u64 = 77;

/// CAs with keys of 2048 and of 1024 bits, the smaller one below the larger one; and leaves: of the
/// smaller one, self-signed with 1024 bits, and of version 1.
fn made_by_openssl(folder: &Path) {
    std::fs::write(folder.join("ca.cnf"), "basicConstraints=critical,CA:TRUE\n").unwrap();
    let leaf = format!("subjectAltName=URI:{ID}\nextendedKeyUsage=clientAuth,serverAuth\n");
    std::fs::write(folder.join("leaf.cnf"), leaf).unwrap();
    let request = |bits: u32, subject: &str, name: &str| {
        let new = format!("req -newkey rsa:{bits} -nodes -subj /CN={subject}");
        openssl(folder, &format!("{new} -keyout {name}.key -out {name}.csr"));
    };
    let own = |name: &str, extensions: &str| {
        let sign = format!("x509 -req -in {name}.csr -signkey {name}.key -out {name}.pem");
        openssl(folder, &format!("{sign}{extensions}"));
    };
    let below = |issuer: &str, name: &str, extensions: &str| {
        let sign = format!("x509 -req -in {name}.csr -CA {issuer}.pem -CAkey {issuer}.key");
        let sign = format!("{sign} -CAcreateserial -extfile {extensions} -out {name}.pem");
        openssl(folder, &sign);
    };
    request(2048, "root", "root");
    own("root", " -extfile ca.cnf");
    request(1024, "middle", "middle");
    below("root", "middle", "ca.cnf");
    request(2048, "front.shop", "leaf");
    below("middle", "leaf", "leaf.cnf");
    request(1024, "front.shop", "weak");
    own("weak", " -extfile leaf.cnf");
    request(2048, "front.shop", "old");
    own("old", "");
    request(2048, "old", "old-root");
    own("old-root", "");
}

/// Shown with a key that does not belong to it: the chain is verified first.
fn shown(folder: &Path, chain: &[&str]) -> Issued {
    let read = |name: &&str| CertificateDer::from_pem_file(folder.join(name)).unwrap();
    Issued {
        chain: chain.iter().map(read).collect(),
        key: KeyPair::generate().unwrap(),
    }
}

/// Trusts its own CA and the larger one of [`made_by_openssl`].
fn mesh(folder: &Path, revoked: &[u64]) -> Mesh {
    let ca = Ca::new();
    let root = std::fs::read_to_string(folder.join("root.pem")).unwrap();
    let roots = format!("{}{root}", ca.pem());
    let crl = (!revoked.is_empty()).then(|| ca.revoke(revoked));
    let crl = crl.as_ref().map(|crl| crl.as_bytes());
    let bundle = TrustBundle::from_pem(roots.as_bytes(), crl).unwrap();
    Mesh {
        ca,
        bundle: Arc::new(bundle),
    }
}

#[test]
fn every_refusal_names_the_certificate_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_by_openssl(folder);
    run(async {
        let (plain, revoking) = (mesh(folder, &[]), mesh(folder, &[REVOKED]));
        let issued = |mesh: &Mesh, change: fn(&mut CertificateParams)| {
            mesh.ca.issue_with(vec![uri(ID)], |params| {
                params
                    .distinguished_name
                    .push(DnType::CommonName, "front.shop");
                change(params);
            })
        };
        let expired: fn(&mut CertificateParams) =
            |p| p.not_after = p.not_before + time::Duration::minutes(1);
        let other_use: fn(&mut CertificateParams) =
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        let revoked = issued(&revoking, |p| p.serial_number = Some(REVOKED.into()));
        for (mesh, shown, words) in [
            (&plain, issued(&plain, expired), "ended on"),
            (&plain, issued(&plain, other_use), "extended key usage"),
            (&revoking, revoked, "it was revoked"),
            (&plain, shown(folder, &["old.pem"]), "X.509 version 1"),
            (
                &plain,
                shown(folder, &["weak.pem"]),
                "its RSA key has 1024 bits",
            ),
            (
                &plain,
                shown(folder, &["leaf.pem", "middle.pem"]),
                "the certificate \"CN=middle\" of its issuer cannot be used: its RSA key has 1024 bits",
            ),
        ] {
            for error in [
                other_client_shows(mesh, &shown).await.err(),
                other_server_shows(mesh, &shown).await.err(),
            ] {
                let error = error.unwrap();
                assert!(error.peer_was_refused(), "{error}");
                let error = error.to_string();
                assert!(error.contains(words), "{words}: {error}");
                let named = format!("the peer's certificate {NAME:?} is refused");
                assert!(error.contains(&named), "{error}");
            }
        }
    });
}

/// Where the subject is empty, as in a SPIFFE certificate, it is the SPIFFE id.
#[test]
fn a_certificate_without_a_subject_is_named_by_its_spiffe_id() {
    run(async {
        let (ca, other) = (Ca::new(), Ca::new());
        let server = server(ca.issue(vec![uri(ID)]).identity(), Some(ca.bundle()));
        let shown = other.issue_with(vec![uri(ID)], |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
        });
        let client = ClientContext::new(client(Some(shown.identity()), ca.bundle()));
        let server = ServerContext::new(server);
        let ends = crate::hostile_certificates::handshake(&server, &client).await;
        let error = ends.1.err().unwrap().to_string();
        assert!(error.contains(ID), "{error}");
    });
}

#[test]
fn roots_that_cannot_be_used_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made_by_openssl(folder);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let error = TrustBundle::from_pem(read("middle.pem").as_bytes(), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "certificate 0 of the trust bundle, \"CN=middle\": its RSA key has 1024 bits: make one of at \
         least 2048, or of ECDSA P-256"
    );
    // Beside another it is left out: it is no reason to have no peers at all.
    let roots = format!("{}{}", read("root.pem"), read("middle.pem"));
    TrustBundle::from_pem(roots.as_bytes(), None).unwrap();
    // What webpki accepts as a root of version 1 stays one.
    TrustBundle::from_pem(read("old-root.pem").as_bytes(), None).unwrap();
}
