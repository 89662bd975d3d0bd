//! HTTP for admin, metrics, health and status. It uses hyper, which the data path does not.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::held::{Answering, Bounds, PortConnections};
use super::reserve::{Reserve, ReservedStream};
use super::{Admin, routes};

/// Limit of a request's head, bytes.
const MAX_HEAD: usize = 16 << 10;

/// The limits of a port.
struct SurfaceOptions {
    bounds: Bounds,
    /// How long a request's head may take to arrive.
    header_timeout: Duration,
    /// The longest a connection may stay open: no page streams.
    max_life: Duration,
    keep_alive: bool,
}

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Admin,
    /// `/stats/prometheus`.
    Metrics,
    /// `/healthz/ready`.
    Health,
    /// `/app-health/…`, `/stats/prometheus` with the app's metrics, `/healthz/ready`.
    Status,
}

/// A bound port.
pub struct Port {
    pub listener: TcpListener,
    reserve: Arc<Reserve>,
}

/// Binds a port for [`serve`].
///
/// # Errors
/// As `bind(2)`, or without descriptors.
pub async fn bind(address: SocketAddr) -> std::io::Result<Port> {
    Ok(Port {
        listener: TcpListener::bind(address).await?,
        reserve: Reserve::new()?,
    })
}

impl Surface {
    fn options(self) -> SurfaceOptions {
        match self {
            // All clients share the loopback address, so it has no bound of its own. Dashboards
            // keep their connections.
            Surface::Admin => SurfaceOptions {
                bounds: Bounds {
                    all: 64,
                    of_one_address: 64,
                },
                header_timeout: Duration::from_secs(10),
                max_life: Duration::from_secs(600),
                keep_alive: true,
            },
            // Open to every peer, and a probe has about a second to be answered.
            Surface::Metrics | Surface::Health => SurfaceOptions {
                bounds: Bounds {
                    all: 64,
                    of_one_address: 16,
                },
                header_timeout: Duration::from_secs(1),
                max_life: Duration::from_secs(30),
                keep_alive: false,
            },
            // All probes of a pod come from one address, and a preStop hook may take as long as the
            // pod's grace period.
            Surface::Status => SurfaceOptions {
                bounds: Bounds {
                    all: 256,
                    of_one_address: 64,
                },
                header_timeout: Duration::from_secs(1),
                max_life: Duration::from_secs(660),
                keep_alive: false,
            },
        }
    }
}

/// Serves until the process ends.
pub async fn serve(port: &Port, surface: Surface, admin: &Arc<Admin>) {
    let options = surface.options();
    let mut held = PortConnections::new(options.bounds);
    loop {
        let (tcp, peer) = match port.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if port.reserve.spend(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, ?surface, "accept failed");
                // Most likely there are no descriptors left: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // It has gone already.
        let Ok(local) = tcp.local_addr() else {
            continue;
        };
        port.reserve.fill();
        let tcp = ReservedStream::new(tcp, &port.reserve);
        let peer = peer.ip().to_canonical();
        held.make_room(peer);
        let (admin, answering) = (admin.clone(), Answering::default());
        let counted = answering.clone();
        let service = service_fn(move |request| {
            let (admin, counted) = (admin.clone(), counted.clone());
            async move {
                let answer = answer(surface, &admin, local.ip(), request);
                Ok::<_, Infallible>(counted.during(answer).await)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .keep_alive(options.keep_alive)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(tcp), service);
        let serving = tokio::time::timeout(options.max_life, connection);
        let task = tokio::spawn(async move {
            if let Ok(Err(error)) = serving.await {
                tracing::debug!(%error, ?surface, "connection");
            }
        });
        held.add(peer, answering, task.abort_handle());
    }
}

async fn answer(
    surface: Surface,
    admin: &Admin,
    local: IpAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    // Bodies are not read: everything is in the URL, and hyper closes what was not drained.
    let (head, _) = request.into_parts();
    routes::answer(surface, admin, local, &head).await
}
