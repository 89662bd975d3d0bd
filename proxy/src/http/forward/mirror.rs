//! Copies of requests for other clusters, whose answers nobody waits for.
//!
//! A copy is sent once the request is here in full, and only when all of it could be kept: what
//! does not fit the listener's buffer limit is not mirrored. The client notices nothing of it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::upstream::UpstreamIo;
use crate::config::cluster::Cluster;
use crate::config::route::{Mirror, RouteAction};
use crate::http::connection::conn::Conn;
use crate::http::h1::{BodyLength, Event, Framing};
use crate::http::pool::{Lease, Pools, Target};
use crate::http::request::error::Failure;
use crate::message::head::Head;
use crate::snapshot::ClusterLinks;
use crate::upstream::cluster::PickFor;
use crate::worker::Worker;

/// A mirror may take as long as a route without a timeout of its own.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request that was sent, to be sent again elsewhere.
pub struct Copy {
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<Bytes>,
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

/// Sends a copy, on a task of its own.
pub fn send(conn: &Conn, cluster: Arc<Cluster>, mirror: &Mirror, mut copy: Copy) {
    if !mirror.keep_host {
        copy.head.set_authority(&shadow(copy.head.authority()));
    }
    let (worker, pools) = (conn.worker.clone(), conn.pools.clone());
    tokio::task::spawn_local(async move {
        let timeout = cluster.connect_timeout + PATIENCE;
        let sending = exchange(&worker, &pools, &cluster, &copy);
        // How it went shows in the cluster's own counters.
        if let Ok(Ok(lease)) = worker.timers.timeout(timeout, sending).await {
            pools.checkin(lease, &cluster, worker.timers.now());
        }
    });
}

/// Envoy's mark of a mirrored request: `-shadow` after the host.
fn shadow(authority: &[u8]) -> Vec<u8> {
    let port = memchr::memrchr(b':', authority)
        .filter(|at| authority[at + 1..].iter().all(u8::is_ascii_digit))
        .unwrap_or(authority.len());
    [&authority[..port], b"-shadow", &authority[port..]].concat()
}

async fn exchange(
    worker: &Worker,
    pools: &Pools,
    cluster: &Arc<Cluster>,
    copy: &Copy,
) -> Result<Lease, Failure> {
    let permit = cluster.limits.try_request();
    let _permit = permit.ok_or(Failure::Overflow("requests"))?;
    let picked = cluster.pick(PickFor::default(), &mut fastrand::Rng::new());
    let endpoint = picked.map_err(|_| Failure::NoEndpoint)?.endpoint;
    let _active = endpoint.state.begin();
    cluster.metrics.requests.inc();
    let target = Target {
        cluster,
        endpoint: &endpoint,
        version: copy.head.version(),
        raw: false,
        upgrade: false,
    };
    let mut lease = pools.checkout(worker, &target).await?;
    let up = &mut lease.up;
    let length = copy.body.iter().map(|piece| piece.len() as u64).sum();
    let body = match copy.framing.body {
        BodyLength::None => BodyLength::None,
        _ => BodyLength::Known(length),
    };
    up.head(&copy.head, body, &copy.framing)?;
    for piece in &copy.body {
        poll_fn(|cx| up.poll_room(cx)).await?;
        up.data(piece.clone())?;
    }
    up.end(None)?;
    poll_fn(|cx| up.poll_flush(cx)).await?;
    discard(up).await?;
    Ok(lease)
}

async fn discard(up: &mut UpstreamIo) -> Result<(), Failure> {
    let mut head = Head::new();
    while poll_fn(|cx| up.poll_head(cx, &mut head)).await?.interim {}
    poll_fn(|cx| {
        loop {
            match up.poll_body(cx, &mut head) {
                Poll::Ready(Ok(Event::Data(_))) => {}
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
    fn the_mark_stands_before_the_port() {
        assert_eq!(shadow(b"shop"), b"shop-shadow");
        assert_eq!(shadow(b"shop:80"), b"shop-shadow:80");
    }
}
