//! CPU time and memory of a process, from /proc.

use std::time::Duration;

/// Ticks in a second of the times in /proc (USER_HZ, the same on all of our platforms).
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Of all its threads, user and system.
    pub cpu: Duration,
    /// Bytes that are resident now, and were at most.
    pub resident: u64,
    pub peak: u64,
}

/// # Panics
/// When there is no such process.
pub fn usage(pid: u32) -> Usage {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let stat = read("stat");
    // After the name, which may have blanks: the fields from the third on.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let mut fields = fields.split(' ').skip(11).map(|field| field.parse::<u64>());
    let mut ticks = || fields.next().and_then(Result::ok).unwrap_or_default();
    let ticks = ticks() + ticks();
    let status = read("status");
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        number.unwrap_or_default() * 1024
    };
    Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS),
        resident: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}
