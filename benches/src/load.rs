//! wrk, a closed-loop HTTP/1.1 load, and what it reports.

use std::process::Command;
use std::time::Duration;

use crate::BenchError;
use crate::cases::Case;

/// One run of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    pub requests: u64,
    /// Per second.
    pub rate: f64,
}

/// Loads the front for `lasting`.
///
/// # Errors
/// When wrk is missing, or any request failed or was answered otherwise than 2xx.
pub fn run(case: Case, lasting: Duration) -> Result<Load, BenchError> {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{}", case.connections())])
        .arg(format!("-d{}s", lasting.as_secs()))
        .arg("http://127.0.0.1:20001/")
        .output()
        .map_err(|error| BenchError::Io {
            what: "wrk".into(),
            error,
        })?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Result<Load, BenchError> {
    let trouble = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
    if let Some(line) = text.lines().find(trouble) {
        return Err(BenchError::Void(line.trim().to_owned()));
    }
    let unknown = || BenchError::Wrk(text.to_owned());
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .ok_or_else(unknown)?;
    let rate = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"))
        .and_then(|rate| rate.trim().parse().ok())
        .ok_or_else(unknown)?;
    if requests == 0 {
        return Err(BenchError::Void("no request was answered".into()));
    }
    Ok(Load { requests, rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_void_the_round() {
        let good =
            "Running 3s test\n  90000 requests in 3.00s, 20MB read\nRequests/sec:  30000.5\n";
        assert_eq!(
            parse(good).unwrap(),
            Load {
                requests: 90_000,
                rate: 30_000.5
            }
        );
        let bad = format!("{good}  Non-2xx or 3xx responses: 3\n");
        assert!(matches!(parse(&bad), Err(BenchError::Void(_))));
        assert!(parse("").is_err());
    }
}
