//! The CA with every kind of request, valid or not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
    SanType, SignatureAlgorithm,
};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::{Authority, Lifetimes, SignError};
use super::csr::{CsrError, validate};
use super::token::{TokenError, Tokens};
use super::used::{UseError, Used};
use super::{CaError, private};
use crate::identity::{Identity, VerifiedPeer};
use crate::identity::{is_shortened, subject_name};

const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";

fn web() -> Identity {
    Identity::parse(WEB).unwrap()
}

fn authority(directory: &std::path::Path) -> Authority {
    Authority::open(&directory.join("ca"), "mesh.local", Lifetimes::default()).unwrap()
}

fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
    params.subject_alt_names = uris.iter().map(uri).collect();
    params
}

fn request(params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> String {
    let key = match algorithm == &PKCS_RSA_SHA256 {
        true => KeyPair::generate_rsa_for(algorithm, RsaKeySize::_2048).unwrap(),
        false => KeyPair::generate_for(algorithm).unwrap(),
    };
    params.serialize_request(&key).unwrap().pem().unwrap()
}

#[test]
fn what_is_issued_is_an_svid_and_nothing_more() {
    let state = tempfile::tempdir().unwrap();
    let authority = authority(state.path());
    for algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
    ] {
        let csr = request(&params(&[WEB]), algorithm);
        let issued = authority
            .sign_request(&csr, &web(), "web-0", Duration::ZERO)
            .unwrap();
        let (_, leaf) = X509Certificate::from_der(&issued.certificate).unwrap();
        leaf.verify_signature(Some(
            X509Certificate::from_der(authority.root())
                .unwrap()
                .1
                .public_key(),
        ))
        .unwrap();
        let peer = VerifiedPeer::from_certificate(&issued.certificate).unwrap();
        assert_eq!((peer.identity, &*peer.workload), (web(), "web-0"));
        assert_eq!(peer.serial, issued.serial);
        assert!(!leaf.is_ca());
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.key_encipherment());
        let extended = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && extended.server_auth && !extended.any);
        let validity = leaf.validity();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        assert!(
            validity.not_before.timestamp() <= now - 50,
            "a clock behind ours"
        );
        let left = validity.not_after.timestamp() - now;
        assert!(
            (24 * 3600 - 60..=24 * 3600).contains(&left),
            "{left} seconds"
        );
        assert_eq!(issued.chain.len(), 2);
        assert_eq!(issued.chain[1], authority.root_pem());
    }
}

#[test]
fn a_lifetime_may_be_shorter_than_the_default_and_not_longer_than_the_bound() {
    let state = tempfile::tempdir().unwrap();
    let authority = authority(state.path());
    let csr = request(&params(&[WEB]), &PKCS_ECDSA_P256_SHA256);
    for (asked, given) in [(3600, 3600), (1, 10), (u64::from(u32::MAX), 24 * 3600)] {
        let issued = authority
            .sign_request(&csr, &web(), "web-0", Duration::from_secs(asked))
            .unwrap();
        let left = (issued.not_after - OffsetDateTime::now_utc()).whole_seconds();
        assert!(
            (given - 2..=given).contains(&left),
            "asked {asked}, given {left}"
        );
    }
}

#[test]
fn requests_for_more_than_the_identity_are_refused() {
    let p256 = &PKCS_ECDSA_P256_SHA256;
    let other = "spiffe://mesh.local/ns/shop/sa/admin";
    let refused =
        |params: &CertificateParams| validate(&request(params, p256), &web()).unwrap_err();

    assert!(matches!(
        refused(&params(&[other])),
        CsrError::Identity { .. }
    ));
    assert!(matches!(refused(&params(&[])), CsrError::Names(_)));
    assert!(matches!(
        refused(&params(&[WEB, other])),
        CsrError::Names(_)
    ));
    assert!(matches!(refused(&params(&[WEB, WEB])), CsrError::Names(_)));
    for spelling in [
        "spiffe://mesh.local/ns/shop/sa/web/",
        "spiffe://MESH.local/ns/shop/sa/web",
    ] {
        assert!(matches!(
            refused(&params(&[spelling])),
            CsrError::Identity { .. }
        ));
    }
    let mut dns = params(&[WEB]);
    dns.subject_alt_names
        .push(SanType::DnsName("web.shop".try_into().unwrap()));
    assert!(matches!(refused(&dns), CsrError::Names(_)));
    let mut look_alike = params(&[]);
    look_alike.subject_alt_names = vec![SanType::DnsName(WEB.try_into().unwrap())];
    assert!(matches!(refused(&look_alike), CsrError::Names(_)));

    let mut authority = params(&[WEB]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(refused(&authority), CsrError::Authority);
    let mut signer = params(&[WEB]);
    signer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert_eq!(refused(&signer), CsrError::Authority);
}

#[test]
fn weak_and_unknown_keys_are_refused() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P521_SHA512] {
        let error = validate(&request(&params(&[WEB]), algorithm), &web()).unwrap_err();
        assert!(matches!(error, CsrError::Key(_)), "{error}");
    }
    // An RSA key of 1024 bits, as `openssl req -newkey rsa:1024 -addext subjectAltName=URI:…` makes it.
    let weak = include_str!("testdata/rsa1024.csr");
    assert_eq!(
        validate(weak, &web()),
        Err(CsrError::Key("RSA of 1024 bits".into()))
    );
    let sha1 = include_str!("testdata/sha1.csr");
    assert!(matches!(
        validate(sha1, &web()),
        Err(CsrError::Algorithm(_))
    ));
}

