//! What really crosses the wire between the namespaces: frames read from a packet socket on the
//! bridge, classified by their first bytes.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::netns::Namespace;

/// Open connections that have sent no bytes; more means that something is wrong.
const MAX_FLOWS: usize = 100_000;
/// Words of the shop that would show if a payload were readable.
const MARKERS: [&[u8]; 4] = [
    b"HTTP/1.1",
    b"READY shop-store",
    b"PRI * HTTP/2.0",
    b"replica",
];

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections whose first bytes were a TLS record.
    pub tls_connections: u64,
    /// Connections whose first bytes were anything else.
    pub plain_connections: u64,
    /// Segments that carried a word of the shop in the clear.
    pub readable_segments: u64,
    pub segments: u64,
}

/// Reads frames until dropped.
pub struct Capture {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Capture {
    /// Starts reading in `namespace`. Connections to or from `ignored` (the control plane) do not
    /// count: they are no mesh traffic.
    ///
    /// # Errors
    /// When the namespace cannot be entered or a packet socket is refused.
    pub fn start(namespace: Namespace, ignored: Ipv4Addr) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, answer) = std::sync::mpsc::channel();
        let (shared, stopping) = (seen.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || {
                let socket = namespace.enter().and_then(|()| packet_socket());
                match socket {
                    Ok(socket) => {
                        // The starter waits for this one answer.
                        let _ = opened.send(Ok(()));
                        read_frames(socket, ignored, &shared, &stopping);
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            })?;
        answer.recv().map_err(io::Error::other)??;
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    pub fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread only counts: how it ended changes nothing.
            let _ = thread.join();
        }
    }
}

/// A packet socket that sees every frame of the namespace and wakes at least twice a second.
fn packet_socket() -> io::Result<File> {
    // All protocols: a bridge takes its frames before sockets for a single one see them.
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: socket(2) takes no pointers; the descriptor is checked and owned from here on.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    let wait = libc::timeval {
        tv_sec: 0,
        tv_usec: Duration::from_millis(500).subsec_micros().into(),
    };
    // SAFETY: the pointer and length describe `wait`, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const wait).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn read_frames(mut socket: File, ignored: Ipv4Addr, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut frame = vec![0; 65_536];
    let mut flows = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut frame) {
            Ok(length) => {
                if let Some(segment) = Segment::parse(&frame[..length])
                    && segment.source.0 != IpAddr::V4(ignored)
                    && segment.destination.0 != IpAddr::V4(ignored)
                {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    count(&segment, &mut flows, &mut seen);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

type End = (IpAddr, u16);

/// A TCP segment with a payload.
struct Segment<'a> {
    source: End,
    destination: End,
    sequence: u32,
    /// The first of a connection, from who opens it.
    opens: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Ethernet II, IPv4 or IPv6 without extension headers, TCP; anything else is none.
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let ip = frame.get(14..)?;
        let length = |at: usize| {
            Some(usize::from(u16::from_be_bytes([
                *ip.get(at)?,
                *ip.get(at + 1)?,
            ])))
        };
        let (source, destination, tcp) = match frame.get(12..14)? {
            [0x08, 0x00] if ip.get(9)? == &TCP => {
                let header = usize::from(ip.first()? & 0x0f) * 4;
                let tcp = ip.get(header..length(2)?)?;
                (v4(ip, 12)?, v4(ip, 16)?, tcp)
            }
            [0x86, 0xdd] if ip.get(6)? == &TCP => {
                let tcp = ip.get(40..40 + length(4)?)?;
                (v6(ip, 8)?, v6(ip, 24)?, tcp)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
        let data = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: (source, port(0)?),
            destination: (destination, port(2)?),
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            // SYN without ACK.
            opens: tcp.get(13)? & 0x12 == 0x02,
            payload: tcp.get(data..)?,
        })
    }
}

/// The protocol's number in IP headers.
const TCP: u8 = 6;

fn v4(ip: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 4] = ip.get(at..at + 4)?.try_into().ok()?;
    Some(Ipv4Addr::from(bytes).into())
}

