//! One run of an operation for all concurrent callers: callers that come while it runs share it,
//! and later ones get its result for a while. So no peer makes it run more often.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

type SharedRun<T> = Shared<BoxFuture<'static, T>>;

/// See the module.
pub(crate) struct Joined<T: Clone> {
    kept_for: Duration,
    slot: Arc<RunSlot<T>>,
}

/// The run under way, or the one whose result is kept.
struct RunSlot<T: Clone>(Mutex<Option<SharedRun<T>>>);

impl<T: Clone> RunSlot<T> {
    fn lock(&self) -> MutexGuard<'_, Option<SharedRun<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Send + Sync + 'static> Joined<T> {
    /// `kept_for`: how long a run's result is returned after its end.
    pub(crate) fn new(kept_for: Duration) -> Self {
        let slot = Arc::new(RunSlot(Mutex::new(None)));
        Joined { kept_for, slot }
    }

    /// The result of the run under way or kept, otherwise of the one that `begin` gives. The run
    /// goes on when its callers no longer wait, so it must end by itself.
    pub(crate) async fn get<F>(&self, begin: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let run = self.join(begin);
        run.await
    }

    fn join<F>(&self, begin: impl FnOnce() -> F) -> SharedRun<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut slot = self.slot.lock();
        if let Some(run) = &*slot {
            return run.clone();
        }
        let run = begin().boxed().shared();
        *slot = Some(run.clone());
        let emptied = EmptiedSlot(Arc::clone(&self.slot));
        tokio::spawn(drive(run.clone(), self.kept_for, emptied));
        run
    }
}

/// Drives a run to its end, even if all callers are gone, and drops its result after a while.
async fn drive<T: Clone>(run: SharedRun<T>, kept_for: Duration, slot: EmptiedSlot<T>) {
    run.await;
    tokio::time::sleep(kept_for).await;
    drop(slot);
}

/// Empties the slot when it is dropped, after a panic of the run as well: the next caller then
/// begins another.
struct EmptiedSlot<T: Clone>(Arc<RunSlot<T>>);

impl<T: Clone> Drop for EmptiedSlot<T> {
    fn drop(&mut self) {
        let ended = self.0.lock().take();
        // Not while the slot is locked: a result may be large.
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Poll;
    use tokio::sync::Notify;

    const LONG: Duration = Duration::from_secs(3600);

    /// Counts its runs, each of which ends when it is let.
    struct Counted {
        joined: Joined<usize>,
        runs: Arc<AtomicUsize>,
        may_end: Arc<Notify>,
    }

    impl Counted {
        fn new(kept_for: Duration) -> Self {
            Counted {
                joined: Joined::new(kept_for),
                runs: Arc::default(),
                may_end: Arc::default(),
            }
        }

        async fn get(&self) -> usize {
            let (runs, may_end) = (self.runs.clone(), self.may_end.clone());
            let begin = || async move {
                let number = runs.fetch_add(1, Relaxed) + 1;
                may_end.notified().await;
                number
            };
            self.joined.get(begin).await
        }
    }

    #[tokio::test]
    async fn callers_share_a_run_and_its_result() {
        let counted = Counted::new(LONG);
        let both = async { tokio::join!(counted.get(), counted.get()) };
        counted.may_end.notify_one();
        assert_eq!(both.await, (1, 1));
        assert_eq!(counted.get().await, 1);
        assert_eq!(counted.runs.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_run_continues_when_its_caller_is_dropped() {
        let counted = Counted::new(LONG);
        for _ in 0..20 {
            let mut caller = Box::pin(counted.get());
            let begun = poll_fn(|cx| Poll::Ready(caller.as_mut().poll(cx)));
            assert!(begun.await.is_pending());
        }
        counted.may_end.notify_one();
        assert_eq!(counted.get().await, 1);
        assert_eq!(counted.runs.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn after_a_while_there_is_another_run() {
        let counted = Counted::new(Duration::ZERO);
        counted.may_end.notify_one();
        assert_eq!(counted.get().await, 1);
        counted.may_end.notify_one();
        while counted.get().await == 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(counted.runs.load(Relaxed), 2);
    }

    async fn panics() -> usize {
        panic!("as the test wants")
    }

    #[tokio::test]
    async fn a_panic_is_not_kept() {
        let joined = Arc::new(Joined::new(LONG));
        let failing = joined.clone();
        let failed = tokio::spawn(async move { failing.get(panics).await });
        assert!(failed.await.unwrap_err().is_panic());
        while joined.slot.lock().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(joined.get(|| async { 7 }).await, 7);
    }
}
