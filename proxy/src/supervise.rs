//! A worker's own loops go on after a panic in one of them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

/// A loop that ran for so long before it panicked is counted from zero again.
const STABLE: Duration = Duration::from_secs(60);
/// Panics in a row after which a loop is given up, and its thread with it.
const MOST: u32 = 100;

/// Runs a loop of a worker, and again whenever it panics, without a pause: the worker's runtime has
/// no timers for one, and its connections need the loop. After too many panics in a row the panic
/// ends the thread, and the process drains and exits.
pub async fn restart_on_panic<F: Future<Output = ()>>(mut run: impl FnMut() -> F) {
    let mut panics = 0;
    loop {
        let begun = Instant::now();
        let Err(panic) = AssertUnwindSafe(run()).catch_unwind().await else {
            return;
        };
        if begun.elapsed() >= STABLE {
            panics = 0;
        }
        panics += 1;
        if panics == MOST {
            resume_unwind(panic);
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_loop_that_panics_is_restarted_until_it_has_panicked_too_often() {
        let runs = Cell::new(0);
        restart_on_panic(|| async {
            runs.set(runs.get() + 1);
            tokio::task::yield_now().await;
            assert!(runs.get() == 3, "on purpose");
        })
        .await;
        assert_eq!(runs.get(), 3);
        let given_up = AssertUnwindSafe(restart_on_panic(|| async { panic!("on purpose") }));
        assert!(given_up.catch_unwind().await.is_err());
    }
}
