//! JSON Web Tokens and key sets. A token verifies as it was signed, byte for byte, or not at all; a key
//! is for algorithms of its own type.

use anyam_proxy::jwt::{Jwks, JwksError, Jwt, SignatureAlgorithm};

use crate::inputs::{Corpus, Shape};
use crate::rounds::Rounds;

const ROUNDS: usize = 3000;
/// Tokens of the corpus that its keys verify.
const VALID: usize = 6;
/// See `Jwt`.
const LONGEST: usize = 64 << 10;

fn verifies(token: &[u8], keys: &Jwks) -> bool {
    Jwt::parse(token).is_ok_and(|token| token.verify(keys).is_ok())
}

fn keys_of(corpus: &Corpus) -> Vec<Jwks> {
    let parsed = corpus.files().iter().map(|text| Jwks::parse(text));
    parsed.filter_map(Result::ok).collect()
}

fn check_token(text: &[u8], rng: &mut fastrand::Rng) {
    let Ok(token) = Jwt::parse(text) else {
        return;
    };
    assert!(text.len() <= LONGEST);
    assert_eq!(text.iter().filter(|byte| **byte == b'.').count(), 2);
    let payload = token.payload_text().as_bytes();
    assert!(text.windows(payload.len()).any(|part| part == payload));
    assert!(token.audiences().all(|audience| audience.len() <= LONGEST));
    let (now, skew) = (rng.u64(..), rng.u64(..));
    let is_over = |at: u64| at.saturating_add(skew) < now;
    if token.check_time(now, skew).is_ok() {
        assert!(!token.expires.is_some_and(is_over));
    }
}

#[test]
fn no_mutation_of_a_token_verifies() {
    let tokens = Corpus::read("tokens", Shape::Bytes);
    let sets = keys_of(&Corpus::read("key_sets", Shape::Bytes));
    let is_valid = |text: &[u8]| sets.iter().any(|keys| verifies(text, keys));
    let valid: Vec<&Vec<u8>> = tokens
        .files()
        .iter()
        .filter(|text| is_valid(text))
        .collect();
    assert_eq!(valid.len(), VALID);
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let text = tokens.mutated(&mut rng);
        check_token(&text, &mut rng);
        assert!(
            !is_valid(&text) || valid.contains(&&text),
            "verifies: {:?}",
            String::from_utf8_lossy(&text)
        );
    }
}

#[test]
fn whatever_a_key_set_is_its_keys_verify_by_their_own_type() {
    let tokens = Corpus::read("tokens", Shape::Bytes);
    let corpus = Corpus::read("key_sets", Shape::Bytes);
    assert_eq!(keys_of(&corpus).len(), corpus.files().len() - 1);
    let (mut parsed, mut rounds) = (0, Rounds::new(ROUNDS));
    while let Some(mut rng) = rounds.next() {
        let text = corpus.mutated(&mut rng);
        let keys = match Jwks::parse(&text) {
            Ok(keys) => keys,
            Err(JwksError::TooLarge) => {
                assert!(text.len() > 1 << 20);
                continue;
            }
            Err(why) => {
                assert!(!why.to_string().is_empty());
                continue;
            }
        };
        parsed += 1;
        assert!(Jwks::parse(&text).is_ok_and(|again| again.is_same(&keys)));
        let has_secret = text.windows(5).any(|part| part == b"\"oct\"");
        for token in tokens.files() {
            let parsed = Jwt::parse(token).ok();
            let by_secret =
                parsed.is_some_and(|token| token.algorithm == SignatureAlgorithm::Hs256);
            assert!(has_secret || !by_secret || !verifies(token, &keys));
        }
    }
    assert!(parsed > 0, "no mutated key set was one");
}
