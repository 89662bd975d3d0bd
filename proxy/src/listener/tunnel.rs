//! Connections inside an HTTP/2 connection (HBONE and our own): each CONNECT to `<address>:<port>`
//! becomes a connection that was redirected to that port, and is served as one: filter chain →
//! authorisation → HTTP or TCP.
//!
//! The address must be the one that the outer connection was made to, so that a client cannot reach
//! other hosts through this one. TLS was terminated on the outer connection: the peer's identity
//! comes from there, the inner protocol from the CONNECT's `ALPN` header. Without one, the port's
//! declared protocol decides. Other headers (`baggage`, `forwarded`) have no effect here.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::BytesMut;

use super::ListenerContext;
use crate::bug;
use crate::config::listener::{FilterChain, TerminalFilter, TransportProtocol, TunnelOptions};
use crate::connection_limit::ConnectionPermits;
use crate::hbone::{BadTarget, ConnectRequest, ConnectTarget, TunnelServer};
use crate::http::h2::Prefixed;
use crate::lifecycle::{ConnectionStatus, EndStep, Lifecycle, Limits};
use crate::listener::accept;
use crate::listener::admission::{CheckedGeneration, Standing, standing};
use crate::listener::authorisation::authorise;
use crate::listener::chain::choose;
use crate::listener::conn;
use crate::listener::conn::{AcceptedConnection, facts, record, serve_chain};
use crate::listener::refused::Refused;
use crate::metrics::OpenConnection;
use crate::policy::{DetectedProtocol, PolicySubject};
use crate::stream::Stream;
use crate::stream::tunnel::TunnelInfo;
use crate::tls::ConnectionInfo;
use crate::tls::hello::ClientHello;
use crate::worker::Worker;

/// Protocols that a client may declare. Other names select no chain: under those of the app's own
/// TLS lie bytes that were not authenticated.
const MESH_ALPN: [&[u8]; 4] = [
    b"anyam-tcp",
    b"anyam-http/1.1",
    b"anyam-h2",
    b"anyam-h2-case",
];
/// Protocols of a client that declares none: the chain of a declared port matches one of them;
/// where none is declared, the first bytes decide.
const UNDECLARED_ALPN: [&[u8]; 3] = [b"anyam-tcp", b"anyam-http/1.1", b"anyam-h2"];

/// The connection that carries tunnels.
struct Outer<'a> {
    accepted: &'a AcceptedConnection,
    chain: &'a Arc<FilterChain>,
    tls: Option<Rc<ConnectionInfo>>,
    local: Option<SocketAddr>,
}

/// Serves a connection to its end; the connections in its tunnels are tasks of their own.
pub(crate) async fn serve(
    worker: &Rc<ListenerContext>,
    accepted: &AcceptedConnection,
    (chain, protocol): (&Arc<FilterChain>, &DetectedProtocol),
    options: &TunnelOptions,
    (stream, prefix): (Stream, BytesMut),
) {
    let outer = Outer {
        accepted,
        chain,
        tls: stream.tls_info().cloned().map(Rc::new),
        local: stream.local_addr(),
    };
    let floods = &accepted.listener.def.metrics.http2_floods;
    let io = Prefixed::server(stream, prefix, floods);
    let timer = worker.timers.timer();
    timer.set(chain.handshake_timeout);
    let Ok(Some(mut server)) = timer.race(TunnelServer::handshake(io, options)).await else {
        return;
    };
    let checked = CheckedGeneration::default();
    let subject = PolicySubject {
        listener: &accepted.listener,
        chain,
        addresses: accepted.addresses(),
        protocol,
        tls: outer.tls.as_deref(),
    };
    let limits = Limits {
        idle: options.idle_timeout,
        ..Limits::default()
    };
    let mut life = Lifecycle::new(accepted.start, timer.now());
    loop {
        let request = poll_fn(|cx| {
            loop {
                let request = server.poll_accept_tunnel(cx);
                if request.is_ready() {
                    return request;
                }
                let standing = standing(worker, &subject, &checked);
                if standing == Standing::Ends {
                    return Poll::Ready(None);
                }
                server.streams().register(cx);
                let seen = status(worker, accepted, server.streams().open(), &life, standing);
                let drain_timeout = chain.handshake_timeout;
                match ready!(life.poll(cx, &timer, &limits, drain_timeout, seen)) {
                    EndStep::Close => {
                        server.close(cx);
                        return Poll::Ready(None);
                    }
                    EndStep::GoAway => server.wind_down(),
                }
            }
        })
        .await;
        let Some(request) = request else { return };
        if life.refuses_streams(timer.now()) {
            request.reset_unprocessed();
            server.count_refused();
            continue;
        }
        // A panic costs this stream, and not those that are open on the same connection.
        let entering = AssertUnwindSafe(|| enter(worker, &outer, request));
        if !matches!(catch_unwind(entering), Ok(Ok(()))) {
            server.count_refused();
        }
    }
}

