//! h2load (of nghttp2), and what it reports.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Done;
use crate::{BenchError, app};

/// Loads `path` for `lasting`; `body`: a gRPC message to send with each request.
pub fn run(
    (clients, streams): (usize, usize),
    path: &str,
    port: u16,
    lasting: Duration,
    body: Option<&Path>,
) -> Result<Done, BenchError> {
    let mut command = Command::new("h2load");
    command
        .args(["-t1", "-c"])
        .arg(clients.to_string())
        .arg("-m")
        .arg(streams.to_string())
        .arg("-D")
        .arg(lasting.as_secs().max(1).to_string());
    if let Some(body) = body {
        command.arg("-d").arg(body);
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
    }
    let output = command
        .arg(format!("http://127.0.0.1:{port}{path}"))
        .output()
        .map_err(|error| BenchError::Io {
            what: "h2load".into(),
            error,
        })?;
    parse(&String::from_utf8_lossy(&output.stdout), lasting)
}

fn parse(text: &str, lasting: Duration) -> Result<Done, BenchError> {
    let unknown = || BenchError::Unknown("h2load", text.to_owned());
    let line = |label: &str| text.lines().find_map(|line| line.strip_prefix(label));
    let counts = line("requests:").ok_or_else(unknown)?;
    let count = |what: &str| -> Result<u64, BenchError> {
        let mut parts = counts.split(',').map(str::trim);
        let part = parts.find_map(|part| part.strip_suffix(what));
        part.and_then(|n| n.trim().parse().ok()).ok_or_else(unknown)
    };
    let (failed, errored, late) = (count("failed")?, count("errored")?, count("timeout")?);
    if failed + errored + late > 0 || line("status codes:").is_none_or(|codes| !only_2xx(codes)) {
        let why = format!("h2load: {failed} failed, {errored} errored, {late} late;{counts}");
        return Err(BenchError::Void(why));
    }
    let requests = count("succeeded")?;
    if requests == 0 {
        return Err(BenchError::Void("no request was answered".into()));
    }
    Ok(Done {
        requests,
        bytes: requests * app::SMALL as u64,
        seconds: lasting.as_secs_f64(),
        ..Done::default()
    })
}

fn only_2xx(codes: &str) -> bool {
    let mut others = codes
        .split(',')
        .filter(|part| !part.trim().ends_with("2xx"));
    others.all(|part| part.trim().starts_with("0 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_void_the_round() {
        let report = |errored: u32, fives: u32| {
            format!(
                "finished in 2.00s, 100 req/s, 1KB/s\nrequests: 200 total, 200 started, 200 done, \
                 200 succeeded, 0 failed, {errored} errored, 0 timeout\nstatus codes: 200 2xx, 0 \
                 3xx, 0 4xx, {fives} 5xx\n"
            )
        };
        let lasting = Duration::from_secs(2);
        assert_eq!(parse(&report(0, 0), lasting).unwrap().requests, 200);
        assert!(parse(&report(1, 0), lasting).is_err());
        assert!(parse(&report(0, 3), lasting).is_err());
        assert!(parse("", lasting).is_err());
    }
}
