//! Control frames of an HTTP/2 peer, counted on the byte stream below the `h2` crate, which answers
//! them without showing them. For the proxy's connections and for the control plane's gRPC port.
//!
//! Sans-IO: [`Frames`] finds the frame headers in the byte stream, [`Budget`] decides when they are
//! a flood (CVE-2019-9511 to -9518, and interim responses, which flow control does not cover).

#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::time::Instant;

/// Bytes of a client's preface (RFC 9113 3.4).
pub const PREFACE: usize = 24;

/// Bytes of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ENHANCE_YOUR_CALM: u8 = 11;

/// Control frames that may come in a burst (Envoy's `max_outbound_control_frames`).
const BURST: i32 = 1000;
/// Control frames a second for which no other traffic is needed.
const PER_SECOND: u128 = 100;
/// The budget that one request gives an upstream for heads: interim ones, the final one, trailers.
const PER_REQUEST: i32 = 160;
/// Bytes of a response's head that cost as much as a control frame.
const HEAD_BYTES: u32 = 1024;

/// One frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    /// Whether it begins a stream, or ends one with trailers (RFC 9113 6.2).
    pub fn is_headers(self) -> bool {
        self.kind == HEADERS
    }

    fn parse(head: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Frame {
            length: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }
}

/// Finds frames in one direction of a connection, however its bytes are cut.
#[derive(Default)]
pub struct Frames {
    /// Payload (or preface) still to pass.
    skip: usize,
    head: [u8; HEAD],
    filled: usize,
}

impl Frames {
    /// The first `skip` bytes are no frame.
    pub fn after(skip: usize) -> Self {
        Frames {
            skip,
            ..Self::default()
        }
    }

    /// What passed so far ends with a whole frame.
    pub fn is_at_boundary(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        loop {
            if self.skip >= bytes.len() {
                self.skip = self.skip.saturating_sub(bytes.len());
                return;
            }
            bytes = bytes.get(self.skip..).unwrap_or_default();
            self.skip = 0;
            let rest = self.head.get_mut(self.filled..).unwrap_or_default();
            let count = rest.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            if let Some(rest) = rest.get_mut(..count) {
                rest.copy_from_slice(now);
            }
            self.filled = self.filled.saturating_add(count);
            if self.filled < HEAD {
                return;
            }
            let frame = Frame::parse(&self.head);
            self.filled = 0;
            self.skip = usize::try_from(frame.length).unwrap_or(usize::MAX);
            bytes = later;
            seen(frame);
        }
    }
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Client,
}

/// Frames without payload that a peer may still send. Requests and data, both ways, add to the
/// budget, since every implementation sends control frames with them (window updates, pings that
/// measure the path); so does time.
pub struct Budget {
    role: Role,
    credit: i32,
    since: Instant,
    last_stream: u32,
}

impl Budget {
    pub fn new(role: Role, now: Instant) -> Self {
        Budget {
            role,
            credit: BURST,
            since: now,
            last_stream: 0,
        }
    }

    pub fn received(&mut self, frame: Frame) {
        let earned = match (frame.kind, self.role) {
            (DATA, _) if frame.length > 0 => 1,
            // One empty frame at the end of a stream is usual.
            (DATA, _) if frame.flags & END_STREAM != 0 => 0,
            (HEADERS, Role::Server) => {
                self.last_stream = self.last_stream.max(frame.stream);
                2
            }
            (CONTINUATION, Role::Server) if frame.length > 0 => 0,
            (HEADERS | CONTINUATION, Role::Client) => i32::try_from(frame.length / HEAD_BYTES)
                .unwrap_or(BURST)
                .saturating_neg()
                .saturating_sub(1),
            _ => -1,
        };
        self.add(earned);
    }

    pub fn sent(&mut self, frame: Frame) {
        let earned = match (frame.kind, self.role) {
            (DATA, _) => i32::try_from(frame.length / 1024)
                .unwrap_or(BURST)
                .saturating_add(4),
            (HEADERS, Role::Server) => 4,
            (HEADERS, Role::Client) => PER_REQUEST,
            // The peer made us reset a stream (CVE-2025-8671), or exceeded the limit of concurrent
            // streams.
            (RST_STREAM, Role::Server) => -2,
            _ => 0,
        };
        self.add(earned);
    }

