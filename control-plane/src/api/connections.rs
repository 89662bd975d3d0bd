//! Connections of a port that asks for no credential: the webhook's, and that of metrics and health.
//! A new one is always accepted; the connections that are open at once are bounded in number and in
//! bytes. At a bound another connection is closed for the new one, so that idle or slow peers do
//! not keep the API server or the kubelet out.
//!
//! - [`BoundedConnections::open`]: at the bound of an address its oldest connection without a request
//!   is closed; at the bound of all, the oldest without a request of the address that has most
//! - [`BoundedConnection::hold`]: beyond the bytes of all, the one that holds most is closed

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Limits of the open connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) of_one_address: usize,
    /// Of request bodies and responses, of all connections.
    pub(crate) bytes: usize,
}

/// The open connections; see the module.
pub(crate) struct BoundedConnections {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// In the order in which they were accepted.
    open: BTreeMap<u64, Open>,
    /// Bytes of all open connections.
    bytes: usize,
}

struct Open {
    peer: IpAddr,
    /// `None`: the connection has just been accepted.
    task: Option<AbortHandle>,
    has_request: bool,
    bytes: usize,
}

/// An open connection; it is removed from the table when this is dropped.
pub(crate) struct BoundedConnection {
    of: Arc<BoundedConnections>,
    id: u64,
}

impl BoundedConnections {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let table = Mutex::default();
        Arc::new(BoundedConnections { bounds, table })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; returns whether another one was closed for it.
    pub(crate) fn open(self: &Arc<Self>, peer: IpAddr) -> (BoundedConnection, bool) {
        let peer = peer.to_canonical();
        let mut table = self.table();
        let closed = table.make_room(self.bounds, peer);
        let id = table.next;
        table.next = table.next.wrapping_add(1);
        let open = Open {
            peer,
            task: None,
            has_request: false,
            bytes: 0,
        };
        table.open.insert(id, open);
        drop(table);
        let of = Arc::clone(self);
        (BoundedConnection { of, id }, closed)
    }

    /// The task that serves a connection.
    pub(crate) fn started(&self, id: u64, task: AbortHandle) {
        if let Some(open) = self.table().open.get_mut(&id) {
            open.task = Some(task);
        }
    }
}

impl Table {
    fn make_room(&mut self, bounds: Bounds, peer: IpAddr) -> bool {
        let of_peer = |open: &Open| open.peer == peer;
        let count = self.open.values().filter(|open| of_peer(open)).count();
        if count >= bounds.of_one_address {
            self.close_oldest(of_peer)
        } else if self.open.len() >= bounds.connections {
            self.close_of_most()
        } else {
            false
        }
    }

    /// Closes the oldest connection of the address that has most of those without a request; if each
    /// has a request, of the address that has most.
    fn close_of_most(&mut self) -> bool {
        let busy = self.open.values().all(|open| open.has_request);
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for open in self.open.values() {
            if busy || !open.has_request {
                let count = counts.entry(open.peer).or_default();
                *count = count.saturating_add(1);
            }
        }
        let most = counts.values().max().copied();
        self.close_oldest(|open| counts.get(&open.peer).copied() == most)
    }

    /// Closes the oldest connection without a request among those that match `of`; if each has a
    /// request, the oldest.
    fn close_oldest(&mut self, of: impl Fn(&Open) -> bool) -> bool {
        let all = || self.open.iter().filter(|(_, open)| of(open));
        let idle = all().find(|(_, open)| !open.has_request);
        let found = idle.or_else(|| all().next());
        let id = found.map(|(id, _)| *id);
        self.close(id)
    }

    fn close(&mut self, id: Option<u64>) -> bool {
        let Some(open) = id.and_then(|id| self.open.remove(&id)) else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(open.bytes);
        if let Some(task) = open.task {
            task.abort();
        }
        true
    }

    /// Closes the one that holds most bytes, except `but`.
    fn close_largest(&mut self, but: u64) -> bool {
        let others = self.open.iter().filter(|(id, _)| **id != but);
        let holding = others.filter(|(_, open)| open.bytes > 0);
        let largest = holding.max_by_key(|(_, open)| open.bytes);
        let id = largest.map(|(id, _)| *id);
        self.close(id)
    }
}

