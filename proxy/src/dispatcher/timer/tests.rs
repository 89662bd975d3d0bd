//! Deadlines on a clock that advances by itself.

use std::pin::pin;

use super::*;

fn run<F: Future>(test: impl FnOnce(Timers) -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let timers = Timers::new();
        let driver = timers.clone();
        tokio::task::spawn_local(async move { driver.drive(&TimerFd::new().unwrap()).await });
        test(timers).await
    })
}

#[test]
fn deadlines_fire_in_order_and_not_before() {
    run(|timers| async move {
        let start = Instant::now();
        timers.sleep(Duration::from_millis(30)).await;
        assert!(start.elapsed() >= Duration::from_millis(30));
        let slow = timers.sleep(Duration::from_secs(60));
        assert_eq!(
            timers.timeout(Duration::from_millis(20), slow).await,
            Err(Elapsed)
        );
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_moved_deadline_counts_from_where_it_was_moved_to() {
    run(|timers| async move {
        let timer = timers.timer();
        timer.set(Duration::from_millis(10));
        timer.set(Duration::from_millis(50));
        let start = Instant::now();
        timer.expired().await;
        assert!(start.elapsed() >= Duration::from_millis(45));
        timer.set(Duration::from_secs(60));
        timer.set(Duration::from_millis(10));
        timer.expired().await;
        assert!(start.elapsed() < Duration::from_secs(10));
        timer.set(Duration::from_millis(10));
        timer.clear();
        assert!(!timer.is_expired());
    });
}

/// Returns once the system's clock is past `instant`.
fn pass(instant: Instant) {
    while Instant::now() <= instant {
        std::hint::spin_loop();
    }
}

#[test]
fn the_clock_stands_still_in_a_poll_and_only_there() {
    run(|timers| async move {
        let (clock, caching) = (timers.clone(), timers.clone());
        let task = async move {
            let first = clock.now();
            pass(first);
            assert_eq!(clock.now(), first);
            clock.sleep(Duration::from_millis(10)).await;
            assert!(clock.now() >= first + Duration::from_millis(10));
        };
        caching.with_cached_clock(task).await;
        let first = timers.now();
        pass(first);
        assert!(timers.now() > first);
    });
}

#[test]
fn the_clock_advances_after_a_poll_that_panicked() {
    run(|timers| async move {
        let clock = timers.clone();
        let task = timers.with_cached_clock(async move {
            clock.now();
            panic!("on purpose");
        });
        let ended = tokio::task::spawn_local(task).await;
        assert!(ended.is_err_and(|error| error.is_panic()));
        let first = timers.now();
        pass(first);
        assert!(timers.now() > first);
    });
}

#[test]
fn moving_later_does_not_touch_the_wheel() {
    run(|timers| async move {
        let timer = timers.timer();
        timer.set(Duration::from_secs(60));
        let slot = timer.entry.slot.get();
        timer.set(Duration::from_secs(90));
        assert_eq!(timer.entry.slot.get(), slot);
        assert_eq!(timers.0.slots.borrow().len(), 1);
        drop(timer);
        assert!(timers.0.slots.borrow().is_empty());
    });
}

/// Counts how often a future is polled.
async fn polls(count: Rc<Cell<u64>>, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    std::future::poll_fn(|cx| {
        count.set(count.get() + 1);
        task.as_mut().poll(cx)
    })
    .await;
}

#[test]
fn a_process_that_has_run_for_years_waits_as_one_that_just_began() {
    const DAY: u64 = 24 * 3600;
    // The ticks of 248.5 days fill 32 bits.
    for days in [0, 248, 249, 1_000, 36_500] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build_local(tokio::runtime::LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let timers = Timers::since(Instant::now() - Duration::from_secs(days * DAY));
            let (driver, count) = (timers.clone(), Rc::new(Cell::new(0)));
            let driving = polls(count.clone(), async move {
                driver.drive(&TimerFd::new().unwrap()).await;
            });
            tokio::task::spawn_local(driving);
            let start = Instant::now();
            let far = timers.timer();
            far.set(Duration::MAX);
            timers.sleep(Duration::from_millis(50)).await;
            assert!(start.elapsed() >= Duration::from_millis(50), "{days} days");
            assert!(count.get() < 20, "{days} days: {} polls", count.get());
            assert!(!far.is_expired());
        });
    }
}

/// A task that sets its timer whenever it runs, to the earliest of several deadlines, must see that
/// this one has passed.
#[test]
fn a_deadline_that_has_passed_stays_passed_when_it_is_set_again() {
    run(|timers| async move {
        let timer = timers.timer();
        let deadline = timers.now() + Duration::from_millis(10);
        timer.set_at(deadline);
        timer.expired().await;
        timer.set_at(deadline);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(timer.poll_expired(&mut cx).is_ready());
        timer.set(Duration::from_secs(60));
        assert!(timer.poll_expired(&mut cx).is_pending());
    });
}