fn status(
    worker: &Worker,
    accepted: &AcceptedConnection,
    open: usize,
    life: &Lifecycle,
    standing: Standing,
) -> ConnectionStatus {
    let def = &accepted.listener.def;
    let is_reclaimed = || open == 0 && worker.reclaims(def, life.idle_since());
    ConnectionStatus {
        open,
        served: 0,
        is_draining: worker.is_draining(def.direction)
            || standing == Standing::Drains
            || is_reclaimed(),
    }
}

/// Accepts a connection, or answers why not.
fn enter(
    worker: &Rc<ListenerContext>,
    outer: &Outer<'_>,
    request: ConnectRequest,
) -> Result<(), ()> {
    let metrics = &outer.accepted.listener.def.metrics;
    metrics.tunnels.inc();
    let mut inner = outer.inner(worker, outer.accepted.destination);
    let admitted = request
        .target()
        .map_err(|bad| (status_of(bad), Refused::Tunnel(reason(bad))));
    let admitted = admitted.and_then(|target| {
        inner = outer.inner(worker, target.destination);
        admit(worker, outer, &inner, target)
    });
    let AdmittedTunnel {
        chain,
        protocol,
        tls,
        permits,
    } = match admitted {
        Ok(admitted) => admitted,
        Err((status, refused)) => {
            metrics.tunnels_refused.inc();
            record(worker, &inner, &refused);
            request.refuse(status);
            return Err(());
        }
    };
    bug::point("tunnel_accept");
    let about = TunnelInfo {
        tls,
        local: outer.local,
    };
    let Some(tunnel) = request.accept(&worker.buffers, about) else {
        return Ok(());
    };
    let held = (permits, OpenConnection::of(metrics));
    let admitted = conn::Admitted {
        chain,
        protocol,
        stream: tunnel.into(),
        prefix: BytesMut::new(),
        dialled: None,
    };
    serve_chain(worker, inner, admitted, held);
    Ok(())
}

impl Outer<'_> {
    /// A connection to `destination`, as if it had just been accepted.
    fn inner(&self, worker: &Worker, destination: SocketAddr) -> AcceptedConnection {
        let snapshot = worker.store.borrow();
        let before = &self.accepted.listener;
        let listener = snapshot.listeners.get(&before.def.name).unwrap_or(before);
        AcceptedConnection {
            listener: listener.clone(),
            peer: self.accepted.peer,
            destination,
            original_dst: Some(destination),
            start: Instant::now(),
        }
    }
}

/// A tunnel's connection that was allowed.
struct AdmittedTunnel {
    chain: Arc<FilterChain>,
    protocol: DetectedProtocol,
    tls: Option<Rc<ConnectionInfo>>,
    permits: ConnectionPermits,
}

