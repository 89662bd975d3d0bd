//! One connection from accept to the path that serves it: original destination → listener →
//! first bytes → filter chain → TLS → authorisation → HTTP, TCP, or more connections inside it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::ListenerContext;
use super::admission::{CheckedGeneration, is_refused_by_now, must_end, readmit};
use super::authorisation::authorise;
use super::chain::{self, choose};
use super::entry::find_listener;
use super::first::{DetectError, InspectResult, ServerFirstCandidate, first};
use super::refused::Refused;
use super::socket::original_destination;
use crate::bug;
use crate::config::listener::{FilterChain, TerminalFilter};
use crate::connection_limit::ConnectionPermits;
use crate::http::connection::serve;
use crate::listener::tunnel;
use crate::metrics::{OpenConnection, ResponseFlags};
use crate::policy::{Addresses, DetectedProtocol, PolicySubject};
use crate::snapshot::Listener;
use crate::socket;
use crate::stream::Stream;
use crate::tcp::dial::Dialled;
use crate::tcp::proxy;
use crate::telemetry::{Call, Calls, Record};
use crate::worker::Worker;

/// A connection after it was accepted.
pub(crate) struct AcceptedConnection {
    /// The listener that applies, found by the original destination.
    pub(crate) listener: Arc<Listener>,
    pub(crate) peer: SocketAddr,
    /// The client's destination address.
    pub(crate) destination: SocketAddr,
    pub(crate) original_dst: Option<SocketAddr>,
    pub(crate) start: Instant,
}

impl AcceptedConnection {
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            peer: self.peer,
            destination: self.destination,
        }
    }
}

/// Guards of an open connection: its permits, and its share in the count.
pub(super) type ConnectionGuards = (ConnectionPermits, OpenConnection);

/// Everything before the terminal filter, for a connection accepted on `entry`; passes it to that
/// filter when it is allowed.
pub(super) async fn begin(
    worker: Rc<ListenerContext>,
    entry: Arc<Listener>,
    tcp: TcpStream,
    (bound, peer): (SocketAddr, SocketAddr),
    permits: ConnectionPermits,
) {
    let mut open = OpenConnection::of(&entry.def.metrics);
    let local = match bound.ip().is_unspecified() {
        true => match tcp.local_addr() {
            Ok(local) => local,
            Err(_) => return,
        },
        false => bound,
    };
    let original_dst = match entry.def.original_dst {
        true => original_destination(&tcp, local),
        false => None,
    };
    let destination = original_dst.unwrap_or(local);
    let mut accepted = AcceptedConnection {
        listener: entry,
        peer,
        destination,
        original_dst,
        start: worker.timers.now(),
    };
    match admit(&worker, &mut accepted, tcp).await {
        Ok(admitted) => {
            open.hand_over(&accepted.listener.def.metrics);
            serve_chain(&worker, accepted, admitted, (permits, open));
        }
        Err(refused) => record(&worker, &accepted, &refused),
    }
}

/// An allowed connection, ready for its chain's terminal filter.
pub(crate) struct Admitted {
    pub(crate) chain: Arc<FilterChain>,
    /// By which the chain was chosen.
    pub(crate) protocol: DetectedProtocol,
    pub(crate) stream: Stream,
    /// Bytes that were read already.
    pub(crate) prefix: BytesMut,
    pub(crate) dialled: Option<Dialled>,
}

