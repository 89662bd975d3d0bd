//! Inputs: a corpus of files, mutated.

use std::path::Path;

use crate::{frames, hex};

/// What is spliced into inputs: where parsers decide, and paths that the policy denies.
const WORDS: [&[u8]; 56] = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b":",
    b" ",
    b"\t",
    b"\"",
    b"\x1b[31m",
    "\u{202e}".as_bytes(),
    b"\xff\xfe",
    b"%2e%2e/",
    b"%2f",
    b"%5c",
    b"\\",
    b"//",
    b";a=b",
    b"#",
    b"?",
    b"/admin",
    b"/%61dmin",
    b"/x/..;/admin",
    b"/x/../admin",
    b"GET /admin HTTP/1.1\r\nHost: shop\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"0\r\n\r\n",
    b"Content-Type: application/grpc\r\n",
    b"grpc-status: 0\r\n",
    b"grpc-timeout: 1m\r\n",
    b"Connection: close, x\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"x-forwarded-for: 1.2.3.4\r\n",
    b"x-forwarded-client-cert: URI=spiffe://a/b\r\n",
    b"X_Forwarded_Client_Cert: URI=spiffe://a/b\r\n",
    b"x-forwarded-client-cert: By=a;URI=\"spiffe://a/b,c\",Hash=d\r\n",
    b"x-anyam-header-case: X-Own,x-own,,Host\r\n",
    b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    b"tracestate: a=b,c=d\r\n",
    b"x-b3-traceid: 463ac35c9f6413ad48485a3953bb6124\r\n",
    b"x-b3-spanid: a2fb4a1d1a96d312\r\n",
    b"x-b3-sampled: 1\r\n",
    b"x-b3-flags: 1\r\n",
    b"b3: 463ac35c9f6413ad-a2fb4a1d1a96d312-1\r\n",
    b"x-envoy-retry-on: 5xx\r\n",
    b"Origin: http://shop\r\n",
    b"HTTP/1.0",
    b"Accept-Encoding: br\r\n",
    b"Accept-Encoding: gzip;q=0.5, zstd\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n",
    b"Content-Encoding: zstd\r\n",
];

/// Whether a corpus holds HTTP/2 frames, whose structure the mutations know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Bytes,
    Frames,
}

/// Inputs of one kind.
pub struct Corpus {
    pub name: &'static str,
    shape: Shape,
    files: Vec<Vec<u8>>,
}

impl Corpus {
    pub fn read(name: &'static str, shape: Shape) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("fuzz/corpus").join(name);
        let entries = std::fs::read_dir(&folder).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let read = |path: &std::path::PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            match path.extension().is_some_and(|ending| ending == "hex") {
                true => hex::from_text(std::str::from_utf8(&bytes).unwrap()),
                false => bytes,
            }
        };
        let files: Vec<_> = paths.iter().map(read).collect();
        assert!(!files.is_empty(), "{}", folder.display());
        Self { name, shape, files }
    }

    /// Inputs as they are in the corpus.
    pub fn files(&self) -> &[Vec<u8>] {
        &self.files
    }

    /// An input that is made of one of them.
    pub fn mutated(&self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.files[rng.usize(..self.files.len())].clone();
        if self.shape == Shape::Frames && rng.u8(..) < 192 {
            bytes = frames::mutated(&bytes, rng);
        }
        for _ in 0..rng.usize(0..4) {
            self.mutate(&mut bytes, rng);
        }
        bytes
    }

    fn mutate(&self, bytes: &mut Vec<u8>, rng: &mut fastrand::Rng) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..16)).min(bytes.len());
        match rng.u8(0..8) {
            0 if at < bytes.len() => bytes[at] = rng.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &self.files[rng.usize(..self.files.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
            }
            5 if rng.u8(..) < 16 => {
                bytes.splice(at..at, std::iter::repeat_n(b'x', 70 << 10));
            }
            _ => {
                bytes.splice(at..at, WORDS[rng.usize(..WORDS.len())].iter().copied());
            }
        }
    }
}