/// The chain of an allowed connection; or the status and reason to refuse it with.
fn admit(
    worker: &Worker,
    outer: &Outer<'_>,
    inner: &AcceptedConnection,
    target: ConnectTarget,
) -> Result<AdmittedTunnel, (u16, Refused)> {
    let outer_destination = outer.accepted.destination;
    let same = outer_destination.ip().to_canonical() == inner.destination.ip().to_canonical();
    if !same || outer_destination.port() == inner.destination.port() {
        let why = "the authority is no address of this workload that can be called";
        return Err((421, Refused::Tunnel(why)));
    }
    let def = &inner.listener.def;
    let Some(permits) = accept::enter(worker, def) else {
        def.metrics.refused.inc();
        let why = "the limit of open connections is reached";
        return Err((503, Refused::Tunnel(why)));
    };
    let mut names = target.alpn;
    names.retain(|name| MESH_ALPN.contains(&&**name));
    let is_declared = !names.is_empty();
    let protocol = match &outer.tls {
        Some(tls) => DetectedProtocol::Tls(ClientHello {
            sni: tls.sni.clone(),
            alpn: match is_declared {
                true => names,
                false => UNDECLARED_ALPN.iter().map(|name| (*name).into()).collect(),
            },
        }),
        None => DetectedProtocol::Tcp,
    };
    let chosen = choose(def, &facts(inner, &protocol));
    // A chain that passes TLS through cannot match: there is no TLS inside.
    let passes_through = |chain: &&Arc<FilterChain>| {
        chain.tls.is_none() && chain.matches.transport_protocol == Some(TransportProtocol::Tls)
    };
    let chosen = chosen.filter(|chain| !passes_through(chain));
    let chain = chosen.ok_or((404, Refused::NoChain))?;
    if matches!(chain.terminal, TerminalFilter::Tunnel(_)) {
        return Err((421, Refused::Tunnel("a tunnel cannot lead to another")));
    }
    let tls = match (&outer.tls, &protocol) {
        (Some(tls), DetectedProtocol::Tls(hello)) if is_declared => Some(Rc::new(ConnectionInfo {
            alpn: agreed(chain, hello),
            ..ConnectionInfo::clone(tls)
        })),
        (Some(tls), _) => Some(Rc::new(ConnectionInfo {
            alpn: None,
            ..ConnectionInfo::clone(tls)
        })),
        (None, _) => None,
    };
    let strict = match (&outer.chain.tls, &chain.tls) {
        (_, None) => true,
        (Some(outer), Some(inner)) => outer.is_as_strict_as(inner),
        (None, Some(_)) => false,
    };
    if !strict {
        let why = "the chain asks more of a peer than the one that ended TLS";
        return Err((403, Refused::Tunnel(why)));
    }
    match authorise(inner.addresses(), chain, tls.as_deref(), None) {
        Ok(false) => {}
        Ok(true) => def.metrics.rbac_shadow_denied.inc(),
        Err(refused) => return Err((403, refused)),
    }
    Ok(AdmittedTunnel {
        chain: chain.clone(),
        protocol,
        tls,
        permits,
    })
}

/// The result of ALPN: the server's preference among the client's offers.
fn agreed(chain: &FilterChain, hello: &ClientHello) -> Option<Box<[u8]>> {
    let own = &chain.tls.as_ref()?.options().alpn;
    let common = own
        .iter()
        .find(|own| hello.alpn.iter().any(|name| **name == ***own));
    common.map(|name| name.as_slice().into())
}

fn status_of(bad: BadTarget) -> u16 {
    match bad {
        BadTarget::Method => 405,
        BadTarget::Authority | BadTarget::Alpn => 400,
    }
}

fn reason(bad: BadTarget) -> &'static str {
    match bad {
        BadTarget::Method => "only CONNECT is taken here",
        BadTarget::Authority => "the authority has to be an address and a port",
        BadTarget::Alpn => "the ALPN header is malformed",
    }
}
