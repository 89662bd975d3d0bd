//! Connections of one port: a new one is always accepted; at the limit the connection that has been
//! idle longest is closed. So connections that a peer holds open cannot keep a probe or a scraper
//! from an answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::task::AbortHandle;

/// How many connections a port holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) all: usize,
    pub(super) of_one_address: usize,
}

/// Requests that a connection is answering.
#[derive(Clone, Default)]
pub(super) struct Answering(Arc<AtomicUsize>);

impl Answering {
    /// Runs `answer`; meanwhile its connection is not among the first to be closed.
    pub(super) async fn during<T>(&self, answer: impl Future<Output = T>) -> T {
        self.0.fetch_add(1, Relaxed);
        let _ended = AnswerGuard(&self.0);
        answer.await
    }

    fn is_idle(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// Ends the count of an answer under way, also when its future is dropped.
struct AnswerGuard<'a>(&'a AtomicUsize);

impl Drop for AnswerGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

struct Connection {
    peer: IpAddr,
    answering: Answering,
    task: AbortHandle,
}

/// The open connections, oldest first.
pub(super) struct PortConnections {
    bounds: Bounds,
    connections: VecDeque<Connection>,
}

impl PortConnections {
    pub(super) fn new(bounds: Bounds) -> Self {
        let connections = VecDeque::new();
        Self {
            bounds,
            connections,
        }
    }

    /// Closes one connection where a bound is reached, so that one of `peer` can be accepted.
    pub(super) fn make_room(&mut self, peer: IpAddr) {
        self.connections.retain(|held| !held.task.is_finished());
        let same = |held: &Connection| held.peer == peer;
        let of_peer = self.connections.iter().filter(|held| same(held)).count();
        if of_peer >= self.bounds.of_one_address {
            self.drop_one(same);
        } else if self.connections.len() >= self.bounds.all {
            self.drop_one(|_| true);
        }
    }

    pub(super) fn add(&mut self, peer: IpAddr, answering: Answering, task: AbortHandle) {
        self.connections.push_back(Connection {
            peer,
            answering,
            task,
        });
    }

    /// Closes the oldest of these that has no request; where each has one, the oldest of all.
    fn drop_one(&mut self, of: impl Fn(&Connection) -> bool) {
        let all = || self.connections.iter();
        let idle = all().position(|held| of(held) && held.answering.is_idle());
        let at = idle.or_else(|| all().position(of));
        if let Some(held) = at.and_then(|at| self.connections.remove(at)) {
            held.task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    const BOUNDS: Bounds = Bounds {
        all: 4,
        of_one_address: 2,
    };

    struct Table {
        held: PortConnections,
        tasks: Vec<JoinHandle<()>>,
    }

    impl Table {
        fn new() -> Self {
            let (held, tasks) = (PortConnections::new(BOUNDS), Vec::new());
            Self { held, tasks }
        }

        fn come(&mut self, last: u8) -> Answering {
            let peer = IpAddr::from([10, 0, 0, last]);
            let task = tokio::spawn(std::future::pending());
            let answering = Answering::default();
            self.held.make_room(peer);
            self.held.add(peer, answering.clone(), task.abort_handle());
            self.tasks.push(task);
            answering
        }

        /// The numbers of those that are still there.
        async fn left(&self) -> Vec<usize> {
            // Aborted tasks end only when the runtime polls them next.
            tokio::task::yield_now().await;
            let tasks = self.tasks.iter().enumerate();
            tasks
                .filter(|(_, task)| !task.is_finished())
                .map(|(n, _)| n)
                .collect()
        }
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room() {
        let mut table = Table::new();
        for last in 1..=4 {
            table.come(last);
        }
        table.come(5);
        assert_eq!(table.left().await, [1, 2, 3, 4]);
        table.come(6);
        assert_eq!(table.left().await, [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn one_address_takes_the_places_of_no_other() {
        let mut table = Table::new();
        table.come(1);
        for _ in 0..20 {
            table.come(9);
        }
        assert_eq!(table.left().await, [0, 19, 20]);
    }

    #[tokio::test]
    async fn one_that_is_being_answered_stays_while_others_are_idle() {
        let mut table = Table::new();
        let busy = table.come(1);
        let mut answer = Box::pin(busy.during(std::future::pending::<()>()));
        let begun = std::future::poll_fn(|cx| std::task::Poll::Ready(answer.as_mut().poll(cx)));
        assert!(begun.await.is_pending());
        for last in 2..=6 {
            table.come(last);
        }
        assert_eq!(table.left().await, [0, 3, 4, 5]);
        // A connection whose answer was dropped counts as idle.
        drop(answer);
        table.come(7);
        assert_eq!(table.left().await, [3, 4, 5, 6]);
    }
}
