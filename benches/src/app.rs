//! What stands behind the proxies, a process of its own.
//!
//! - HTTP/1.1: 100 bytes, `/64k` or `/1m`; HTTP/2: the same, `/grpc` and `/stream` with trailers
//! - TCP: 100 bytes for 100 bytes, 1 MiB for 100 bytes

mod http2;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::BenchError;

pub const HTTP1: u16 = 20_000;
pub const HTTP2: u16 = 20_003;
/// 100 bytes are answered by 100.
pub const ECHO: u16 = 20_010;
/// 100 bytes are answered by 1 MiB.
pub const BULK: u16 = 20_011;
/// Where a stream's server listens, which comes with its load.
pub const STREAM: u16 = 20_012;

/// Bytes of a small message.
pub const SMALL: usize = 100;
pub const MEBIBYTE: usize = 1 << 20;

/// The process that serves; ended on drop.
pub struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        // Fails only if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `program`, which is `anyam-bench`, to serve: the load's connections and the app's would
/// be too many for one process.
///
/// # Errors
/// When it does not come to serve.
pub fn start(program: &Path) -> Result<App, BenchError> {
    let failed = |error| BenchError::Io {
        what: "the app behind the proxies".into(),
        error,
    };
    let mut command = Command::new(program);
    let process = command.arg("--serve").stdin(Stdio::null()).spawn();
    let app = App(process.map_err(failed)?);
    let began = Instant::now();
    while let Err(error) = std::net::TcpStream::connect(("127.0.0.1", BULK)) {
        if began.elapsed() > Duration::from_secs(10) {
            return Err(failed(error));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(app)
}

/// Serves until the process is ended.
///
/// # Errors
/// When a port is taken.
pub fn serve() -> Result<(), BenchError> {
    let failed = |error| BenchError::Io {
        what: "the app behind the proxies".into(),
        error,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        for port in [HTTP1, HTTP2, ECHO, BULK] {
            let listener = TcpListener::bind(("127.0.0.1", port)).await;
            tokio::spawn(accept(listener.map_err(failed)?, port));
        }
        std::future::pending().await
    })
}

async fn accept(listener: TcpListener, port: u16) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors; some will be closed.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // Without NODELAY the kernel holds answers back, which would be measured too.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        // A connection that breaks is the load's to report.
        tokio::spawn(async move {
            let _ = match port {
                HTTP1 => http1(stream).await,
                HTTP2 => http2::serve(stream).await,
                ECHO => answer(stream, SMALL).await,
                _ => answer(stream, MEBIBYTE).await,
            };
        });
    }
}

/// Length in bytes of the body that `path` requests.
fn size(path: &[u8]) -> usize {
    match path {
        b"/1m" => MEBIBYTE,
        b"/64k" => 64 * 1024,
        _ => SMALL,
    }
}

/// Answers each request head; the load sends no bodies.
async fn http1(mut stream: TcpStream) -> std::io::Result<()> {
    let response = |size: usize| {
        let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").into_bytes();
        head.resize(head.len() + size, b'x');
        head
    };
    let mut answers: Vec<(usize, Vec<u8>)> = vec![(SMALL, response(SMALL))];
    let mut buffer = Vec::with_capacity(16 << 10);
    while stream.read_buf(&mut buffer).await? > 0 {
        while let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let path = buffer.split(|byte| *byte == b' ').nth(1);
            let size = size(path.unwrap_or_default());
            if !answers.iter().any(|(known, _)| *known == size) {
                answers.push((size, response(size)));
            }
            buffer.drain(..end + 4);
            if let Some((_, answer)) = answers.iter().find(|(known, _)| *known == size) {
                stream.write_all(answer).await?;
            }
        }
    }
    Ok(())
}

async fn answer(mut stream: TcpStream, size: usize) -> std::io::Result<()> {
    let answer = vec![b'x'; size];
    let mut request = [0; SMALL];
    while stream.read_exact(&mut request).await.is_ok() {
        stream.write_all(&answer).await?;
    }
    Ok(())
}
