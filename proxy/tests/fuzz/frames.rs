//! HTTP/2 frames, taken apart and mutated one by one.

/// Of the client's connection preface (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head[..], payload].concat()
}

/// Whole frames; what is left at the end is a frame too.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while bytes.len() >= HEAD {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let (frame, rest) = bytes.split_at(bytes.len().min(HEAD + length));
        frames.push(frame.to_vec());
        bytes = rest;
    }
    if !bytes.is_empty() {
        frames.push(bytes.to_vec());
    }
    frames
}

/// Frames left out, repeated, exchanged, or with another type, flag, stream, length or payload.
pub fn mutated(bytes: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let (preface, rest) = match bytes.strip_prefix(PREFACE) {
        Some(rest) => (PREFACE, rest),
        None => (&[][..], bytes),
    };
    let mut frames = split(rest);
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..frames.len().max(1));
        match frames.get_mut(at) {
            None => frames.push(any(rng)),
            Some(frame) if frame.len() >= HEAD && rng.u8(..) < 160 => change(frame, rng),
            Some(frame) => match rng.u8(..4) {
                0 => drop(frames.remove(at)),
                1 => {
                    let copies = if rng.u8(..) < 16 { 300 } else { 1 };
                    let frame = frame.clone();
                    frames.splice(at..at, std::iter::repeat_n(frame, copies));
                }
                2 => {
                    let other = rng.usize(..frames.len());
                    frames.swap(at, other);
                }
                _ => frames.insert(at, any(rng)),
            },
        }
    }
    [preface, &frames.concat()].concat()
}

fn change(frame: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    match rng.u8(..6) {
        0 => frame[2] = frame[2].wrapping_add(rng.u8(..)),
        1 => frame[3] = rng.u8(..12),
        2 => frame[4] ^= 1 << rng.u8(..8),
        3 => frame[8] = rng.u8(..8),
        // A payload of another length, and a head that agrees with it.
        4 => {
            let payload = frame[HEAD..].iter().copied();
            let mut payload: Vec<u8> = payload.take(rng.usize(..=frame.len() - HEAD)).collect();
            let more = rng.usize(..8);
            payload.extend(std::iter::repeat_with(|| rng.u8(..)).take(more));
            let stream = u32::from(frame[8]);
            *frame = self::frame(frame[3], frame[4], stream, &payload);
        }
        _ if frame.len() > HEAD => {
            let at = rng.usize(HEAD..frame.len());
            frame[at] = rng.u8(..);
        }
        _ => frame.push(rng.u8(..)),
    }
}

/// A frame that is well formed, at any place.
fn any(rng: &mut fastrand::Rng) -> Vec<u8> {
    let stream = u32::from(rng.u8(..8));
    match rng.u8(..9) {
        HEADERS => frame(HEADERS, 5, stream, b"\x82\x86\x84\x41\x04shop"),
        SETTINGS => {
            let values: [u32; 5] = [0, 1, 0x3fff, 0x7fff_ffff, u32::MAX];
            let value = values[rng.usize(..values.len())].to_be_bytes();
            let setting = [&[0, rng.u8(..9)], &value[..]].concat();
            frame(SETTINGS, 0, 0, &setting)
        }
        WINDOW_UPDATE => {
            let increments: [u32; 4] = [0, 1, 0xffff, 0x7fff_ffff];
            let increment = increments[rng.usize(..increments.len())];
            frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
        }
        kind => {
            let length = [0, 1, 4, 5, 8][rng.usize(..5)];
            let payload: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
            frame(kind, rng.u8(..), stream, &payload)
        }
    }
}
