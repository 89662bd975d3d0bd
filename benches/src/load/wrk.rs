//! wrk, and what it reports.

use std::process::Command;
use std::time::Duration;

use super::Done;
use crate::{BenchError, app};

/// Loads `path` for `lasting`.
pub fn run(
    connections: usize,
    path: &str,
    port: u16,
    lasting: Duration,
) -> Result<Done, BenchError> {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), "--latency"])
        .arg(format!("-d{}s", lasting.as_secs().max(1)))
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .map_err(|error| BenchError::Io {
            what: "wrk".into(),
            error,
        })?;
    let size = match path {
        "/1m" => app::MEBIBYTE,
        "/64k" => 64 * 1024,
        _ => app::SMALL,
    };
    parse(&String::from_utf8_lossy(&output.stdout), size)
}

fn parse(text: &str, size: usize) -> Result<Done, BenchError> {
    let trouble = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
    if let Some(line) = text.lines().find(trouble) {
        return Err(BenchError::Void(line.trim().to_owned()));
    }
    let unknown = || BenchError::Unknown("wrk", text.to_owned());
    let line = |label: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find_map(|line| line.strip_prefix(label).map(str::trim))
    };
    let (requests, rest) = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .ok_or_else(unknown)?;
    let requests: u64 = requests.parse().map_err(|_| unknown())?;
    let seconds = rest
        .split(',')
        .next()
        .and_then(micros)
        .ok_or_else(unknown)?;
    if requests == 0 {
        return Err(BenchError::Void("no request was answered".into()));
    }
    Ok(Done {
        requests,
        bytes: requests * size as u64,
        seconds: seconds / 1e6,
        p50: line("50%").and_then(micros),
        p99: line("99%").and_then(micros),
    })
}

/// A duration as wrk writes it, in microseconds.
fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("m", 60e6), ("s", 1e6)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_void_the_round() {
        let good = "Running 3s test\n     50%  150.00us\n     99%    2.50ms\n  90000 requests in \
                    3.00s, 20MB read\nRequests/sec:  30000.5\n";
        let done = parse(good, 100).unwrap();
        assert_eq!((done.requests, done.bytes), (90_000, 9_000_000));
        assert_eq!((done.p50, done.p99), (Some(150.0), Some(2500.0)));
        assert!((done.seconds - 3.0).abs() < 1e-9);
        let bad = format!("{good}  Non-2xx or 3xx responses: 3\n");
        assert!(matches!(parse(&bad, 100), Err(BenchError::Void(_))));
        assert!(parse("", 100).is_err());
    }
}
