//! Connections of the webhook. A new one is always accepted; the connections that are open at once
//! are bounded in number and in bytes. At a bound another connection is closed for the new one, so
//! that idle or slow peers, which need no credential, do not keep the API server out.
//!
//! - [`WebhookConnections::open`]: at the bound the oldest connection without a request is closed
//! - [`WebhookConnection::hold`]: beyond the bytes of all, the one that holds most is closed

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// Limits of the open connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) of_one_address: usize,
    /// Of request bodies and responses, of all connections.
    pub(super) bytes: usize,
}

/// The open connections; see the module.
pub(super) struct WebhookConnections {
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
pub(super) struct WebhookConnection {
    of: Arc<WebhookConnections>,
    id: u64,
}

impl WebhookConnections {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let table = Mutex::default();
        Arc::new(WebhookConnections { bounds, table })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection; returns whether another one was closed for it.
    pub(super) fn open(self: &Arc<Self>, peer: IpAddr) -> (WebhookConnection, bool) {
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
        (WebhookConnection { of, id }, closed)
    }

    /// The task that serves a connection.
    pub(super) fn started(&self, id: u64, task: AbortHandle) {
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
            self.close_oldest(|_| true)
        } else {
            false
        }
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

impl WebhookConnection {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// A request has begun, or its response has been sent.
    pub(super) fn has_request(&self, has_request: bool) {
        if let Some(open) = self.of.table().open.get_mut(&self.id) {
            open.has_request = has_request;
        }
    }

    /// Sets the bytes that the connection holds; returns how many connections were closed for them.
    pub(super) fn hold(&self, bytes: usize) -> u64 {
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

impl Drop for WebhookConnection {
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
        all: Arc<WebhookConnections>,
        tasks: Vec<JoinHandle<()>>,
        open: Vec<WebhookConnection>,
    }

    impl Server {
        fn new() -> Self {
            Server {
                all: WebhookConnections::new(BOUNDS),
                tasks: Vec::new(),
                open: Vec::new(),
            }
        }

        fn accept(&mut self, last: u8) -> &WebhookConnection {
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
