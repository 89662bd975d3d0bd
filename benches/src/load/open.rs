//! HTTP/1.1 at a fixed rate. Each request has a time at which it is due, independent of the earlier
//! ones, and its latency counts from there: a proxy that stalls pays for every request that
//! it kept waiting (no coordinated omission).
//!
//! A thread for each connection, asleep until its next request is due: it takes no processor from
//! those it measures, and the kernel wakes it to within some tens of microseconds.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{Done, answer, void};
use crate::{BenchError, app};

/// The longest one answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `rate` requests a second in all, spread over `connections`.
pub fn run(
    rate: u32,
    connections: usize,
    port: u16,
    lasting: Duration,
) -> Result<Done, BenchError> {
    let each = u32::try_from(connections).unwrap_or(u32::MAX);
    let pace = Pace {
        began: Instant::now() + Duration::from_millis(20),
        step: Duration::from_secs(1) / rate,
        each,
        turns: (lasting.as_secs_f64() * f64::from(rate)) as u32 / each,
    };
    let threads: Vec<_> = (0..each)
        .map(|first| thread::spawn(move || one(first, pace, port)))
        .collect();
    let mut all = Vec::new();
    for thread in threads {
        let latencies = thread.join().map_err(|_| void("a generator panicked"))?;
        all.extend(latencies.map_err(void)?);
    }
    all.sort_unstable();
    let at = |share: f64| {
        let index = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
        all.get(index).map(|latency| latency.as_secs_f64() * 1e6)
    };
    Ok(Done {
        requests: all.len() as u64,
        bytes: (all.len() * app::SMALL) as u64,
        seconds: pace.began.elapsed().as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
    })
}

/// When each request is due.
#[derive(Clone, Copy)]
struct Pace {
    began: Instant,
    /// From one request to the next, over all connections.
    step: Duration,
    /// Connections.
    each: u32,
    /// Requests of each connection.
    turns: u32,
}

/// The requests of the connection whose first one is number `first`.
fn one(first: u32, pace: Pace, port: u16) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut latencies = Vec::with_capacity(pace.turns as usize);
    for turn in 0..pace.turns {
        let due = pace.began + pace.step * (first + turn * pace.each);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        exchange(&mut stream)?;
        latencies.push(due.elapsed());
    }
    Ok(latencies)
}

/// One request for 100 bytes and its whole answer, which must be 200.
fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: app\r\n\r\n")?;
    let (mut got, mut filled) = ([0; 2048], 0);
    loop {
        let read = stream.read(got.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if answer::is_whole(&got[..filled])? {
            return Ok(());
        }
    }
}
