//! An HTTP/2 connection that many exchanges, or tunnels, share.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{CheckoutTarget, ConnectionSlot, Purpose};
use crate::http::forward::upstream::UpstreamIo;
use crate::http::h2::Connected;
use crate::http::request::error::Failure;
use crate::upstream::cluster::Cluster;
use crate::worker::Worker;

/// How long an upgrade waits for the settings of a new HTTP/2 connection.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub(crate) connected: Connected,
    opened: Cell<u32>,
    pub(super) since: Instant,
    pub(super) used: Cell<Instant>,
    /// `None`: a connection of tunnels; the connections inside have their own places.
    place: Option<ConnectionSlot>,
}

impl Shared {
    pub(super) fn new(connected: Connected, place: Option<ConnectionSlot>) -> Self {
        Shared {
            connected,
            opened: Cell::new(0),
            since: Instant::now(),
            used: Cell::new(Instant::now()),
            place,
        }
    }

    /// Before an upgrade. A time-out is no error here: sending the request then fails.
    pub(super) async fn await_settings(&self, worker: &Worker, target: &CheckoutTarget<'_>) {
        if target.purpose == Purpose::Upgrade {
            let timeout = target.cluster.connect_timeout.min(SETTINGS_TIMEOUT);
            self.connected.takes_upgrades(&worker.timers, timeout).await;
        }
    }

    pub(super) async fn open(&self, now: Instant) -> Result<UpstreamIo, Failure> {
        self.count(now);
        Ok(UpstreamIo::H2(Box::new(self.connected.open().await?)))
    }

    /// One more stream.
    pub(crate) fn count(&self, now: Instant) {
        self.used.set(now);
        self.opened.set(self.opened.get().saturating_add(1));
    }

    /// Whether it has no stream, and a place that `counts`.
    pub(super) fn is_idle(&self, counts: impl Fn(&ConnectionSlot) -> bool) -> bool {
        !self.connected.is_busy() && self.place.as_ref().is_some_and(counts)
    }

    /// Whether its listener's limit is reached: while idle it then blocks waiting requests.
    pub(super) fn is_contended(&self) -> bool {
        self.place
            .as_ref()
            .is_some_and(ConnectionSlot::is_contended)
    }

    pub(super) fn is_spent(&self, cluster: &Cluster) -> bool {
        cluster
            .max_requests_per_connection
            .is_some_and(|max| self.opened.get() >= max)
            || is_older(self.since, cluster.max_connection_duration)
    }
}

pub(super) fn is_older(since: Instant, most: Option<Duration>) -> bool {
    most.is_some_and(|most| since.elapsed() >= most)
}
