//! How often tokens from one address may be refused. A token that is examined costs calls to the API
//! server, and a peer needs no credential to cause them: each address has a token bucket. Only
//! refused tokens consume from the bucket. No I/O, and time is passed in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tokens from one address that may be under examination or were refused lately.
const BURST: u32 = 64;
/// One refusal is forgotten after this time.
const REFILL_SECONDS: u64 = 1;
const REFILL: Duration = Duration::from_secs(REFILL_SECONDS);
/// Addresses that have refusals. Those beyond share one bucket.
const MAX_SOURCES: usize = 4096;

/// Refusals by address; see the module.
#[derive(Default)]
pub struct RefusalLimit {
    buckets: Mutex<HashMap<Option<IpAddr>, RefusalBucket>>,
}

#[derive(Clone, Copy)]
struct RefusalBucket {
    taken: u32,
    /// Time of the last refill.
    at: Instant,
}

impl RefusalBucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let whole = passed.as_secs() / REFILL_SECONDS;
        let whole = u32::try_from(whole).unwrap_or(u32::MAX);
        self.taken = self.taken.saturating_sub(whole);
        self.at = match self.taken {
            0 => now,
            _ => {
                let refilled = self.at.checked_add(REFILL.saturating_mul(whole));
                refilled.unwrap_or(now)
            }
        };
    }
}

/// An IPv4 address, or a /64, of which a host of IPv6 has all.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

impl RefusalLimit {
    fn lock(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, RefusalBucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a token from `address` may be examined. One that turns out good, or could not be
    /// examined, is given back.
    pub fn take(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let mut buckets = self.lock();
        let mut key = address.map(source);
        if !buckets.contains_key(&key) && buckets.len() >= MAX_SOURCES {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.taken > 0
            });
            if buckets.len() >= MAX_SOURCES {
                key = None;
            }
        }
        let bucket = buckets
            .entry(key)
            .or_insert(RefusalBucket { taken: 0, at: now });
        bucket.refill(now);
        if bucket.taken >= BURST {
            return false;
        }
        bucket.taken = bucket.taken.saturating_add(1);
        true
    }

    pub fn give_back(&self, address: Option<IpAddr>) {
        let mut buckets = self.lock();
        let own = address.map(source);
        // It was taken from the shared bucket where there was none of its own.
        let key = match buckets.contains_key(&own) {
            true => own,
            false => None,
        };
        if let Some(bucket) = buckets.get_mut(&key) {
            bucket.taken = bucket.taken.saturating_sub(1);
            if bucket.taken == 0 {
                buckets.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn refusals_are_limited_by_address_and_forgotten_with_time() {
        let limit = RefusalLimit::default();
        let now = Instant::now();
        for _ in 0..BURST {
            assert!(limit.take(ip(1), now));
        }
        assert!(!limit.take(ip(1), now));
        assert!(limit.take(ip(2), now), "another address has its own");
        assert!(!limit.take(ip(1), now + REFILL / 2));
        assert!(limit.take(ip(1), now + REFILL));
        assert!(!limit.take(ip(1), now + REFILL));
        let later = now + REFILL * 1000;
        for _ in 0..BURST {
            assert!(limit.take(ip(1), later));
        }
        assert!(!limit.take(ip(1), later));
    }

    #[test]
    fn good_tokens_cost_nothing() {
        let limit = RefusalLimit::default();
        let now = Instant::now();
        for _ in 0..10 * BURST {
            assert!(limit.take(ip(1), now));
            limit.give_back(ip(1));
        }
        assert!(limit.lock().is_empty());
        let many: Vec<_> = (0..=BURST).map(|_| limit.take(ip(1), now)).collect();
        assert_eq!(many.iter().filter(|taken| **taken).count(), BURST as usize);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_an_address_has_one_spelling() {
        let limit = RefusalLimit::default();
        let now = Instant::now();
        for n in 0..BURST {
            let address = format!("fd00:0:0:1::{n:x}").parse().ok();
            assert!(limit.take(address, now));
        }
        let other = |text: &str| limit.take(text.parse().ok(), now);
        assert!(!other("fd00:0:0:1:ffff::1"));
        assert!(other("fd00:0:0:2::1"));
        for _ in 0..BURST {
            assert!(other("10.0.0.1"));
        }
        assert!(!other("::ffff:10.0.0.1"));
    }

    #[test]
    fn more_addresses_than_are_remembered_share_a_bucket() {
        let limit = RefusalLimit::default();
        let now = Instant::now();
        for n in 0..MAX_SOURCES as u32 {
            assert!(limit.take(ip(n), now));
        }
        let beyond = |n: u32, now| limit.take(ip(1 << 20 | n), now);
        let taken = (0..2 * BURST).filter(|n| beyond(*n, now)).count();
        assert_eq!(taken, BURST as usize);
        assert!(limit.lock().len() <= MAX_SOURCES + 1);
        // The buckets of before are full again, and removed.
        assert!(beyond(0, now + REFILL * 100));
        assert!(limit.lock().len() <= 2);
    }
}
