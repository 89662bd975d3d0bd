//! Waits for a condition, with a time limit.

use std::time::{Duration, Instant};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls `ask` until it returns a value. An `Err` describes what was there instead.
///
/// # Panics
/// When `timeout` is over first, with the last description.
pub async fn until<T, F>(what: &str, timeout: Duration, mut ask: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let deadline = Instant::now() + timeout;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() >= deadline => {
                panic!("{what}: not within {timeout:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
