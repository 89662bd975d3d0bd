//! Detection of a connection's protocol, and the ClientHello.

use anyam_proxy::listener::detect::{Look, MAX_LOOK, detect};
use anyam_proxy::policy::DetectedProtocol;
use anyam_proxy::tls::hello::{self, MAX_PROTOCOLS, Parsed};
use rustls::server::Acceptor;

use crate::inputs::{Corpus, Shape};
use crate::rounds::Rounds;

const ROUNDS: usize = 3000;
/// Prefixes of an input that are looked at.
const CUTS: usize = 32;

const ALL: Look = Look {
    tls: true,
    http: true,
};

/// What rustls reads of a ClientHello: name and protocols. `None`: it is none, or not whole.
fn of_rustls(mut bytes: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let name = hello.server_name().map(str::to_ascii_lowercase);
            let alpn = hello.alpn().into_iter().flatten();
            return Some((name, alpn.map(<[u8]>::to_vec).collect()));
        }
    }
    None
}

fn check(bytes: &[u8], rng: &mut fastrand::Rng) {
    let whole = detect(bytes, ALL);
    for _ in 0..CUTS {
        let early = detect(&bytes[..rng.usize(..=bytes.len())], ALL);
        assert!(
            early.is_none() || early == whole,
            "{early:?}, then {whole:?}"
        );
    }
    assert!(whole.is_some() || bytes.len() < MAX_LOOK);
    let parsed = hello::parse(bytes);
    if let Parsed::Hello(hello) = &parsed {
        let first = MAX_LOOK.min(bytes.len());
        if first == bytes.len() {
            assert_eq!(whole, Some(DetectedProtocol::Tls(hello.clone())));
        }
        if let Some(name) = &hello.sni {
            let plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte)
            };
            assert!(name.len() <= 255 && name.bytes().all(plain), "{name:?}");
        }
    }
    // Whatever TLS accepts is matched by what TLS sees.
    if let Some((name, alpn)) = of_rustls(bytes) {
        let Parsed::Hello(hello) = parsed else {
            panic!("rustls accepts it: {parsed:?}, {}", bytes.escape_ascii());
        };
        let protocols: Vec<_> = hello
            .alpn
            .iter()
            .map(|protocol| protocol.to_vec())
            .collect();
        assert_eq!(protocols, alpn[..alpn.len().min(MAX_PROTOCOLS)]);
        if name.is_some() {
            assert_eq!(hello.sni.as_deref(), name.as_deref());
        }
    }
}

#[test]
fn what_is_detected_is_what_tls_accepts_however_it_is_split() {
    let corpora = [
        Corpus::read("hellos", Shape::Bytes),
        Corpus::read("requests", Shape::Bytes),
    ];
    let mut rng = fastrand::Rng::with_seed(1);
    let files = corpora.iter().flat_map(Corpus::files);
    let mut accepted = 0;
    for bytes in files {
        check(bytes, &mut rng);
        accepted += usize::from(of_rustls(bytes).is_some());
    }
    assert!(accepted >= 4, "rustls accepts only {accepted}");
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let bytes = corpora[usize::from(rng.u8(..) < 64)].mutated(&mut rng);
        check(&bytes, &mut rng);
    }
}

/// The list is kept for as long as the connection, so its length is not the client's to choose.
#[test]
fn a_clienthello_with_thousands_of_protocols_is_kept_in_part() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = (0..4000).map(|n: u16| n.to_be_bytes().to_vec()).collect();
    let name = "shop".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    let Parsed::Hello(hello) = hello::parse(&bytes) else {
        panic!("{} bytes are not accepted", bytes.len());
    };
    let first: Vec<_> = (0..MAX_PROTOCOLS as u16).map(u16::to_be_bytes).collect();
    assert_eq!(hello.alpn.len(), first.len());
    assert!(hello.alpn.iter().zip(first).all(|(a, b)| **a == b));
}