fn v6(ip: &[u8], at: usize) -> Option<IpAddr> {
    let bytes: [u8; 16] = ip.get(at..at + 16)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

/// Counts a segment. For connections whose opening was seen, `flows` has the end that opened it and
/// the sequence number of its first byte. Only that byte is examined, because the middle of a
/// stream proves nothing.
fn count(segment: &Segment<'_>, flows: &mut HashMap<(End, End), u32>, seen: &mut Seen) {
    let direction = (segment.source, segment.destination);
    if segment.opens {
        if flows.len() >= MAX_FLOWS {
            flows.clear();
        }
        flows.insert(direction, segment.sequence.wrapping_add(1));
        return;
    }
    if segment.payload.is_empty() {
        return;
    }
    seen.segments += 1;
    let readable = |marker: &[u8]| segment.payload.windows(marker.len()).any(|w| w == marker);
    if MARKERS.iter().any(|marker| readable(marker)) {
        seen.readable_segments += 1;
    }
    if flows.get(&direction) == Some(&segment.sequence) {
        flows.remove(&direction);
        // A TLS record: handshake (22) of version 3.x.
        match segment.payload {
            [22, 3, ..] => seen.tls_connections += 1,
            _ => seen.plain_connections += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(payload: &[u8], opens: bool, sequence: u32) -> Segment<'_> {
        Segment {
            source: ([10, 77, 1, 2].into(), 40_000),
            destination: ([10, 77, 2, 2].into(), 8080),
            sequence,
            opens,
            payload,
        }
    }

    #[test]
    fn the_first_bytes_of_a_connection_decide_and_readable_words_count() {
        let (mut flows, mut seen) = (HashMap::new(), Seen::default());
        count(
            &segment(b"GET / HTTP/1.1\r\n", false, 8),
            &mut flows,
            &mut seen,
        );
        assert_eq!(
            (seen.plain_connections, seen.readable_segments),
            (0, 1),
            "opening not seen"
        );
        count(&segment(b"", true, 7), &mut flows, &mut seen);
        count(&segment(b"whatever", false, 13), &mut flows, &mut seen);
        count(&segment(&[22, 3, 1, 0, 5], false, 8), &mut flows, &mut seen);
        count(&segment(&[22, 3, 1, 0, 5], false, 8), &mut flows, &mut seen);
        assert_eq!((seen.tls_connections, seen.plain_connections), (1, 0));
        count(&segment(b"", true, 99), &mut flows, &mut seen);
        count(
            &segment(b"PRI * HTTP/2.0\r\n\r\n", false, 100),
            &mut flows,
            &mut seen,
        );
        assert_eq!((seen.tls_connections, seen.plain_connections), (1, 1));
    }

    #[test]
    fn segments_of_both_families_are_read() {
        let mut tcp = vec![0; 22];
        tcp[..4].copy_from_slice(&[0x9c, 0x40, 0x1f, 0x90]);
        tcp[12] = 5 << 4;
        let mut four = vec![0; 34];
        (four[12], four[14], four[17], four[23]) = (8, 0x45, 42, TCP);
        four[26..34].copy_from_slice(&[10, 77, 1, 2, 10, 77, 2, 2]);
        let mut six = vec![0; 54];
        six[12..14].copy_from_slice(&[0x86, 0xdd]);
        (six[14], six[19], six[20], six[37], six[53]) = (0x60, 22, TCP, 1, 2);
        let ends: [(IpAddr, IpAddr); 2] = [
            ([10, 77, 1, 2].into(), [10, 77, 2, 2].into()),
            (Ipv6Addr::from(1).into(), Ipv6Addr::from(2).into()),
        ];
        for (head, (source, destination)) in [four, six].into_iter().zip(ends) {
            let frame = [head, tcp.clone()].concat();
            let segment = Segment::parse(&frame).unwrap();
            assert_eq!(segment.source, (source, 40_000));
            assert_eq!(segment.destination, (destination, 8080));
            assert_eq!(segment.payload, [0, 0]);
            for length in 0..frame.len() {
                assert!(Segment::parse(&frame[..length]).is_none(), "{length}");
            }
        }
    }

    #[test]
    fn junk_frames_are_no_segments() {
        for length in 0..80 {
            let mut frame = vec![0xff; length];
            assert!(Segment::parse(&frame).is_none());
            if length > 24 {
                frame[12..14].copy_from_slice(&[8, 0]);
                frame[14] = 0x45;
                frame[23] = 6;
                // Lengths that point past the end must not panic.
                let _ = Segment::parse(&frame);
            }
        }
    }
}
