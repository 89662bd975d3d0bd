//! The store: a line protocol over TCP in which the server speaks first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;

/// What the server sends before the client has sent anything.
pub const GREETING: &str = "READY shop-store";

pub async fn run(listen: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(listen).await?;
    let visits = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let visits = visits.clone();
        tokio::spawn(async move {
            // A client that disconnects needs no handling.
            let _ = serve(stream, &visits).await;
        });
    }
}

async fn serve(stream: TcpStream, visits: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("{GREETING}\n").as_bytes()).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let answer = match line.trim_end() {
            "INCR" => (visits.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
            other => format!("ERR unknown command {other:?}"),
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

/// One visit counted, as a client.
pub async fn increment(address: &str) -> std::io::Result<u64> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if line.trim_end() != GREETING {
        return Err(std::io::Error::other(format!(
            "unexpected greeting {line:?}"
        )));
    }
    stream.write_all(b"INCR\n").await?;
    line.clear();
    stream.read_line(&mut line).await?;
    line.trim_end()
        .parse()
        .map_err(|_| std::io::Error::other(format!("unexpected answer {line:?}")))
}