#[test]
fn forged_and_broken_requests_are_refused() {
    let good = request(&params(&[WEB]), &PKCS_ECDSA_P256_SHA256);
    let (_, block) = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap();
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let whole = pem("CERTIFICATE REQUEST", &block.contents);
    let key = validate(&whole, &web()).unwrap();
    let mut forged = block.contents.clone();
    *forged.last_mut().unwrap() ^= 1;
    let forged = pem("CERTIFICATE REQUEST", &forged);
    assert_eq!(validate(&forged, &web()), Err(CsrError::Signature));
    assert_eq!(
        validate(&pem("CERTIFICATE", &block.contents), &web()),
        Err(CsrError::Malformed)
    );
    assert_eq!(
        validate(&format!("{good}{good}"), &web()),
        Err(CsrError::Malformed)
    );
    let mut longer = block.contents.clone();
    longer.push(0);
    assert_eq!(
        validate(&pem("CERTIFICATE REQUEST", &longer), &web()),
        Err(CsrError::Malformed)
    );
    assert_eq!(
        validate(&"x".repeat(100_000), &web()),
        Err(CsrError::Malformed)
    );
    // Cut anywhere and changed anywhere: never another key.
    for at in 0..block.contents.len() {
        assert!(validate(&pem("CERTIFICATE REQUEST", &block.contents[..at]), &web()).is_err());
        let mut changed = block.contents.clone();
        changed[at] ^= 0x20;
        // The outermost header is not signed; what it frames is.
        if let Ok(found) = validate(&pem("CERTIFICATE REQUEST", &changed), &web()) {
            assert!(found == key, "byte {at}");
        }
    }
}

#[test]
fn the_root_is_kept_private_and_found_again() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let first = authority(state.path());
    let mode = |path: &str| fs::metadata(directory.join(path)).unwrap().mode() & 0o777;
    assert_eq!(
        (mode("."), mode("root.key"), mode("root.crt")),
        (0o700, 0o600, 0o600)
    );
    assert_eq!(authority(state.path()).root_hash(), first.root_hash());

    let open = |domain: &str| Authority::open(&directory, domain, Lifetimes::default());
    let loosen = |path: &str, mode: u32| {
        let path = directory.join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    loosen("root.key", 0o640);
    let error = open("mesh.local").err().unwrap();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    loosen("root.key", 0o600);
    loosen(".", 0o755);
    assert!(matches!(
        open("mesh.local"),
        Err(CaError::Loose { wanted: 0o700, .. })
    ));
    loosen(".", 0o700);

    assert!(matches!(open("other.local"), Err(CaError::Damaged { .. })));
    assert!(matches!(open("Not A Domain"), Err(CaError::TrustDomain(_))));
    let key = fs::read(directory.join("root.key")).unwrap();
    fs::remove_file(directory.join("root.key")).unwrap();
    assert!(
        matches!(open("mesh.local"), Err(CaError::Damaged { .. })),
        "no new key in silence"
    );
    private::write(&directory.join("root.key"), &key[..20]).unwrap();
    assert!(matches!(open("mesh.local"), Err(CaError::Damaged { .. })));
    let other = KeyPair::generate().unwrap().serialize_pem();
    private::write(&directory.join("root.key"), other.as_bytes()).unwrap();
    assert!(matches!(open("mesh.local"), Err(CaError::Damaged { .. })));
}