/// Everything before the terminal filter.
async fn admit(
    worker: &Rc<ListenerContext>,
    accepted: &mut AcceptedConnection,
    tcp: TcpStream,
) -> Result<Admitted, Refused> {
    match find_listener(worker, accepted).await {
        Ok(listener) => accepted.listener = listener,
        Err(refused) => {
            socket::reset_on_close(&tcp);
            return Err(refused);
        }
    }
    let (accepted, listener) = (&*accepted, &accepted.listener);
    let InspectResult {
        protocol,
        prefix,
        dialled,
    } = look(worker, accepted, &tcp).await?;
    let chosen = choose(&listener.def, &facts(accepted, &protocol)).cloned();
    let Some(chain) = chosen else {
        socket::reset_on_close(&tcp);
        return Err(Refused::NoChain);
    };
    let (stream, prefix) = secure(worker, &chain, tcp, prefix).await?;
    bug::point("admission");
    let sni = match &protocol {
        DetectedProtocol::Tls(hello) => hello.sni.as_deref(),
        _ => None,
    };
    match authorise(accepted.addresses(), &chain, stream.tls_info(), sni) {
        Ok(false) => {}
        Ok(true) => listener.def.metrics.rbac_shadow_denied.inc(),
        Err(refused) => {
            stream.reset_on_close();
            return Err(refused);
        }
    }
    let subject = PolicySubject {
        listener,
        chain: &chain,
        addresses: accepted.addresses(),
        protocol: &protocol,
        tls: stream.tls_info(),
    };
    if is_refused_by_now(worker, &subject) {
        let peer = stream.tls_info().and_then(|tls| tls.peer.clone());
        let by = "a newer configuration".into();
        stream.reset_on_close();
        return Err(Refused::Denied { by, peer });
    }
    Ok(Admitted {
        chain,
        protocol,
        stream,
        prefix,
        dialled,
    })
}

/// Reads the first bytes, if the choice of the chain depends on them.
async fn look(
    worker: &Rc<ListenerContext>,
    accepted: &AcceptedConnection,
    tcp: &TcpStream,
) -> Result<InspectResult, Refused> {
    let listener = &accepted.listener;
    let inspect = &listener.def.inspect;
    let unseen = || InspectResult {
        protocol: DetectedProtocol::Tcp,
        prefix: BytesMut::new(),
        dialled: None,
    };
    if !(inspect.tls || inspect.http) || !depends_on_bytes(accepted) {
        return Ok(unseen());
    }
    let silent = choose(&listener.def, &facts(accepted, &DetectedProtocol::Tcp));
    let silent = silent
        .filter(|chain| chain.tls.is_none())
        .and_then(|chain| {
            let TerminalFilter::Tcp(proxy) = &chain.terminal else {
                return None;
            };
            // No server is dialled for a client that is not authorised.
            authorise(accepted.addresses(), chain, None, None).ok()?;
            Some(ServerFirstCandidate {
                listener: listener.clone(),
                proxy: proxy.clone(),
                peer: accepted.peer,
                destination: accepted.destination,
                original_dst: accepted.original_dst,
            })
        });
    first(worker, tcp, inspect, silent)
        .await
        .map_err(|nothing| match nothing {
            DetectError::Gone => Refused::Gone,
            DetectError::TimedOut => Refused::Silent,
        })
}

/// Whether any chain that may match has criteria beyond addresses, or rules on the server name.
fn depends_on_bytes(accepted: &AcceptedConnection) -> bool {
    let def = &accepted.listener.def;
    let port = accepted.destination.port();
    let ask = |chain: &Arc<FilterChain>| {
        let m = &chain.matches;
        m.destination_port.is_none_or(|wanted| wanted == port)
            && (m.transport_protocol.is_some()
                || !m.server_names.is_empty()
                || !m.application_protocols.is_empty()
                || chain.rbac.iter().any(|rbac| rbac.needs_server_name()))
    };
    def.chains.iter().any(ask)
}

pub(crate) fn facts<'a>(
    accepted: &AcceptedConnection,
    protocol: &'a DetectedProtocol,
) -> chain::ChainMatchInput<'a> {
    chain::ChainMatchInput {
        destination: accepted.destination,
        source: accepted.peer,
        protocol,
    }
}

/// TLS, where the chain has it; bytes read already are part of the handshake.
async fn secure(
    worker: &Rc<ListenerContext>,
    chain: &FilterChain,
    tcp: TcpStream,
    prefix: BytesMut,
) -> Result<(Stream, BytesMut), Refused> {
    let Some(context) = &chain.tls else {
        return Ok((tcp.into(), prefix));
    };
    let accepting = worker.tls.accept(tcp, &prefix, context);
    let accepted = worker
        .timers
        .timeout(chain.handshake_timeout, accepting)
        .await;
    worker.buffers.put(prefix);
    match accepted {
        Ok(Ok(stream)) => Ok((stream.into(), BytesMut::new())),
        Ok(Err(error)) => Err(Refused::Tls(error.to_string())),
        Err(_) => Err(Refused::Tls(format!(
            "not done within {:?}",
            chain.handshake_timeout
        ))),
    }
}

