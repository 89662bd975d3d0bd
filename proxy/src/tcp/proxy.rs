//! The tcp_proxy filter: dial, relay, record.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use super::dial::{DialFailure, Dialled, Origin, dial};
use super::outcome::flags_and_details;
use crate::config::listener::{FilterChain, TcpProxy};
use crate::http::pool::Pools;
use crate::http::request::error::with_declaration;
use crate::metrics::ResponseFlags;
use crate::policy::{Addresses, DetectedProtocol, PolicySubject};
use crate::relay::{Buffered, RelayOptions, RelayOutcome, relay};
use crate::snapshot::Listener;
use crate::stream::Stream;
use crate::telemetry::{Call, Calls, Record};
use crate::tls::ConnectionInfo;
use crate::upstream::outlier;
use crate::worker::Worker;

/// A connection whose chain ends in a tcp_proxy.
pub struct TcpConnection {
    pub stream: Stream,
    /// Bytes of the client that were read already.
    pub prefix: BytesMut,
    pub listener: Arc<Listener>,
    pub chain: Arc<FilterChain>,
    /// As detected at admission.
    pub protocol: DetectedProtocol,
    pub proxy: Arc<TcpProxy>,
    pub peer: SocketAddr,
    /// The client's destination address.
    pub local: SocketAddr,
    pub original_dst: Option<SocketAddr>,
    pub start: Instant,
    /// Upstream connections that carry tunnels.
    pub pools: Rc<Pools>,
    /// Dialled while the client was still silent.
    pub dialled: Option<Dialled>,
}

