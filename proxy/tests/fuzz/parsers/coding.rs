//! Content codings: whatever is to be decoded, a step is bounded and makes progress, or it fails; what
//! is in order comes out as it was.

use std::io::Write;

use anyam_proxy::config::filter::{ContentCoding, DecompressionLibrary};
use anyam_proxy::http::filter::decoder::{Decoder, ROOM};

use crate::rounds::Rounds;

const ROUNDS: usize = 3_000;
const CODINGS: [ContentCoding; 3] = [
    ContentCoding::Gzip,
    ContentCoding::Brotli,
    ContentCoding::Zstd,
];

fn plain(rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut plain = Vec::new();
    for _ in 0..rng.usize(0..6) {
        let length = [3, 300, 40_000][rng.usize(..3)];
        match rng.bool() {
            true => plain.resize(plain.len() + rng.usize(..length), rng.u8(..)),
            false => plain.extend((0..rng.usize(..length)).map(|_| rng.u8(..))),
        }
    }
    plain
}

fn coded(plain: &[u8], coding: ContentCoding, rng: &mut fastrand::Rng) -> Vec<u8> {
    match coding {
        ContentCoding::Gzip => {
            let config = zlib_rs::DeflateConfig {
                window_bits: 15 + 16,
                ..zlib_rs::DeflateConfig::new(rng.i32(1..=9))
            };
            let mut deflate = zlib_rs::Deflate::new_with_config(config);
            let mut coded = vec![0; plain.len() + plain.len() / 8 + 1000];
            let status = deflate.compress(plain, &mut coded, zlib_rs::DeflateFlush::Finish);
            assert_eq!(status.unwrap(), zlib_rs::Status::StreamEnd);
            coded.truncate(deflate.total_out() as usize);
            coded
        }
        ContentCoding::Brotli => {
            let (quality, window) = (rng.u32(0..=6), rng.u32(10..=24));
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, quality, window);
            writer.write_all(plain).unwrap();
            writer.into_inner()
        }
        ContentCoding::Zstd => zstd::encode_all(plain, rng.i32(1..=6)).unwrap(),
    }
}

/// What comes out of it; `None`: it is not in the coding.
fn decode(coded: &[u8], coding: ContentCoding, rng: &mut fastrand::Rng) -> Option<(Vec<u8>, bool)> {
    let library = DecompressionLibrary {
        coding,
        window_bits: 15,
        max_ratio: 100,
    };
    let mut decoder = Decoder::new(&library).unwrap();
    let (mut all, mut rest) = (Vec::new(), coded);
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at(rng.usize(1..=rest.len()));
        rest = after;
        loop {
            let step = decoder.step(piece).ok()?;
            assert!(step.read <= piece.len() && step.output.len() <= ROOM);
            if step.read == 0 && step.output.is_empty() && !piece.is_empty() {
                return None;
            }
            piece = &piece[step.read..];
            all.extend_from_slice(&step.output);
            if piece.is_empty() && step.output.len() < ROOM {
                break;
            }
            // A few bytes may decode to gigabytes; the filter ends that by their ratio.
            if all.len() > 4 << 20 {
                return None;
            }
        }
    }
    Some((all, decoder.is_ended()))
}

#[test]
fn steps_are_bounded_and_bodies_in_order_come_out_whole() {
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let plain = plain(&mut rng);
        let coding = CODINGS[rng.usize(..CODINGS.len())];
        let mut coded = coded(&plain, coding, &mut rng);
        assert_eq!(
            decode(&coded, coding, &mut rng),
            Some((plain, true)),
            "{coding:?}"
        );
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..coded.len());
            match rng.u8(..3) {
                0 => coded[at] = rng.u8(..),
                1 => coded.truncate(at.max(1)),
                _ => coded.insert(at, rng.u8(..)),
            }
        }
        decode(&coded, coding, &mut rng);
    }
}
