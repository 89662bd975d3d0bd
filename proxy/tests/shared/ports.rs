//! Ports for the listeners of processes, which get them as arguments.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Below the kernel's ephemeral ports: no other process gets the port before ours binds it.
const RANGE: std::ops::Range<u32> = 10_000..30_000;

/// A port that no address of this machine listens on at the moment.
pub fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let count = COUNT.fetch_add(1, Relaxed);
        let offset = (std::process::id() * 61 + count) % (RANGE.end - RANGE.start);
        let port = u16::try_from(RANGE.start + offset).unwrap();
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