/// Passes the connection to its terminal filter, each kind in a task of its own size.
pub(crate) fn serve_chain(
    worker: &Rc<ListenerContext>,
    accepted: AcceptedConnection,
    admitted: Admitted,
    held: ConnectionGuards,
) {
    let Admitted {
        chain,
        protocol,
        stream,
        prefix,
        dialled,
    } = admitted;
    match &chain.terminal {
        TerminalFilter::Http(manager) => {
            let connection = serve::HttpConnection {
                manager: manager.clone(),
                stream,
                prefix,
                peer: accepted.peer,
                local: accepted.destination,
                original_dst: accepted.original_dst,
                listener: accepted.listener,
                chain,
                protocol,
                pools: worker.pools.clone(),
                readmit,
            };
            serve::serve(worker, connection, held);
        }
        TerminalFilter::Tcp(proxy) => {
            let connection = proxy::TcpConnection {
                stream,
                prefix,
                proxy: proxy.clone(),
                peer: accepted.peer,
                local: accepted.destination,
                original_dst: accepted.original_dst,
                start: accepted.start,
                pools: worker.pools.clone(),
                dialled,
                listener: accepted.listener,
                chain,
                protocol,
            };
            let checked = CheckedGeneration::default();
            let cut = move |worker: &Worker, subject: &PolicySubject<'_>| {
                must_end(worker, subject, &checked)
            };
            worker.serve(held, proxy::serve(worker.worker.clone(), connection, cut));
        }
        TerminalFilter::Tunnel(options) => {
            let (options, of) = (options.clone(), worker.clone());
            worker.serve(held, async move {
                let (kind, stream) = ((&chain, &protocol), (stream, prefix));
                tunnel::serve(&of, &accepted, kind, &options, stream).await;
            });
        }
    }
}

pub(crate) fn record(
    worker: &Rc<ListenerContext>,
    accepted: &AcceptedConnection,
    refused: &Refused,
) {
    let def = &accepted.listener.def;
    let flags = match refused {
        Refused::Gone => ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION,
        Refused::Unknown => ResponseFlags::NO_CLUSTER_FOUND,
        Refused::Silent => ResponseFlags::STREAM_IDLE_TIMEOUT,
        Refused::Tunnel(_) => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        Refused::NoChain => {
            def.metrics.no_chain.inc();
            ResponseFlags::NO_ROUTE_FOUND
        }
        Refused::Tls(_) => {
            def.metrics.tls_errors.inc();
            ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR
        }
        Refused::Denied { peer, .. } => {
            def.metrics.rbac_denied.inc();
            let flags = ResponseFlags::UNAUTHORIZED;
            let (address, port) = (accepted.peer.ip(), accepted.destination.port());
            Calls::new(
                &worker.callers,
                accepted.listener.clone(),
                address,
                port,
                peer.clone(),
            )
            .closed(&Call::default(), flags, true, true, (0, 0));
            flags
        }
    };
    let why = refused.to_string();
    let (peer, destination) = (accepted.peer, accepted.destination);
    tracing::debug!(listener = %def.name, %peer, %destination, %why, "connection closed");
    let mut record = Record::lasted(accepted.start.elapsed());
    record.flags = flags;
    record.termination_details = Some(&why);
    record.direct_remote = Some(peer);
    record.remote = Some(peer);
    record.local = Some(destination);
    record.connection_id = worker.next_connection_id();
    worker.logs.write(&def.access_log, &record);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budgets;

    /// Every connection is admitted by a future that is allocated for it, and written once.
    #[test]
    fn admission_is_small() {
        fn size<F: Future>(
            _: impl FnOnce(
                Rc<ListenerContext>,
                Arc<Listener>,
                TcpStream,
                (SocketAddr, SocketAddr),
                ConnectionPermits,
            ) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let (size, most) = (size(begin), budgets::of("size")["admission"]);
        assert!(size as f64 <= most, "{size} bytes, at most {most}");
    }
}
