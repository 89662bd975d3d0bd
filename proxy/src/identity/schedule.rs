//! When to renew, when to retry, and whether the clock can be right. No I/O, no clock of its own.

use std::time::{Duration, SystemTime};

/// The longest sleep: a clock that jumps, or a machine that slept, is noticed within this.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// Clock difference from which on it is reported.
const TOLERANCE: Duration = Duration::from_secs(5);

/// When a certificate is renewed: at half its life, a twentieth of it earlier or later so that
/// proxies started together spread out. `draw`: evenly from 0 to 1. CAs backdate certificates to
/// tolerate slow clocks: where that puts the half of a short life into the past, it is the half of
/// what is left.
pub(super) fn renew_at(
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
    draw: f64,
) -> SystemTime {
    let share = 0.475 + 0.05 * draw.clamp(0.0, 1.0);
    let part = |from: SystemTime| {
        let life = not_after.duration_since(from).unwrap_or_default();
        from.checked_add(life.mul_f64(share)).unwrap_or(not_after)
    };
    let half = part(not_before);
    if half > now { half } else { part(now) }
}

/// The bound of the wait before a retry: it doubles as usual, but is shorter for a certificate near
/// its expiry.
pub(super) fn retry_bound(remaining: Option<Duration>, wait: Duration) -> Duration {
    match remaining {
        Some(remaining) => wait
            .min(remaining.mul_f64(0.125))
            .max(Duration::from_millis(200)),
        None => wait,
    }
}

/// Why the clock cannot be right, compared with a certificate that the CA has just issued.
pub(super) fn clock_trouble(
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Option<String> {
    let behind = not_before.duration_since(now).unwrap_or_default();
    if behind > TOLERANCE {
        return Some(format!(
            "this machine's clock is at least {} s behind the CA's",
            behind.as_secs()
        ));
    }
    if now >= not_after {
        let ahead = now.duration_since(not_after).unwrap_or_default();
        return Some(format!(
            "a certificate made just now ended {} s ago: this machine's clock is ahead of the CA's",
            ahead.as_secs()
        ));
    }
    None
}

/// Whether the wall clock jumped: how far it went compared with the steady one.
pub(super) fn clock_jump(wall: Result<Duration, Duration>, steady: Duration) -> Option<String> {
    let limit = Duration::from_secs(60);
    match wall {
        Ok(forward) => {
            let (ahead, behind) = (
                forward.saturating_sub(steady),
                steady.saturating_sub(forward),
            );
            match () {
                () if ahead > limit => {
                    Some(format!("the clock jumped {} s ahead", ahead.as_secs()))
                }
                () if behind > limit => {
                    Some(format!("the clock fell {} s behind", behind.as_secs()))
                }
                () => None,
            }
        }
        Err(back) => {
            let back = back.saturating_add(steady);
            (back > limit).then(|| format!("the clock was set back {} s", back.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_short_life_dated_back_is_halved_from_now() {
        assert_eq!(renew_at(at(0), at(80), at(60), 0.5), at(70));
    }

    #[test]
    fn renewal_is_around_half_life() {
        assert_eq!(renew_at(at(0), at(1000), at(1), 0.5), at(500));
        assert_eq!(renew_at(at(0), at(1000), at(1), 0.0), at(475));
        assert_eq!(renew_at(at(0), at(1000), at(0), 1.0), at(525));
        assert_eq!(
            renew_at(at(1000), at(0), at(1000), 1.0),
            at(1000),
            "nonsense is due at once"
        );
    }

    #[test]
    fn retries_hurry_towards_the_end() {
        let wait = Duration::from_secs(60);
        assert_eq!(retry_bound(None, wait), wait);
        assert_eq!(
            retry_bound(Some(Duration::from_secs(80)), wait).as_secs(),
            10
        );
        assert_eq!(retry_bound(Some(Duration::ZERO), wait).as_millis(), 200);
    }

    #[test]
    fn a_wrong_clock_is_noticed() {
        assert_eq!(clock_trouble(at(100), at(200), at(150)), None);
        assert_eq!(clock_trouble(at(100), at(200), at(97)), None);
        assert!(
            clock_trouble(at(100), at(200), at(50))
                .unwrap()
                .contains("50 s behind")
        );
        assert!(
            clock_trouble(at(100), at(200), at(300))
                .unwrap()
                .contains("100 s ago")
        );
    }

    #[test]
    fn a_clock_jump_is_distinguished_from_sleep() {
        let s = Duration::from_secs;
        assert_eq!(clock_jump(Ok(s(30)), s(30)), None);
        assert!(
            clock_jump(Ok(s(500)), s(30))
                .unwrap()
                .contains("470 s ahead")
        );
        assert!(clock_jump(Err(s(100)), s(30)).unwrap().contains("130 s"));
        assert!(clock_jump(Ok(s(0)), s(100)).unwrap().contains("behind"));
    }
}
