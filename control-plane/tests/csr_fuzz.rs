//! Certificate requests, mutated: whatever is accepted is signed by the key that it names, for the one
//! identity that the caller has shown.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

#[path = "../../proxy/tests/shared/rounds.rs"]
mod rounds;

use anyam_control::ca::csr::validate;
use anyam_control::identity::Identity;
use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SignatureAlgorithm,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use self::rounds::Rounds;

const ROUNDS: usize = 20_000;
const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";
const ADMIN: &str = "spiffe://mesh.local/ns/shop/sa/admin";
const LABEL: &str = "CERTIFICATE REQUEST";

/// A request in DER.
struct Seed {
    der: Vec<u8>,
    is_good: bool,
}

fn request(uris: &[&str], is_ca: IsCa, algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uris = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()));
    params.subject_alt_names = uris.collect();
    params.is_ca = is_ca;
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn seeds() -> Vec<Seed> {
    let (p256, p384) = (&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384);
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let all = [
        (request(&[WEB], IsCa::NoCa, p256), true),
        (request(&[WEB], IsCa::NoCa, p384), true),
        (request(&[ADMIN], IsCa::NoCa, p256), false),
        (request(&[WEB, ADMIN], IsCa::NoCa, p256), false),
        (request(&[WEB], ca, p256), false),
        (request(&[], IsCa::NoCa, p256), false),
        (request(&[WEB], IsCa::NoCa, &PKCS_ED25519), false),
    ];
    all.map(|(der, is_good)| Seed { der, is_good }).into()
}

fn as_pem(der: &[u8]) -> String {
    pem::encode(&Pem::new(LABEL, der))
}

/// What is signed in a request: everything but the signature.
fn signed(der: &[u8]) -> &[u8] {
    let (_, request) = X509CertificationRequest::from_der(der).unwrap();
    request.certification_request_info.raw
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=bytes.len());
    let end = (at + rng.usize(..8)).min(bytes.len());
    match rng.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let from = rng.usize(..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.insert(at, rng.u8(..)),
    }
}

/// Bytes of another identity, of the same length, in the place of ours: the signature no longer holds.
fn renamed(der: &[u8]) -> Vec<u8> {
    let mut der = der.to_vec();
    if let Some(at) = der
        .windows(WEB.len())
        .position(|part| part == WEB.as_bytes())
    {
        der[at + WEB.len() - 3..at + WEB.len()].copy_from_slice(b"job");
    }
    der
}

#[test]
fn what_is_accepted_was_signed_as_it_is() {
    let seeds = seeds();
    let web = Identity::parse(WEB).unwrap();
    let job = Identity::parse(&WEB.replace("web", "job")).unwrap();
    let good: Vec<&[u8]> = seeds
        .iter()
        .filter(|seed| seed.is_good)
        .map(|seed| signed(&seed.der))
        .collect();
    for seed in &seeds {
        let validated = validate(&as_pem(&seed.der), &web);
        assert_eq!(validated.is_ok(), seed.is_good, "{validated:?}");
        assert!(validate(&as_pem(&renamed(&seed.der)), &job).is_err());
    }
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let mut der = seeds[rng.usize(..seeds.len())].der.clone();
        let other = &seeds[rng.usize(..seeds.len())].der;
        for _ in 0..rng.usize(..3) {
            mutate(&mut der, other, &mut rng);
        }
        let mut text = as_pem(&der).into_bytes();
        for _ in 0..rng.usize(..2) {
            mutate(&mut text, as_pem(other).as_bytes(), &mut rng);
        }
        let text = String::from_utf8_lossy(&text);
        let Ok(key) = validate(&text, &web) else {
            continue;
        };
        let der = parse_x509_pem(text.as_bytes()).unwrap().1.contents;
        assert!(good.contains(&signed(&der)), "{text}");
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        assert_eq!(key, request.certification_request_info.subject_pki.raw);
    }
}
