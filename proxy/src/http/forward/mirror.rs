//! Copies of requests for other clusters, whose answers are dropped.
//!
//! A copy is sent on a task of its own, its body piece by piece as the client's arrives. The request
//! itself never waits for it: a copy that falls too far behind is dropped and counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::pump::PIECE;
use super::upstream::UpstreamIo;
use crate::config::route::{Mirror, RouteAction};
use crate::connection_limit::ConnectionLimit;
use crate::http::connection::conn::Conn;
use crate::http::h1::{BodyEvent, Framing};
use crate::http::pool::{CheckoutTarget, Lease, Pools, Purpose};
use crate::http::request::error::Failure;
use crate::message::head::Head;
use crate::snapshot::ClusterLinks;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster::PickFor;
use crate::worker::Worker;

/// How long a copy may take once all of it is here: as long as a route without a timeout of its own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long its cluster may accept no bytes of a copy.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a body that a copy may be behind.
const MAX_BEHIND: usize = 4 << 20;

/// A body on its way from the request to its copy.
#[derive(Default)]
struct Body {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    state: State,
    /// The copy waits for more.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The request was received in full.
    Complete,
    /// The request was cut short, or the copy fell behind.
    GivenUp,
    /// The copy's task is over.
    Gone,
}

/// The queue from the request's pump to one copy.
pub struct Feed {
    body: Rc<RefCell<Body>>,
    cluster: Arc<Cluster>,
}

impl Feed {
    pub fn data(&self, piece: &Bytes) {
        let mut body = self.body.borrow_mut();
        if body.state != State::Open {
            return;
        }
        let behind = body.bytes.saturating_add(piece.len().max(PIECE));
        if behind > MAX_BEHIND {
            self.cluster.metrics.mirror_overflows.inc();
            body.pieces.clear();
            body.set(State::GivenUp);
            return;
        }
        body.bytes = behind;
        body.pieces.push_back(piece.clone());
        body.wake();
    }

    /// The request was received in full.
    pub fn end(&self) {
        let mut body = self.body.borrow_mut();
        if body.state == State::Open {
            body.set(State::Complete);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut body = self.body.borrow_mut();
        if body.state == State::Open {
            body.set(State::GivenUp);
        }
    }
}

impl Body {
    fn set(&mut self, state: State) {
        self.state = state;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next piece; `None`: there are no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        if let Some(piece) = self.pieces.pop_front() {
            self.bytes = self.bytes.saturating_sub(piece.len().max(PIECE));
            return Poll::Ready(Ok(Some(piece)));
        }
        match self.state {
            State::Open => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Complete | State::Gone => Poll::Ready(Ok(None)),
            State::GivenUp => Poll::Ready(Err(Failure::ClientGone)),
        }
    }
}

/// A request that is sent, to be sent elsewhere too.
pub struct Copy {
    pub head: Head,
    pub framing: Framing,
}

/// The mirrors of a route that this request goes to.
pub fn drawn<'a>(
    forward: &'a RouteAction,
    links: &ClusterLinks,
) -> Vec<(Arc<Cluster>, &'a Mirror)> {
    let chosen = forward.mirrors.iter().filter(|mirror| {
        mirror.fraction >= 1_000_000 || fastrand::u32(..1_000_000) < mirror.fraction
    });
    chosen
        .filter_map(|mirror| {
            let at = usize::try_from(mirror.cluster.0).ok()?;
            Some((links.get(at)?.target.clone()?, mirror))
        })
        .collect()
}

/// Sends a copy, on a task of its own. Its body comes through what is returned.
pub fn send(conn: &Conn, cluster: Arc<Cluster>, mirror: &Mirror, mut copy: Copy) -> Feed {
    if !mirror.keep_host {
        copy.head.set_authority(&shadow(copy.head.authority()));
    }
    let body = Rc::<RefCell<Body>>::default();
    let feed = Feed {
        body: body.clone(),
        cluster: cluster.clone(),
    };
    let (worker, pools) = (conn.worker.clone(), conn.pools.clone());
    let limit = conn.downstream.listener.def.upstream_limit.clone();
    tokio::task::spawn_local(async move {
        match exchange(&worker, &pools, &cluster, limit.as_ref(), &copy, &body).await {
            Ok(lease) => pools.checkin(lease, &cluster, worker.timers.now()),
            // Its request ended early or the mirror was too slow, which was counted.
            Err(_) if body.borrow().state == State::GivenUp => {}
            Err(_) => cluster.metrics.mirror_failures.inc(),
        }
        let mut body = body.borrow_mut();
        body.pieces.clear();
        body.state = State::Gone;
    });
    feed
}