    fn add(&mut self, earned: i32) {
        self.credit = self.credit.saturating_add(earned).min(BURST);
    }

    /// The peer has exceeded its budget. `now` is called only when its burst is used up.
    pub fn is_exceeded(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.credit >= 0 {
            return false;
        }
        let now = now();
        let passed = now.saturating_duration_since(self.since).as_millis();
        let earned = passed.saturating_mul(PER_SECOND) / 1000;
        self.since = now;
        self.add(i32::try_from(earned).unwrap_or(BURST));
        self.credit < 0
    }

    /// The GOAWAY (ENHANCE_YOUR_CALM) for such a peer.
    pub fn goaway(&self) -> [u8; HEAD + 8] {
        let [a, b, c, d] = self.last_stream.to_be_bytes();
        let length = 8;
        [
            0,
            0,
            length,
            GOAWAY,
            0,
            0,
            0,
            0,
            0,
            a,
            b,
            c,
            d,
            0,
            0,
            0,
            ENHANCE_YOUR_CALM,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u32) -> Frame {
        Frame {
            length,
            kind,
            flags: 0,
            stream: 1,
        }
    }

    fn encoded(frame: Frame) -> Vec<u8> {
        let mut bytes = frame.length.to_be_bytes()[1..].to_vec();
        bytes.extend([frame.kind, frame.flags]);
        bytes.extend(frame.stream.to_be_bytes());
        bytes.resize(bytes.len() + frame.length as usize, 0xff);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in proptest::collection::vec((0u32..40, any::<u8>(), any::<u8>(), 0u32..1 << 31), 0..20),
            cuts in proptest::collection::vec(1usize..30, 1..20),
        ) {
            let frames: Vec<Frame> = frames
                .into_iter()
                .map(|(length, kind, flags, stream)| Frame { length, kind, flags, stream })
                .collect();
            let mut bytes = b"preface".to_vec();
            bytes.extend(frames.iter().flat_map(|frame| encoded(*frame)));
            let mut found = Vec::new();
            let mut scanner = Frames::after(7);
            let mut cuts = cuts.iter().cycle();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                scanner.scan(now, |frame| found.push(frame));
                rest = later;
            }
            prop_assert_eq!(found, frames);
            prop_assert!(scanner.is_at_boundary());
        }
    }

    #[test]
    fn control_frame_budget_refills() {
        for (role, kind) in [Role::Server, Role::Client].into_iter().flat_map(|role| {
            [DATA, 2, 3, SETTINGS, PING, WINDOW_UPDATE, 200].map(|kind| (role, kind))
        }) {
            let start = Instant::now();
            let mut budget = Budget::new(role, start);
            for _ in 0..BURST {
                budget.received(frame(kind, 0));
                assert!(!budget.is_exceeded(|| start));
            }
            budget.received(frame(kind, 0));
            assert!(budget.is_exceeded(|| start), "{role:?} {kind}");
            let later = start + Duration::from_secs(1);
            assert!(!budget.is_exceeded(|| later), "{role:?} {kind}");
        }
    }

    #[test]
    fn frames_that_traffic_needs_are_not_charged() {
        let now = Instant::now();
        let mut server = Budget::new(Role::Server, now);
        let mut client = Budget::new(Role::Client, now);
        for _ in 0..100_000 {
            // A download: windows of the stream and the connection, a ping a frame.
            server.received(frame(HEADERS, 30));
            server.sent(frame(HEADERS, 30));
            server.sent(frame(DATA, 10));
            client.sent(frame(HEADERS, 30));
            client.received(frame(HEADERS, 60 * 1024));
            client.received(frame(DATA, 10));
            client.received(frame(HEADERS, 10));
            for kind in [WINDOW_UPDATE, WINDOW_UPDATE, PING, RST_STREAM] {
                server.received(frame(kind, 4));
                client.received(frame(kind, 4));
            }
            assert!(!server.is_exceeded(|| now) && !client.is_exceeded(|| now));
        }
    }
}
