//! Replays the fuzzer's corpus, and every input of it cut in two at every byte.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

#[path = "../fuzz/exercise.rs"]
mod exercise;

use std::path::PathBuf;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 20,
        "{} inputs in {}",
        files.len(),
        folder.display()
    );
    files
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn requests() {
    for (path, bytes) in corpus("requests") {
        exercise::requests(&bytes);
        let whole = exercise::read_requests(&[&bytes]);
        for cut in 1..bytes.len() {
            let halves = exercise::read_requests(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(halves, whole, "{} cut at {cut}", path.display());
        }
    }
}

#[test]
fn responses() {
    for (path, bytes) in corpus("responses") {
        exercise::responses(&bytes);
        for request in exercise::REQUESTS {
            let whole = exercise::read_responses(request, &[&bytes]);
            for cut in 1..bytes.len() {
                let halves = exercise::read_responses(request, &[&bytes[..cut], &bytes[cut..]]);
                assert_eq!(halves, whole, "{} cut at {cut}", path.display());
            }
        }
    }
}
