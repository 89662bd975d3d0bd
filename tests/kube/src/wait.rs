//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks until there is an answer. An `Err` says what was seen instead.
///
/// # Panics
/// When `patience` ends before, with the last thing seen.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: F) -> T
where
    F: AsyncFnMut() -> Result<T, String>,
{
    let deadline = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() >= deadline => {
                panic!("{what}: not within {patience:?}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
