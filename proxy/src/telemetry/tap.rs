//! Taps: live requests, filtered, for a subscriber.
//!
//! Without a tap, a request pays one atomic load. An event that does not fit into a tap's queue is
//! dropped and counted: traffic never waits for a subscriber.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::escape::unsafe_to_print;
use super::record::Record;

/// Queued events per tap.
const QUEUE: usize = 256;
/// Taps at once.
const MAX_TAPS: usize = 16;
/// Values of headers that are credentials.
const REDACTED: &str = "[redacted]";
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-forwarded-client-cert",
];
/// Longest text of an event, bytes; more is cut.
const MAX_TEXT: usize = 2048;
const MAX_HEADERS: usize = 64;

/// A tap's filter; empty fields match anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub method: String,
    /// Prefix of the path.
    pub path: String,
    pub authority: String,
    /// 0: any.
    pub status: u16,
    pub peer_identity: String,
    /// `None`: both ways.
    pub inbound: Option<bool>,
}

/// One request, owned.
#[derive(Clone, Debug)]
pub struct TapEvent {
    pub start: SystemTime,
    pub duration: Duration,
    pub inbound: bool,
    pub protocol: &'static str,
    pub method: String,
    pub authority: String,
    pub path: String,
    pub status: u16,
    pub grpc_status: String,
    pub flags: String,
    pub details: String,
    pub peer: Option<SocketAddr>,
    pub peer_identity: String,
    pub route: String,
    pub cluster: String,
    pub upstream: Option<SocketAddr>,
    pub attempts: u32,
    pub received: u64,
    pub sent: u64,
    pub request_headers: Vec<(String, String)>,
    pub response_headers: Vec<(String, String)>,
    /// Lost since the event before this one.
    pub dropped: u64,
}

/// One request, borrowed from the data path.
pub struct TapSource<'a, 'h> {
    pub record: Record<'a>,
    pub inbound: bool,
    /// Names and values, in order.
    pub request_headers: &'a mut dyn Iterator<Item = (&'h [u8], &'h [u8])>,
    pub response_headers: &'a mut dyn Iterator<Item = (&'h [u8], &'h [u8])>,
}

struct Tap {
    id: String,
    filter: Filter,
    headers: bool,
    per_second: u64,
    /// `None`: beyond the clock's range.
    until: Option<Instant>,
    began: Instant,
    /// The current second and its count of events, in one word.
    window: AtomicU64,
    dropped: AtomicU64,
    events: mpsc::Sender<TapEvent>,
}

/// All taps of this process.
#[derive(Default)]
pub struct Taps {
    active: AtomicUsize,
    taps: Mutex<Vec<Arc<Tap>>>,
}

/// There are [`MAX_TAPS`] taps already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_TAPS} taps are open already; close one first")]
pub struct TooMany;

impl Taps {
    /// Whether there is a tap.
    pub fn any(&self) -> bool {
        self.active.load(Relaxed) > 0
    }

    /// Opens a tap; one with the same id is replaced.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(
        &self,
        id: &str,
        filter: Filter,
        headers: bool,
        per_second: u32,
        lasting: Duration,
    ) -> Result<mpsc::Receiver<TapEvent>, TooMany> {
        let (events, receiver) = mpsc::channel(QUEUE);
        let now = Instant::now();
        let tap = Tap {
            id: id.to_owned(),
            filter,
            headers,
            per_second: u64::from(per_second.max(1)),
            until: now.checked_add(lasting),
            began: now,
            window: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            events,
        };
        self.change(|taps| {
            taps.retain(|tap| tap.id != id && tap.is_open(now));
            if taps.len() >= MAX_TAPS {
                return Err(TooMany);
            }
            taps.push(Arc::new(tap));
            Ok(receiver)
        })
    }

    pub fn close(&self, id: &str) {
        self.change(|taps| taps.retain(|tap| tap.id != id));
    }

    /// Offers one request to every tap whose filter matches it. Call only when [`Taps::any`].
    pub fn offer(&self, seen: TapSource<'_, '_>) {
        let now = Instant::now();
        let taps = self.lock().clone();
        if taps.iter().any(|tap| !tap.is_open(now)) {
            self.change(|taps| taps.retain(|tap| tap.is_open(now)));
        }
        let wants =
            |tap: &&Arc<Tap>| tap.is_open(now) && tap.filter.fits(&seen) && tap.has_room(now);
        let takers: Vec<&Arc<Tap>> = taps.iter().filter(wants).collect();
        if takers.is_empty() {
            return;
        }
        let event = TapEvent::of(seen);
        for tap in takers {
            tap.send(event.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Tap>>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Vec<Arc<Tap>>) -> R) -> R {
        let mut taps = self.lock();
        let result = change(&mut taps);
        self.active.store(taps.len(), Relaxed);
        result
    }
}

impl Tap {
    fn is_open(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until) && !self.events.is_closed()
    }

    /// Counts against the rate; what is beyond it is dropped.
    fn has_room(&self, now: Instant) -> bool {
        let second = now.duration_since(self.began).as_secs() & 0xffff_ffff;
        let counted = self.window.fetch_update(Relaxed, Relaxed, |window| {
            let (at, count) = (window >> 32, window & 0xffff_ffff);
            let count = if at == second { count } else { 0 };
            (count < self.per_second).then_some((second << 32) | count.saturating_add(1))
        });
        if counted.is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        counted.is_ok()
    }

    fn send(&self, mut event: TapEvent) {
        event.dropped = self.dropped.swap(0, Relaxed);
        if !self.headers {
            event.request_headers.clear();
            event.response_headers.clear();
        }
        let dropped = event.dropped;
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(dropped.saturating_add(1), Relaxed);
        }
    }
}

