//! Messages over TCP, by a single thread.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Done, block_on, void};
use crate::BenchError;
use crate::app::SMALL;

/// 100 bytes there and `answer` back, again and again, on each of some connections.
pub fn messages(
    connections: usize,
    answer: usize,
    port: u16,
    lasting: Duration,
) -> Result<Done, BenchError> {
    block_on(async move {
        let (began, until) = (Instant::now(), Instant::now() + lasting);
        let count = Rc::new(Cell::new(0u64));
        let one = |count: Rc<Cell<u64>>| async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let request = [b'q'; SMALL];
            let mut room = vec![0; answer.min(256 << 10)];
            while Instant::now() < until {
                stream.write_all(&request).await?;
                let mut left = answer;
                while left > 0 {
                    let most = left.min(room.len());
                    match stream.read(&mut room[..most]).await? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        read => left -= read,
                    }
                }
                count.set(count.get() + 1);
            }
            Ok::<(), std::io::Error>(())
        };
        let tasks: Vec<_> = (0..connections)
            .map(|_| tokio::task::spawn_local(one(count.clone())))
            .collect();
        for task in tasks {
            task.await.map_err(void)?.map_err(void)?;
        }
        Ok(Done {
            requests: count.get(),
            bytes: count.get() * answer as u64,
            seconds: began.elapsed().as_secs_f64(),
            ..Done::default()
        })
    })
}
