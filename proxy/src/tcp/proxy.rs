//! The tcp_proxy filter: dial, relay, record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;

use super::dial::{DialFailure, Dialled, Origin, dial};
use super::verdict::judged;
use super::{Early, Means, Options, relay};
use crate::config::listener::{FilterChain, Listener, TcpProxy};
use crate::stream::Stream;
use crate::telemetry::{Call, Calls, Record, ResponseFlags};
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
}

/// Serves a connection to its end; `cut` is asked whether it must end early.
pub async fn serve(worker: &Rc<Worker>, connection: Connection, cut: &dyn Fn() -> bool) {
    let Connection {
        stream,
        prefix,
        proxy,
        original_dst,
        dialled,
        ..
    } = connection;
    let tls = stream.tls_info().cloned();
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
        tls,
    };
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => {
            let origin = Origin {
                peer: connection.peer,
                local: connection.local,
                original_dst,
                sni: served.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
            };
            dial(worker, &connection.listener.clusters, &proxy, &origin).await
        }
    };
    match dialled {
        Ok(dialled) => carry(worker, &served, &proxy, (stream, prefix), dialled, cut).await,
        Err(failure) => {
            stream.reset_on_close();
            give_up(worker, &served, &proxy, &failure);
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
    tls: Option<ConnectionInfo>,
    calls: Rc<Calls>,
    /// Bytes that may be held for it in each direction.
    buffer: usize,
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

/// Relays to the endpoint that was dialled, to the end.
async fn carry(
    worker: &Rc<Worker>,
    served: &Served,
    proxy: &TcpProxy,
    (down, prefix): (Stream, BytesMut),
    dialled: Dialled,
    cut: &dyn Fn() -> bool,
) {
    // The guards in what is left of `dialled` live as long as the relay.
    let Dialled {
        stream,
        cluster,
        endpoint,
        attempts,
        ..
    } = dialled;
    let up_tls = stream.tls_info().cloned().map(Rc::new);
    let up_local = stream.local_addr();
    let call = Call {
        cluster: Some(cluster.clone()),
        endpoint: Some(endpoint.clone()),
        upstream: up_tls.clone(),
    };
    served.calls.opened(&call);
    let means = Means {
        buffers: &worker.buffers,
        pipes: &worker.pipes,
        timers: &worker.timers,
        most: served.buffer,
    };
    let options = Options {
        idle: proxy.idle_timeout,
        until: proxy.max_duration.map(|most| served.start + most),
        cut,
    };
    let early = Early {
        from_down: prefix,
        ..Early::default()
    };
    let outcome = relay(&means, down, stream, early, &options).await;
    let (flags, details) = judged(&outcome);
    if flags.contains(ResponseFlags::UPSTREAM_REMOTE_RESET) {
        cluster.report(
            &endpoint,
            outlier::Outcome::Reset,
            &mut fastrand::Rng::new(),
        );
    }
    served.calls.closed(
        &call,
        flags,
        false,
        false,
        (outcome.from_up, outcome.from_down),
    );
    let mut record = served.record();
    record.flags = flags;
    record.termination_details = details;
    record.bytes_received = outcome.from_down;
    record.bytes_sent = outcome.from_up;
    record.cluster = Some(&cluster.name);
    record.upstream_host = Some(endpoint.address);
    record.upstream_local = up_local;
    record.attempts = attempts;
    let up_peer = up_tls.as_ref().and_then(|tls| tls.peer.as_ref());
    record.upstream_peer_uri_san = up_peer.map(|peer| peer.as_str());
    worker.logs.write(&proxy.access_log, &record);
}

fn give_up(worker: &Rc<Worker>, served: &Served, proxy: &TcpProxy, failure: &DialFailure) {
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
    worker.logs.write(&proxy.access_log, &record);
}
