//! A connection for each request, and one HTTP/1.1 exchange by hand.

use std::cell::Cell;
use std::io::{Error, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Done, answer, block_on, void};
use crate::{BenchError, app};

/// `at_once` loops of connect, request, close.
pub fn run(at_once: usize, port: u16, lasting: Duration) -> Result<Done, BenchError> {
    block_on(async move {
        loops(at_once, lasting, move || async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            exchange(&mut stream, true).await
        })
        .await
    })
}

/// Does `once` again and again, `at_once` at a time, for `lasting`.
pub async fn loops<F, T>(at_once: usize, lasting: Duration, once: F) -> Result<Done, BenchError>
where
    F: Fn() -> T + Clone + 'static,
    T: Future<Output = std::io::Result<()>>,
{
    let (began, until) = (Instant::now(), Instant::now() + lasting);
    let count = Rc::new(Cell::new(0u64));
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (count, once) = (count.clone(), once.clone());
            tokio::task::spawn_local(async move {
                while Instant::now() < until {
                    once().await?;
                    count.set(count.get() + 1);
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(void)?.map_err(void)?;
    }
    Ok(Done {
        requests: count.get(),
        bytes: count.get() * app::SMALL as u64,
        seconds: began.elapsed().as_secs_f64(),
        ..Done::default()
    })
}

/// One request for 100 bytes and its whole answer, which must be 200. `last`: the connection ends.
pub async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    last: bool,
) -> std::io::Result<()> {
    let request: &[u8] = match last {
        true => b"GET / HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n",
        false => b"GET / HTTP/1.1\r\nhost: app\r\n\r\n",
    };
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut got = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut got).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if answer::is_whole(&got)? {
            return Ok(());
        }
    }
}
