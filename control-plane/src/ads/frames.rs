//! HTTP/2 frames of a connection to the gRPC port, read off its bytes: the `h2` crate answers control
//! frames without showing them. Sans-IO.
//!
//! [`Frames`] finds the heads of frames; [`ControlFrames`] decides when control frames are a flood
//! (CVE-2019-9512, -9515 and others: PING, SETTINGS, empty DATA).
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

use std::time::Instant;

/// Bytes of a client's preface (RFC 9113 3.4).
pub const PREFACE: usize = 24;
/// Bytes of a frame's head (RFC 9113 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;

/// Control frames that may come in a burst (Envoy's `max_outbound_control_frames`).
const BURST: i32 = 1000;
/// Control frames a second for which no other traffic is needed.
const PER_SECOND: u128 = 100;

/// One frame's head, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub length: u32,
    pub kind: u8,
}

impl Frame {
    /// Whether it begins a stream, or ends one with trailers (RFC 9113 6.2).
    pub fn is_headers(self) -> bool {
        self.kind == HEADERS
    }
}

/// Finds frames in one direction of a connection, however its bytes are cut.
#[derive(Default)]
pub struct Frames {
    /// Bytes to pass before the next frame's head: the preface, then payloads.
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

    pub fn scan(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        loop {
            let Some(rest) = bytes.get(self.skip..).filter(|rest| !rest.is_empty()) else {
                self.skip = self.skip.saturating_sub(bytes.len());
                return;
            };
            self.skip = 0;
            let space = self.head.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = rest.split_at(space.len().min(rest.len()));
            for (to, from) in space.iter_mut().zip(now) {
                *to = *from;
            }
            self.filled = self.filled.saturating_add(now.len());
            if self.filled < HEAD {
                return;
            }
            self.filled = 0;
            let [a, b, c, kind, ..] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            self.skip = usize::try_from(length).unwrap_or(usize::MAX);
            bytes = later;
            seen(Frame { length, kind });
        }
    }
}

/// Control frames that a client may still send. What it sends and receives besides adds to them,
/// since clients send control frames with traffic (window updates, pings that measure the path); so
/// does time.
pub struct ControlFrames {
    left: i32,
    since: Instant,
}

impl ControlFrames {
    pub fn new(now: Instant) -> Self {
        ControlFrames {
            left: BURST,
            since: now,
        }
    }

    pub fn received(&mut self, frame: Frame) {
        self.add(match frame.kind {
            DATA if frame.length > 0 => 1,
            HEADERS => 2,
            _ => -1,
        });
    }

    pub fn sent(&mut self, frame: Frame) {
        self.add(match frame.kind {
            DATA => i32::try_from(frame.length / 1024)
                .unwrap_or(BURST)
                .saturating_add(4),
            HEADERS => 4,
            // The client made us reset a stream (CVE-2025-8671), or exceeded the limit of streams.
            RST_STREAM => -2,
            _ => 0,
        });
    }

    fn add(&mut self, more: i32) {
        self.left = self.left.saturating_add(more).min(BURST);
    }

    /// Whether the client has sent too many. `now` is called only when its burst is used up.
    pub fn is_flood(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.left >= 0 {
            return false;
        }
        let now = now();
        let passed = now.saturating_duration_since(self.since).as_millis();
        let earned = passed.saturating_mul(PER_SECOND) / 1000;
        self.since = now;
        self.add(i32::try_from(earned).unwrap_or(BURST));
        self.left < 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u32) -> Frame {
        Frame { length, kind }
    }

    proptest! {
        #[test]
        fn frames_are_found_however_they_are_cut(
            frames in proptest::collection::vec((0u32..40, any::<u8>()), 0..20),
            cuts in proptest::collection::vec(1usize..30, 1..20),
        ) {
            let frames: Vec<Frame> = frames.into_iter().map(|(length, kind)| frame(kind, length)).collect();
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            for Frame { length, kind } in &frames {
                bytes.extend(&length.to_be_bytes()[1..]);
                bytes.extend([*kind, 0, 0, 0, 0, 1]);
                bytes.resize(bytes.len() + *length as usize, 0xff);
            }
            let mut scanner = Frames::after(PREFACE);
            let mut found = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                scanner.scan(now, |frame| found.push(frame));
                rest = later;
            }
            prop_assert_eq!(found, frames);
        }
    }

    #[test]
    fn control_frames_run_out_and_time_brings_them_back() {
        for kind in [DATA, 2, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, 200] {
            let start = Instant::now();
            let mut control = ControlFrames::new(start);
            for _ in 0..BURST {
                control.received(frame(kind, 0));
                assert!(!control.is_flood(|| start));
            }
            control.received(frame(kind, 0));
            assert!(control.is_flood(|| start), "{kind}");
            let later = start + Duration::from_secs(1);
            assert!(!control.is_flood(|| later), "{kind}");
        }
    }

    #[test]
    fn what_goes_with_traffic_never_runs_out() {
        let now = Instant::now();
        let mut control = ControlFrames::new(now);
        for _ in 0..100_000 {
            // Resources, for which the client updates both windows, measures the path, and answers.
            control.sent(frame(DATA, 10));
            for kind in [WINDOW_UPDATE, WINDOW_UPDATE, PING] {
                control.received(frame(kind, 4));
            }
            control.received(frame(DATA, 10));
            assert!(!control.is_flood(|| now));
        }
    }
}
