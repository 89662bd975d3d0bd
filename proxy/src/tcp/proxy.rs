//! The tcp_proxy filter: dial, relay, record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;

use super::dial::{DialFailure, Dialled, Origin, dial};
use super::verdict::judged;
use super::{Early, Means, Options, Outcome, relay};
use crate::config::listener::{FilterChain, Listener, TcpProxy};
use crate::stream::Stream;
use crate::telemetry::{Call, Calls, OpenConnection, Record, ResponseFlags};
use crate::tls::ConnectionInfo;
use crate::upstream::outlier;
use crate::worker::Worker;

/// A connection whose chain ends in a tcp_proxy.
pub struct Connection {
    pub stream: Stream,
    /// Bytes of the client that were read already.
    pub prefix: BytesMut,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    pub proxy: Arc<TcpProxy>,
    pub peer: SocketAddr,
    /// Where the client meant to go.
    pub local: SocketAddr,
    pub original_dst: Option<SocketAddr>,
    pub start: Instant,
    /// Dialled while the client was still silent.
    pub dialled: Option<Dialled>,
    /// Counts it for as long as it is open.
    pub open: OpenConnection,
}

/// Serves a connection to its end; `cut` is asked whether it must end early.
pub fn serve(
    worker: Rc<Worker>,
    connection: Connection,
    cut: impl Fn(&Worker, Option<&ConnectionInfo>) -> bool,
) -> impl Future<Output = ()> {
    // On the heap while it lasts: a relay does not pay for how it came about.
    let beginning = Box::pin(begin(worker.clone(), connection));
    async move {
        if let Some(mut carried) = beginning.await {
            carried.carry(&worker, &cut).await;
        }
    }
}

/// Dials, unless that is done. `None`: there is nothing to relay to; that was told.
async fn begin(worker: Rc<Worker>, connection: Connection) -> Option<Box<Carried>> {
    let worker = &worker;
    let tls = connection.stream.tls_info().cloned();
    let served = Served {
        buffer: connection.listener.def.per_connection_buffer_limit,
        id: worker.next_connection_id(),
        start: connection.start,
        start_time: SystemTime::now(),
        peer: connection.peer,
        local: connection.local,
        calls: Calls::new(
            worker,
            connection.listener.clone(),
            connection.peer.ip(),
            connection.local.port(),
            tls.as_ref().and_then(|tls| tls.peer.clone()),
        ),
        chain: connection.chain,
        tls: tls.map(Rc::new),
        proxy: connection.proxy,
        _open: connection.open,
    };
    let dialled = match connection.dialled {
        Some(dialled) => Ok(dialled),
        None => {
            let origin = Origin {
                peer: connection.peer,
                local: connection.local,
                original_dst: connection.original_dst,
                sni: served.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            };
            dial(
                worker,
                &connection.listener.clusters,
                &served.proxy,
                &origin,
            )
            .await
        }
    };
    match dialled {
        Ok(dialled) => Some(Box::new(Carried {
            served,
            down: connection.stream,
            prefix: connection.prefix,
            dialled,
        })),
        Err(failure) => {
            connection.stream.reset_on_close();
            give_up(worker, &served, &failure);
            None
        }
    }
}

/// A connection, and what is said of it when it ends.
struct Served {
    id: u64,
    start: Instant,
    start_time: SystemTime,
    peer: SocketAddr,
    local: SocketAddr,
    chain: Arc<FilterChain>,
    tls: Option<Rc<ConnectionInfo>>,
    calls: Rc<Calls>,
    proxy: Arc<TcpProxy>,
    /// Bytes that may be held for it in each direction.
    buffer: usize,
    _open: OpenConnection,
}

impl Served {
    fn record(&self) -> Record<'_> {
        let mut record = Record::begun(self.start_time);
        record.duration = self.start.elapsed();
        record.connection_id = self.id;
        record.direct_remote = Some(self.peer);
        record.remote = Some(self.peer);
        record.local = Some(self.local);
        record.chain = Some(&self.chain.name);
        if let Some(tls) = &self.tls {
            record.sni = tls.sni.as_deref();
            record.peer_uri_san = tls.peer.as_ref().map(|peer| peer.as_str());
            record.tls_version = Some(tls.version);
            record.tls_cipher = Some(tls.cipher);
        }
        record
    }
}

/// A connection with both its ends.
struct Carried {
    served: Served,
    down: Stream,
    /// Bytes of the client that were read already.
    prefix: BytesMut,
    /// Its guards live as long as the relay.
    dialled: Dialled,
}

impl Carried {
    /// Relays to the endpoint that was dialled, to the end.
    async fn carry(
        &mut self,
        worker: &Worker,
        cut: &dyn Fn(&Worker, Option<&ConnectionInfo>) -> bool,
    ) {
        let Carried {
            served,
            down,
            prefix,
            dialled,
        } = self;
        served.calls.opened(&call(dialled));
        let means = Means {
            buffers: &worker.buffers,
            pipes: &worker.pipes,
            timers: &worker.timers,
            most: served.buffer,
        };
        let cut = || cut(worker, served.tls.as_deref());
        let options = Options {
            idle: served.proxy.idle_timeout,
            until: served.proxy.max_duration.map(|most| served.start + most),
            cut: &cut,
        };
        let early = Early {
            from_down: std::mem::take(prefix),
            ..Early::default()
        };
        let outcome = relay(&means, down, &mut dialled.stream, early, &options).await;
        self.end(worker, &outcome);
    }

    /// What is said and counted at the end.
    fn end(&self, worker: &Worker, outcome: &Outcome) {
        let Carried {
            served, dialled, ..
        } = self;
        let (flags, details) = judged(outcome);
        if flags.contains(ResponseFlags::UPSTREAM_REMOTE_RESET) {
            let mut random = fastrand::Rng::new();
            let outcome = outlier::Outcome::Reset;
            dialled
                .cluster
                .report(&dialled.endpoint, outcome, &mut random);
        }
        let bytes = (outcome.from_up, outcome.from_down);
        served
            .calls
            .closed(&call(dialled), flags, false, false, bytes);
        let mut record = served.record();
        record.flags = flags;
        record.termination_details = details;
        record.bytes_received = outcome.from_down;
        record.bytes_sent = outcome.from_up;
        record.cluster = Some(&dialled.cluster.name);
        record.upstream_host = Some(dialled.endpoint.address);
        record.upstream_local = dialled.stream.local_addr();
        record.attempts = dialled.attempts;
        let up_tls = dialled.stream.tls_info();
        let up_peer = up_tls.and_then(|tls| tls.peer.as_ref());
        record.upstream_peer_uri_san = up_peer.map(|peer| peer.as_str());
        worker.logs.write(&served.proxy.access_log, &record);
    }
}

fn call(dialled: &Dialled) -> Call {
    Call {
        cluster: Some(dialled.cluster.clone()),
        endpoint: Some(dialled.endpoint.clone()),
        upstream: dialled.stream.tls_info().cloned().map(Rc::new),
    }
}

fn give_up(worker: &Worker, served: &Served, failure: &DialFailure) {
    let call = Call {
        cluster: failure.cluster.clone(),
        ..Call::default()
    };
    served
        .calls
        .closed(&call, failure.flags, true, false, (0, 0));
    let mut record = served.record();
    record.flags = failure.flags;
    record.upstream_failure = Some(&failure.why);
    record.cluster = failure.cluster.as_ref().map(|cluster| &*cluster.name);
    record.upstream_host = failure.endpoint;
    record.attempts = failure.attempts;
    worker.logs.write(&served.proxy.access_log, &record);
}