/// Envoy's mark of a mirrored request: `-shadow` after the host.
fn shadow(authority: &[u8]) -> Vec<u8> {
    let colon = memchr::memrchr(b':', authority).unwrap_or(authority.len());
    let (host, port) = match authority.split_at(colon) {
        (host, port @ [b':', digits @ ..]) if digits.iter().all(u8::is_ascii_digit) => (host, port),
        _ => (authority, &[][..]),
    };
    [host, b"-shadow", port].concat()
}

async fn exchange(
    worker: &Worker,
    pools: &Pools,
    cluster: &Arc<Cluster>,
    limit: Option<&Arc<ConnectionLimit>>,
    copy: &Copy,
    body: &RefCell<Body>,
) -> Result<Lease, Failure> {
    let _permit = cluster.limits.try_request().ok_or_else(|| {
        cluster.metrics.overflows.inc();
        Failure::Overflow("requests")
    })?;
    let picked = cluster.pick(PickFor::default(), &mut fastrand::Rng::new());
    let endpoint = picked.map_err(|_| Failure::NoEndpoint)?.endpoint;
    let _active = endpoint.state.begin();
    cluster.metrics.requests.inc();
    let target = CheckoutTarget {
        cluster,
        endpoint: &endpoint,
        version: copy.head.version(),
        purpose: Purpose::Exchange,
        limit,
    };
    let mut lease = pools.checkout(worker, &target).await?;
    let up = &mut lease.up;
    up.head(&copy.head, copy.framing.body, &copy.framing)?;
    while let Some(piece) = poll_fn(|cx| next_piece(cx, up, body)).await? {
        let room = worker
            .timers
            .timeout(STALL_TIMEOUT, poll_fn(|cx| poll_room(cx, up)));
        room.await.map_err(|_| Failure::ResponseTimeout)??;
        up.data(piece)?;
    }
    up.end(None)?;
    let answering = async {
        poll_fn(|cx| up.poll_flush(cx)).await?;
        discard(up).await
    };
    let answered = worker.timers.timeout(ANSWER_TIMEOUT, answering).await;
    answered.map_err(|_| Failure::ResponseTimeout)??;
    Ok(lease)
}

/// Waits for more of the body; what is queued goes out meanwhile.
fn next_piece(
    cx: &mut Context<'_>,
    up: &mut UpstreamIo,
    body: &RefCell<Body>,
) -> Poll<Result<Option<Bytes>, Failure>> {
    if let Poll::Ready(next) = body.borrow_mut().poll(cx) {
        return Poll::Ready(next);
    }
    up.receive_interim(cx)?;
    match up.poll_flush(cx) {
        Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Waits for room; interim responses are counted meanwhile.
fn poll_room(cx: &mut Context<'_>, up: &mut UpstreamIo) -> Poll<Result<(), Failure>> {
    up.receive_interim(cx)?;
    up.poll_room(cx)
}

async fn discard(up: &mut UpstreamIo) -> Result<(), Failure> {
    let mut head = Head::new();
    while poll_fn(|cx| up.poll_head(cx, &mut head)).await?.interim {}
    poll_fn(|cx| {
        loop {
            match up.poll_body(cx, &mut head) {
                Poll::Ready(Ok(BodyEvent::Data(_))) => {}
                Poll::Ready(Ok(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::shadow;

    #[test]
    fn shadow_suffix_precedes_the_port() {
        assert_eq!(shadow(b"shop"), b"shop-shadow");
        assert_eq!(shadow(b"shop:80"), b"shop-shadow:80");
    }
}
