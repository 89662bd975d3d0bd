//! What stands behind the proxies: an HTTP/1.1 server that answers 100 bytes and nothing else.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::BenchError;

/// Where it listens.
const ADDRESS: &str = "127.0.0.1:20000";

/// Starts the server on a thread of its own.
///
/// # Errors
/// When the port is taken.
pub fn start() -> Result<(), BenchError> {
    let failed = |error| BenchError::Io {
        what: format!("the app at {ADDRESS}"),
        error,
    };
    let listener = std::net::TcpListener::bind(ADDRESS).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    Ok(())
}

/// Answers each request head; the load sends no bodies.
async fn serve(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
        "x".repeat(100)
    )
    .into_bytes();
    // Without NODELAY the kernel holds answers back, which would be measured too.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}
