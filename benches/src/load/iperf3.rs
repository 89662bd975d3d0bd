//! iperf3: one connection, one way, as fast as it goes; its server in place of the app.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Done;
use crate::{BenchError, app};

/// Streams through `port` for `lasting`. `up`: from the client.
pub fn run(up: bool, port: u16, lasting: Duration) -> Result<Done, BenchError> {
    let mut client = Command::new("iperf3");
    client.args(["-J", "-c", "127.0.0.1", "-p"]);
    client.arg(port.to_string());
    client.arg("-t").arg(lasting.as_secs().max(1).to_string());
    if !up {
        client.arg("-R");
    }
    let output = client.output().map_err(failed)?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The server; ended on drop.
pub struct Server(Child);

impl Server {
    /// Returns once it listens.
    pub fn start() -> Result<Self, BenchError> {
        let mut command = Command::new("iperf3");
        command.args(["-s", "--forceflush", "-p"]);
        command.arg(app::STREAM.to_string());
        // It logs an error for each connection that only checks whether a port is open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().map_err(failed)?);
        let began = Instant::now();
        while let Err(error) = TcpStream::connect(("127.0.0.1", app::STREAM)) {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(failed(error));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(error: std::io::Error) -> BenchError {
    BenchError::Io {
        what: "iperf3".into(),
        error,
    }
}

fn parse(text: &str) -> Result<Done, BenchError> {
    let unknown = || BenchError::Unknown("iperf3", text.to_owned());
    let report: Value = serde_json::from_str(text).map_err(|_| unknown())?;
    if let Some(error) = report["error"].as_str() {
        return Err(BenchError::Void(format!("iperf3: {error}")));
    }
    let received = &report["end"]["sum_received"];
    let bytes = received["bytes"].as_u64().ok_or_else(unknown)?;
    if bytes == 0 {
        return Err(BenchError::Void("the stream carried nothing".into()));
    }
    Ok(Done {
        requests: 1,
        bytes,
        seconds: received["seconds"].as_f64().ok_or_else(unknown)?,
        ..Done::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_silence_void_the_round() {
        let good = r#"{"end":{"sum_received":{"bytes":7,"seconds":1.5}}}"#;
        assert_eq!(parse(good).unwrap().bytes, 7);
        assert!(parse(r#"{"end":{"sum_received":{"bytes":0,"seconds":1.5}}}"#).is_err());
        assert!(parse(r#"{"end":{},"error":"the server is busy"}"#).is_err());
        assert!(parse("").is_err());
    }
}