impl Filter {
    fn fits(&self, seen: &TapSource<'_, '_>) -> bool {
        let record = &seen.record;
        let same = |wanted: &str, value: Option<&[u8]>| {
            wanted.is_empty() || value.is_some_and(|v| v.eq_ignore_ascii_case(wanted.as_bytes()))
        };
        same(&self.method, record.method)
            && same(&self.authority, record.authority)
            && record
                .path
                .unwrap_or_default()
                .starts_with(self.path.as_bytes())
            && (self.status == 0 || self.status == record.code)
            && same(&self.peer_identity, peer_identity(seen).map(str::as_bytes))
            && self.inbound.is_none_or(|inbound| inbound == seen.inbound)
    }
}

/// The remote peer's identity: the caller's inbound, the server's outbound.
fn peer_identity<'a>(seen: &TapSource<'a, '_>) -> Option<&'a str> {
    match seen.inbound {
        true => seen.record.peer_uri_san,
        false => seen.record.upstream_peer_uri_san,
    }
}

impl TapEvent {
    fn of(seen: TapSource<'_, '_>) -> Self {
        let identity = peer_identity(&seen).unwrap_or_default().to_owned();
        let record = seen.record;
        let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
        TapEvent {
            start: record.start,
            duration: record.duration,
            inbound: seen.inbound,
            protocol: record.protocol.unwrap_or("TCP"),
            method: text(record.method.unwrap_or_default()),
            authority: text(record.authority.unwrap_or_default()),
            path: text(record.path.unwrap_or_default()),
            status: record.code,
            grpc_status: record
                .grpc_status
                .map_or_else(String::new, |s| s.to_string()),
            flags: record.flags.label().to_string(),
            details: owned(record.details),
            peer: record.direct_remote,
            peer_identity: identity,
            route: owned(record.route),
            cluster: owned(record.cluster),
            upstream: record.upstream_host,
            attempts: record.attempts,
            received: record.bytes_received,
            sent: record.bytes_sent,
            request_headers: list(seen.request_headers),
            response_headers: list(seen.response_headers),
            dropped: 0,
        }
    }
}

fn list<'h>(headers: &mut dyn Iterator<Item = (&'h [u8], &'h [u8])>) -> Vec<(String, String)> {
    headers.take(MAX_HEADERS).map(header).collect()
}

fn header((name, value): (&[u8], &[u8])) -> (String, String) {
    let name = text(name).to_ascii_lowercase();
    let value = match SECRET_HEADERS.contains(&name.as_str()) {
        true => REDACTED.to_owned(),
        false => text(value),
    };
    (name, value)
}

/// Bytes of a peer as they may be shown: bounded, nothing that controls a terminal.
fn text(bytes: &[u8]) -> String {
    let (cut, _) = bytes.split_at(bytes.len().min(MAX_TEXT));
    String::from_utf8_lossy(cut)
        .chars()
        .map(|c| match unsafe_to_print(c) {
            true => char::REPLACEMENT_CHARACTER,
            false => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(taps: &Taps, path: &str, code: u16) {
        let mut record = Record::begun(SystemTime::now());
        record.method = Some(b"GET");
        record.path = Some(path.as_bytes());
        record.code = code;
        record.grpc_status = Some(14);
        let odd = "b\r\n\u{202e}c".as_bytes();
        let headers: [(&[u8], &[u8]); 2] = [(b"Cookie", b"secret"), (b"X-A", odd)];
        let (mut request, mut response) = (headers.into_iter(), std::iter::empty());
        taps.offer(TapSource {
            record,
            inbound: true,
            request_headers: &mut request,
            response_headers: &mut response,
        });
    }

    fn open(taps: &Taps, filter: Filter, rate: u32) -> mpsc::Receiver<TapEvent> {
        taps.open("t", filter, true, rate, Duration::from_secs(60))
            .unwrap()
    }

    #[test]
    fn only_what_is_looked_for_is_shown_and_credentials_are_not() {
        let taps = Taps::default();
        assert!(!taps.any());
        let filter = Filter {
            path: "/a".into(),
            status: 503,
            ..Filter::default()
        };
        let mut events = open(&taps, filter, 100);
        assert!(taps.any());
        offer(&taps, "/a/b", 503);
        offer(&taps, "/a/b", 200);
        offer(&taps, "/b", 503);
        let event = events.try_recv().unwrap();
        assert_eq!((event.path.as_str(), event.status), ("/a/b", 503));
        assert_eq!(event.request_headers[0].1, REDACTED);
        assert_eq!(event.request_headers[1].1, "b\u{fffd}\u{fffd}\u{fffd}c");
        assert_eq!(event.grpc_status, "14");
        assert!(events.try_recv().is_err());
        taps.close("t");
        assert!(!taps.any());
    }

    #[test]
    fn beyond_the_rate_events_are_dropped_and_counted() {
        let taps = Taps::default();
        let mut events = open(&taps, Filter::default(), 3);
        for _ in 0..10 {
            offer(&taps, "/", 200);
        }
        assert_eq!(std::iter::from_fn(|| events.try_recv().ok()).count(), 3);
        let dropped = taps.lock()[0].dropped.load(Relaxed);
        assert_eq!(dropped, 7);
    }

    #[test]
    fn a_tap_ends_with_its_subscriber_and_they_are_bounded() {
        let taps = Taps::default();
        drop(open(&taps, Filter::default(), 1));
        offer(&taps, "/", 200);
        assert!(!taps.any());
        let all: Vec<_> = (0..MAX_TAPS + 1)
            .map(|n| {
                taps.open(
                    &n.to_string(),
                    Filter::default(),
                    false,
                    1,
                    Duration::MAX / 4,
                )
            })
            .collect();
        assert!(all[MAX_TAPS].is_err());
    }
}
