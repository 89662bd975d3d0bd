//! HTTP/2 frames (RFC 9113 4.1), as far as a caller must know them to wait for its answers.

use std::collections::BTreeSet;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        bytes = rest.get(usize::try_from(length).ok()?..)?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        })
    })
}

/// The streams of whole requests without a body in what a client sends, and that it does not reset.
pub fn asked(bytes: &[u8]) -> BTreeSet<u32> {
    let mut streams = BTreeSet::new();
    let sent = bytes.strip_prefix(PREFACE).unwrap_or_default();
    for frame in frames(sent) {
        match frame.kind {
            HEADERS if frame.flags & END_STREAM != 0 => drop(streams.insert(frame.stream)),
            RST_STREAM => drop(streams.remove(&frame.stream)),
            _ => {}
        }
    }
    streams
}

/// Whether each of these has a response's head or a reset in what a server sends, or it ends the
/// connection.
pub fn are_answered(streams: &BTreeSet<u32>, bytes: &[u8]) -> bool {
    let mut open = streams.clone();
    for frame in frames(bytes) {
        match frame.kind {
            HEADERS | RST_STREAM => drop(open.remove(&frame.stream)),
            GOAWAY => return true,
            _ => {}
        }
    }
    open.is_empty()
}
