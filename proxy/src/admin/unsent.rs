//! Bodies that are being sent on the ports that every peer can reach. Each stays in memory until
//! the peer has read it, however slowly. At the limit the connection with the oldest body is
//! closed, one of the same address first: so peers that do not read neither fill the memory nor
//! keep a scraper from its page.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bodies of a port that are being sent.
const MOST: usize = 8;
/// The same to one address.
const MOST_TO_ONE_ADDRESS: usize = 4;
/// A shorter body fits into the socket's buffer and is not counted, bytes.
const SHORT: usize = 16 << 10;

/// The bodies of one port.
#[derive(Default)]
pub(super) struct UnsentBodies(Mutex<Unsent>);

#[derive(Default)]
struct Unsent {
    /// Oldest first.
    bodies: VecDeque<UnsentBody>,
    next: u64,
}

struct UnsentBody {
    number: u64,
    peer: IpAddr,
    /// Closes its connection.
    close: Arc<Notify>,
}

impl UnsentBodies {
    /// The body, counted until it is sent or its connection has ended. `close`: what closes the
    /// connection.
    pub(super) fn counted(
        self: &Arc<Self>,
        body: Bytes,
        peer: IpAddr,
        close: &Arc<Notify>,
    ) -> Bytes {
        if body.len() <= SHORT {
            return body;
        }
        let mut unsent = self.lock();
        let same = |other: &UnsentBody| other.peer == peer;
        let excess =
            if unsent.bodies.iter().filter(|other| same(other)).count() >= MOST_TO_ONE_ADDRESS {
                unsent.bodies.iter().position(same)
            } else if unsent.bodies.len() >= MOST {
                Some(0)
            } else {
                None
            };
        if let Some(oldest) = excess.and_then(|at| unsent.bodies.remove(at)) {
            oldest.close.notify_one();
        }
        let number = unsent.next;
        unsent.next = number.wrapping_add(1);
        unsent.bodies.push_back(UnsentBody {
            number,
            peer,
            close: Arc::clone(close),
        });
        drop(unsent);
        Bytes::from_owner(CountedBody {
            body,
            number,
            of: Arc::clone(self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Unsent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped when its last byte is written, or with its connection.
struct CountedBody {
    body: Bytes,
    number: u64,
    of: Arc<UnsentBodies>,
}

impl AsRef<[u8]> for CountedBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        let number = self.number;
        self.of.lock().bodies.retain(|body| body.number != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[derive(Default)]
    struct Table {
        bodies: Arc<UnsentBodies>,
        /// What closes each, in order.
        closes: Vec<Arc<Notify>>,
    }

    impl Table {
        fn begin(&mut self, last: u8) -> Bytes {
            let (body, close) = (Bytes::from(vec![0; SHORT + 1]), Arc::default());
            let peer = IpAddr::from([10, 0, 0, last]);
            let body = self.bodies.counted(body, peer, &close);
            self.closes.push(close);
            body
        }

        /// The numbers of those that were closed since the last look.
        fn closed(&self) -> Vec<usize> {
            let closes = self.closes.iter().enumerate();
            closes
                .filter(|(_, close)| close.notified().now_or_never().is_some())
                .map(|(number, _)| number)
                .collect()
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut table = Table::default();
        let mut held: Vec<Bytes> = (0..8).map(|last| table.begin(last)).collect();
        assert!(table.closed().is_empty());
        held.push(table.begin(9));
        assert_eq!(table.closed(), [0]);
        // Those that are sent take no place, whichever clones of them there were.
        drop(
            held.drain(..4)
                .map(|body| body.slice(1..))
                .collect::<Vec<_>>(),
        );
        held.extend((20..23).map(|last| table.begin(last)));
        assert!(table.closed().is_empty());
        held.push(table.begin(24));
        assert_eq!(table.closed(), [4]);
    }

    #[test]
    fn bodies_of_one_address_close_none_of_another() {
        let mut table = Table::default();
        let _first = table.begin(1);
        let _held: Vec<Bytes> = (0..20).map(|_| table.begin(9)).collect();
        assert_eq!(table.closed(), (1..17).collect::<Vec<_>>());
    }

    #[test]
    fn short_bodies_do_not_count() {
        let bodies = Arc::new(UnsentBodies::default());
        let peer = IpAddr::from([10, 0, 0, 1]);
        let short = bodies.counted(Bytes::from(vec![0; SHORT]), peer, &Arc::default());
        assert_eq!(short.len(), SHORT);
        assert!(bodies.lock().bodies.is_empty());
    }
}
