//! The work that proxies are given.
//!
//! - `wrk`, `h2load`, `iperf3`: the usual generators; `l4`: messages over TCP
//! - `open`: a fixed rate, whatever the answers do; `connect`: a connection for each request;
//!   `answer`: what both wait for
//!
//! Whatever fails, or is answered otherwise than 200, voids the round.

pub mod answer;
mod connect;
mod h2load;
pub mod held;
mod iperf3;
mod l4;
mod open;
pub mod tls;
mod wrk;

use std::time::Duration;

use crate::hop::FRONT;
use crate::{BenchError, app};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// HTTP/1.1, closed loop.
    Wrk {
        connections: usize,
        path: &'static str,
    },
    /// HTTP/2, closed loop.
    H2load {
        clients: usize,
        streams: usize,
        path: &'static str,
        grpc: bool,
    },
    /// 100 bytes there, so many back, closed loop.
    Messages { connections: usize, answer: usize },
    /// One connection, one way, as fast as it goes. `up`: from the client.
    Stream { up: bool },
    /// HTTP/1.1 at so many requests a second over some connections, latency from when each was
    /// due.
    Open { rate: u32, connections: usize },
    /// HTTP/1.1, each request on a connection of its own.
    Connections { at_once: usize },
    /// The same over mutual TLS. `resume`: with the tickets of earlier ones.
    Handshakes { at_once: usize, resume: bool },
}

/// What was transferred.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Done {
    pub requests: u64,
    /// Of the payload, one way.
    pub bytes: u64,
    pub seconds: f64,
    /// Microseconds, where they are taken.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

impl Load {
    /// Does it for `lasting`. `port`: in place of the proxies' front.
    ///
    /// # Errors
    /// When a generator is missing, or anything failed.
    pub fn run(
        self,
        lasting: Duration,
        port: Option<u16>,
        scratch: &std::path::Path,
    ) -> Result<Done, BenchError> {
        let port = port.unwrap_or(FRONT);
        match self {
            Load::Wrk { connections, path } => wrk::run(connections, path, port, lasting),
            Load::H2load {
                clients,
                streams,
                path,
                grpc,
            } => {
                let body = grpc.then(|| scratch.join("message"));
                h2load::run((clients, streams), path, port, lasting, body.as_deref())
            }
            Load::Messages {
                connections,
                answer,
            } => l4::messages(connections, answer, port, lasting),
            Load::Stream { up } => iperf3::run(up, port, lasting),
            Load::Open { rate, connections } => open::run(rate, connections, port, lasting),
            Load::Connections { at_once } => connect::run(at_once, port, lasting),
            Load::Handshakes { at_once, resume } => {
                tls::handshakes(at_once, resume, port, lasting, scratch)
            }
        }
    }

    /// The app of its own that it needs, for as long as that is held.
    ///
    /// # Errors
    /// When that cannot be started.
    pub fn server(self) -> Result<Option<iperf3::Server>, BenchError> {
        match self {
            Load::Stream { .. } => iperf3::Server::start().map(Some),
            _ => Ok(None),
        }
    }

    /// Bytes of a request's answer.
    pub fn answer(self) -> usize {
        match self {
            Load::Wrk { path: "/1m", .. } => app::MEBIBYTE,
            Load::Wrk { path: "/64k", .. } => 64 * 1024,
            Load::Messages { answer, .. } => answer,
            _ => app::SMALL,
        }
    }
}

/// Runs a future on a runtime of its own.
///
/// # Errors
/// When there is no runtime to be had, or as the future.
fn block_on<T>(future: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| BenchError::Io {
            what: "a runtime for the load".into(),
            error,
        })?
        .block_on(tokio::task::LocalSet::new().run_until(future))
}

/// Sends requests until the first is answered.
///
/// # Errors
/// When there is none within `limit`.
pub fn first_answer(
    tls: bool,
    scratch: &std::path::Path,
    limit: Duration,
) -> Result<(), BenchError> {
    let connector = tls::connector(scratch, false)?;
    block_on(async move {
        let began = std::time::Instant::now();
        loop {
            let asked = async {
                if tls {
                    let mut stream = tls::connect(&connector, FRONT).await?;
                    return connect::exchange(&mut stream, true).await;
                }
                let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", FRONT)).await?;
                connect::exchange(&mut stream, true).await
            };
            match asked.await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > limit => return Err(void(error)),
                Err(_) => tokio::time::sleep(Duration::from_micros(100)).await,
            }
        }
    })
}

/// Something broke under way.
fn void(what: impl std::fmt::Display) -> BenchError {
    BenchError::Void(what.to_string())
}