impl BoundedConnection {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// A request has begun, or its response has been sent.
    pub(crate) fn has_request(&self, has_request: bool) {
        if let Some(open) = self.of.table().open.get_mut(&self.id) {
            open.has_request = has_request;
        }
    }

    /// Sets the bytes that the connection holds; returns how many connections were closed for them.
    pub(crate) fn hold(&self, bytes: usize) -> u64 {
        let mut table = self.of.table();
        let Some(open) = table.open.get_mut(&self.id) else {
            return 0;
        };
        let before = std::mem::replace(&mut open.bytes, bytes);
        table.bytes = table.bytes.saturating_sub(before).saturating_add(bytes);
        let mut closed = 0u64;
        while table.bytes > self.of.bounds.bytes && table.close_largest(self.id) {
            closed = closed.saturating_add(1);
        }
        closed
    }
}

impl Drop for BoundedConnection {
    fn drop(&mut self) {
        let mut table = self.of.table();
        if let Some(open) = table.open.remove(&self.id) {
            table.bytes = table.bytes.saturating_sub(open.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    const BOUNDS: Bounds = Bounds {
        connections: 4,
        of_one_address: 2,
        bytes: 100,
    };

    struct Server {
        all: Arc<BoundedConnections>,
        tasks: Vec<JoinHandle<()>>,
        open: Vec<BoundedConnection>,
    }

    impl Server {
        fn new() -> Self {
            Server {
                all: BoundedConnections::new(BOUNDS),
                tasks: Vec::new(),
                open: Vec::new(),
            }
        }

        fn accept(&mut self, last: u8) -> &BoundedConnection {
            let (connection, _) = self.all.open(IpAddr::from([10, 0, 0, last]));
            let task = tokio::spawn(std::future::pending());
            self.all.started(connection.id(), task.abort_handle());
            self.tasks.push(task);
            self.open.push(connection);
            self.open.last().unwrap()
        }

        /// The numbers of the connections that are still open.
        async fn left(&self) -> Vec<usize> {
            // Aborted tasks end only when the runtime polls them next.
            tokio::task::yield_now().await;
            let tasks = self.tasks.iter().enumerate();
            let left = tasks.filter(|(_, task)| !task.is_finished());
            left.map(|(number, _)| number).collect()
        }
    }

    #[tokio::test]
    async fn the_oldest_without_a_request_makes_room() {
        let mut server = Server::new();
        server.accept(1).has_request(true);
        for last in 2..=6 {
            server.accept(last);
        }
        assert_eq!(server.left().await, [0, 3, 4, 5]);
        server.open[0].has_request(false);
        server.accept(7);
        assert_eq!(server.left().await, [3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn connections_of_one_address_close_none_of_another() {
        let mut server = Server::new();
        server.accept(1);
        for _ in 0..9 {
            server.accept(9).has_request(true);
        }
        assert_eq!(server.left().await, [0, 8, 9]);
    }

    #[tokio::test]
    async fn the_address_that_has_most_makes_room() {
        let mut server = Server::new();
        for last in [1, 2, 2, 3, 4] {
            server.accept(last);
        }
        assert_eq!(server.left().await, [0, 2, 3, 4]);
        // Those with a request do not count while others have none.
        let mut server = Server::new();
        for last in [1, 2, 2, 3] {
            server.accept(last);
        }
        for busy in [1, 2] {
            server.open[busy].has_request(true);
        }
        server.accept(4);
        assert_eq!(server.left().await, [1, 2, 3, 4]);
        for busy in [3, 4] {
            server.open[busy].has_request(true);
        }
        server.accept(5);
        assert_eq!(server.left().await, [2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn the_connection_with_the_most_bytes_is_closed_beyond_the_bound() {
        let mut server = Server::new();
        for (last, bytes) in [(1, 5), (2, 60), (3, 30), (4, 0)] {
            assert_eq!(server.accept(last).hold(bytes), 0);
        }
        assert_eq!(server.open[3].hold(10), 1);
        assert_eq!(server.left().await, [0, 2, 3]);
        // A closed connection holds no bytes any more.
        assert_eq!(server.open[1].hold(100), 0);
        server.open.remove(2);
        assert_eq!(server.open[2].hold(90), 0);
        // A single connection is bounded by the size of a body.
        assert_eq!(server.open[2].hold(200), 1);
    }
}
