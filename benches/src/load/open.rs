//! HTTP/1.1 at a fixed rate. Each request has a time at which it is due, whatever became of those
//! before it, and its latency counts from there: a proxy that stalls pays for every request that
//! it kept waiting (no coordinated omission).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::connect::exchange;
use super::{Done, block_on, void};
use crate::{BenchError, app};

/// `rate` requests a second in all, spread over `connections`.
pub fn run(
    rate: u32,
    connections: usize,
    port: u16,
    lasting: Duration,
) -> Result<Done, BenchError> {
    block_on(async move {
        let latencies = Rc::new(RefCell::new(Vec::new()));
        let step = Duration::from_secs(1) / rate;
        let began = Instant::now() + Duration::from_millis(20);
        let each = u32::try_from(connections).unwrap_or(u32::MAX);
        let per_connection = (lasting.as_secs_f64() * f64::from(rate)) as u32 / each;
        let tasks: Vec<_> = (0..each)
            .map(|first| {
                let latencies = latencies.clone();
                tokio::task::spawn_local(async move {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    stream.set_nodelay(true)?;
                    for turn in 0..per_connection {
                        let due = began + step * (first + turn * each);
                        sleep_until(due).await;
                        exchange(&mut stream, false).await?;
                        latencies.borrow_mut().push(due.elapsed());
                    }
                    Ok::<(), std::io::Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await.map_err(void)?.map_err(void)?;
        }
        let mut all = latencies.take();
        all.sort_unstable();
        let at = |share: f64| {
            let index = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            all.get(index).map(|latency| latency.as_secs_f64() * 1e6)
        };
        Ok(Done {
            requests: all.len() as u64,
            bytes: (all.len() * app::SMALL) as u64,
            seconds: began.elapsed().as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
        })
    })
}

/// Exact where the runtime's timer is coarse: the last stretch is waited for by turns.
async fn sleep_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > Duration::from_millis(2) {
        tokio::time::sleep(left - Duration::from_millis(2)).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}