/// Serves a connection to its end; it ends early when `must_end` returns true.
pub fn serve(
    worker: Rc<Worker>,
    connection: TcpConnection,
    must_end: impl Fn(&Worker, &PolicySubject<'_>) -> bool,
) -> impl Future<Output = ()> {
    // Boxed: the future of dialling is freed before the relay, which then stays small.
    let beginning = Box::pin(begin(worker.clone(), connection));
    async move {
        if let Some(mut carried) = beginning.await {
            let outcome = carried.relay(&worker, &must_end).await;
            carried.end(&worker, &outcome);
        }
    }
}

/// Dials, unless that is done. `None`: dialling failed, which was logged and counted.
async fn begin(worker: Rc<Worker>, connection: TcpConnection) -> Option<Box<Session>> {
    let worker = &worker;
    let tls = connection.stream.tls_info();
    let served = SessionLog {
        start: connection.start,
        peer: connection.peer,
        local: connection.local,
        calls: Calls::new(
            &worker.callers,
            connection.listener.clone(),
            connection.peer.ip(),
            connection.local.port(),
            tls.and_then(|tls| tls.peer.clone()),
        ),
        chain: connection.chain,
        protocol: connection.protocol,
        proxy: connection.proxy,
    };
    let early = match connection.prefix.is_empty() {
        true => {
            worker.buffers.put(connection.prefix);
            None
        }
        false => Some(Box::new(connection.prefix)),
    };
    let dialled = match connection.dialled {
        Some(dialled) => Ok(dialled),
        None => {
            let origin = Origin {
                peer: connection.peer,
                local: connection.local,
                original_dst: connection.original_dst,
                sni: tls.and_then(|tls| tls.sni.as_deref()),
                limit: served.calls.listener.def.upstream_limit.as_ref(),
            };
            dial(
                worker,
                &connection.pools,
                &connection.listener.clusters,
                &served.proxy,
                &origin,
            )
            .await
        }
    };
    match dialled {
        Ok(dialled) => Some(Box::new(Session {
            served,
            down: connection.stream,
            prefix: early,
            dialled,
        })),
        Err(failure) => {
            connection.stream.reset_on_close();
            give_up(worker, &served, tls, &failure);
            None
        }
    }
}

/// A connection's record for logs and metrics at its end.
struct SessionLog {
    start: Instant,
    peer: SocketAddr,
    local: SocketAddr,
    chain: Arc<FilterChain>,
    protocol: DetectedProtocol,
    calls: Rc<Calls>,
    proxy: Arc<TcpProxy>,
}

impl SessionLog {
    fn subject<'a>(&'a self, down: &'a Stream) -> PolicySubject<'a> {
        PolicySubject {
            listener: &self.calls.listener,
            chain: &self.chain,
            addresses: Addresses {
                peer: self.peer,
                destination: self.local,
            },
            protocol: &self.protocol,
            tls: down.tls_info(),
        }
    }

    fn record<'a>(&'a self, worker: &Worker, tls: Option<&'a ConnectionInfo>) -> Record<'a> {
        let mut record = Record::lasted(self.start.elapsed());
        record.connection_id = worker.next_connection_id();
        record.direct_remote = Some(self.peer);
        record.remote = Some(self.peer);
        record.local = Some(self.local);
        record.chain = Some(&self.chain.name);
        if let Some(tls) = tls {
            record.sni = tls.sni.as_deref();
            record.peer_uri_san = tls.peer.as_ref().map(|peer| peer.as_str());
            record.tls_version = Some(tls.version);
            record.tls_cipher = Some(tls.cipher);
        }
        record
    }
}

/// A connection with both its ends.
struct Session {
    served: SessionLog,
    down: Stream,
    /// Bytes of the client that were read already, if any were.
    prefix: Option<Box<BytesMut>>,
    /// Its guards live as long as the relay.
    dialled: Dialled,
}

impl Session {
    /// Relays to the endpoint that was dialled, to the end.
    fn relay<'a>(
        &'a mut self,
        worker: &'a Worker,
        must_end: &'a impl Fn(&Worker, &PolicySubject<'_>) -> bool,
    ) -> impl Future<Output = RelayOutcome> + 'a {
        let Session {
            served,
            down,
            prefix,
            dialled,
        } = self;
        let served: &SessionLog = served;
        served.calls.opened(&call(dialled));
        let most = served.calls.listener.def.per_connection_buffer_limit;
        let context = worker.relay_context(most);
        let options = RelayOptions {
            idle: served.proxy.idle_timeout,
            until: served
                .proxy
                .max_duration
                .and_then(|most| served.start.checked_add(most)),
            must_end: move |down: &Stream| must_end(worker, &served.subject(down)),
            flow: |received, sent| served.calls.flowed((sent, received)),
        };
        let early = Buffered {
            from_down: prefix.take().map(|early| *early).unwrap_or_default(),
            ..Buffered::default()
        };
        relay(context, down, &mut dialled.stream, early, options)
    }

    /// Logs and counts the session's end.
    fn end(&self, worker: &Worker, outcome: &RelayOutcome) {
        let Session {
            served,
            down,
            dialled,
            ..
        } = self;
        let (flags, details) = flags_and_details(outcome);
        if flags.contains(ResponseFlags::UPSTREAM_REMOTE_RESET) {
            let mut random = fastrand::Rng::new();
            let outcome = outlier::AttemptResult::Reset;
            dialled
                .cluster()
                .report(&dialled.endpoint, outcome, &mut random);
        }
        let bytes = (outcome.from_up, outcome.from_down);
        served
            .calls
            .closed(&call(dialled), flags, false, false, bytes);
        let mut record = served.record(worker, down.tls_info());
        record.flags = flags;
        record.termination_details = details;
        record.bytes_received = outcome.from_down;
        record.bytes_sent = outcome.from_up;
        record.cluster = Some(&dialled.cluster().name);
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
        cluster: Some(dialled.cluster().clone()),
        endpoint: Some(dialled.endpoint.clone()),
        upstream: dialled.stream.tls_info().cloned().map(Rc::new),
    }
}

fn give_up(
    worker: &Worker,
    served: &SessionLog,
    tls: Option<&ConnectionInfo>,
    failure: &DialFailure,
) {
    let call = Call {
        cluster: failure.cluster.clone(),
        ..Call::default()
    };
    served
        .calls
        .closed(&call, failure.flags, true, false, (0, 0));
    let details = misdeclared(served, failure);
    let mut record = served.record(worker, tls);
    record.flags = failure.flags;
    record.termination_details = details.as_deref();
    record.upstream_failure = Some(&failure.why);
    record.cluster = failure.cluster.as_ref().map(|cluster| &*cluster.name);
    record.upstream_host = failure.endpoint;
    record.attempts = failure.attempts;
    worker.logs.write(&served.proxy.access_log, &record);
}

/// The failure and who declared the port, where a wrong declaration (as of its `targetPort`) can
/// explain it.
fn misdeclared(served: &SessionLog, failure: &DialFailure) -> Option<String> {
    let what = [
        (ResponseFlags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream"),
        (
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            "connection_failure",
        ),
    ];
    let (_, what) = what
        .iter()
        .find(|(flags, _)| failure.flags.contains(*flags))?;
    let declared_by = match &failure.cluster {
        Some(cluster) => cluster.declared_by.as_deref(),
        None => served.calls.listener.def.declared_by.as_deref(),
    };
    Some(with_declaration(what, declared_by?))
}