#[test]
fn a_token_is_good_for_its_workload_its_mesh_and_its_time() {
    let state = tempfile::tempdir().unwrap();
    let tokens = Tokens::open(state.path(), "mesh.local", "hash").unwrap();
    let mint = |seconds| {
        let lifetime = Duration::from_secs(seconds);
        tokens
            .mint(("shop", "web-0"), "web", 1000, lifetime)
            .unwrap()
    };
    let token = mint(600);
    let claims = tokens.check(&token, 1599).unwrap();
    assert_eq!(claims.identity(), web());
    assert_eq!(
        (&*claims.workload, claims.exp, &*claims.ca_hash),
        ("web-0", 1600, "hash")
    );
    assert_eq!(tokens.check(&token, 1600), Err(TokenError::Expired));
    let capped = tokens.check(&mint(u64::from(u32::MAX)), 1000).unwrap();
    assert_eq!(capped.exp, 1000 + 24 * 3600);

    let again = Tokens::open(state.path(), "mesh.local", "hash").unwrap();
    assert!(again.check(&token, 1000).is_ok(), "a restart keeps the key");
    let other_root = Tokens::open(state.path(), "mesh.local", "other").unwrap();
    assert_eq!(other_root.check(&token, 1000), Err(TokenError::Audience));
    let other_domain = Tokens::open(state.path(), "other.local", "hash").unwrap();
    assert_eq!(other_domain.check(&token, 1000), Err(TokenError::Audience));
    let other = tempfile::tempdir().unwrap();
    let other = Tokens::open(other.path(), "mesh.local", "hash").unwrap();
    assert_eq!(other.check(&token, 1000), Err(TokenError::Signature));
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] ^= 1;
        let changed = String::from_utf8_lossy(&changed).into_owned();
        let error = tokens.check(&changed, 1000).unwrap_err();
        assert!(
            matches!(error, TokenError::Malformed | TokenError::Signature),
            "byte {at}"
        );
        assert!(tokens.check(&token[..at], 1000).is_err());
    }
}

#[test]
fn a_token_is_good_once_also_after_a_restart_and_what_is_remembered_is_bounded() {
    let state = tempfile::tempdir().unwrap();
    let mut used = Used::open(state.path(), 0, 3).unwrap();
    used.use_up("a", 100, 0).unwrap();
    assert!(matches!(used.use_up("a", 100, 0), Err(UseError::Used)));
    drop(used);
    let mut used = Used::open(state.path(), 0, 3).unwrap();
    assert!(matches!(used.use_up("a", 100, 0), Err(UseError::Used)));
    used.use_up("b", 200, 0).unwrap();
    used.use_up("c", 200, 0).unwrap();
    assert!(matches!(used.use_up("d", 200, 50), Err(UseError::Full)));
    used.use_up("d", 200, 150).unwrap();
    let lines = fs::read_to_string(state.path().join("used-join-tokens")).unwrap();
    assert_eq!(
        lines.lines().count(),
        3,
        "expired ids are forgotten: {lines}"
    );
}

#[test]
fn signing_says_what_is_wrong_with_a_request() {
    let state = tempfile::tempdir().unwrap();
    let authority = authority(state.path());
    let csr = request(
        &params(&["spiffe://mesh.local/ns/shop/sa/admin"]),
        &PKCS_ECDSA_P256_SHA256,
    );
    let error = authority
        .sign_request(&csr, &web(), "web-0", Duration::ZERO)
        .unwrap_err();
    assert!(matches!(error, SignError::Csr(_)));
    let text = error.to_string();
    assert!(
        text.contains("sa/admin") && text.contains("sa/web"),
        "{text}"
    );
}

#[test]
fn long_workload_names_keep_apart_in_the_subject() {
    let long = |end: &str| format!("{}-{end}", "w".repeat(100));
    assert_eq!(subject_name("web-0"), "web-0");
    assert!(subject_name(&long("a")).len() <= 64);
    assert_ne!(subject_name(&long("a")), subject_name(&long("b")));
    assert!(is_shortened(&subject_name(&long("a"))) && !is_shortened("web-0"));
}

/// A disk that was full in the middle of a line.
#[test]
fn a_token_used_after_a_torn_line_stays_used_over_a_restart() {
    use std::io::Write;

    let state = tempfile::tempdir().unwrap();
    let mut used = Used::open(state.path(), 0, 10).unwrap();
    used.use_up("first", 100, 0).unwrap();
    let path = state.path().join("used-join-tokens");
    for torn in [
        "\n",
        "\n1",
        "\n100",
        "\n100 ",
        "\n100 secon",
        "\n100 second",
    ] {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(torn.as_bytes()).unwrap();
        let id = format!("after {torn:?}");
        used.use_up(&id, 100, 0).unwrap();
        let mut again = Used::open(state.path(), 0, 10).unwrap();
        for id in [&*id, "first"] {
            let refused = again.use_up(id, 100, 0);
            assert!(matches!(refused, Err(UseError::Used)), "{id}");
        }
        used = again;
    }
}
