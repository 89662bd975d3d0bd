//! HTTP for admin, metrics, health and status. It uses hyper, which the data path does not.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::held::{Answering, Bounds, PortConnections};
use super::reserve::{Reserve, ReservedStream};
use super::routes::APP_HEALTH;
use super::surface::Surface;
use super::unsent::UnsentBodies;
use super::{Admin, routes};

/// Limit of a request's head, bytes.
const MAX_HEAD: usize = 16 << 10;

/// The limits of a port.
#[derive(Clone, Copy)]
struct SurfaceOptions {
    bounds: Bounds,
    /// How long a request's head may take to arrive.
    header_timeout: Duration,
    /// The longest a connection may stay open: no page streams.
    max_life: Duration,
    /// The same, when it asks for a probe or hook of the app.
    max_probe_life: Duration,
    keep_alive: bool,
}

/// See [`SurfaceOptions::max_life`] of the ports that every peer reaches.
const MAX_LIFE: Duration = Duration::from_secs(30);

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
                max_probe_life: Duration::ZERO,
                keep_alive: true,
            },
            // Open to every peer, and a probe has about a second to be answered.
            Surface::Metrics | Surface::Health => SurfaceOptions {
                bounds: Bounds {
                    all: 64,
                    of_one_address: 16,
                },
                header_timeout: Duration::from_secs(1),
                max_life: MAX_LIFE,
                max_probe_life: Duration::ZERO,
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
                max_life: MAX_LIFE,
                max_probe_life: Duration::from_secs(660),
                keep_alive: false,
            },
        }
    }
}

/// Serves until the process ends.
pub async fn serve(port: &Port, surface: Surface, admin: &Arc<Admin>) {
    let options = surface.options();
    let mut held = PortConnections::new(options.bounds);
    let unsent = Arc::new(UnsentBodies::default());
    loop {
        let (tcp, peer) = match port.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if port.reserve.spend(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, ?surface, "accept failed");
                // Out of descriptors, most likely: trying at once would only spin.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // It has gone already.
        let Ok(local) = tcp.local_addr() else {
            continue;
        };
        port.reserve.fill();
        let tcp = ReservedStream::new(tcp, &port.reserve);
        let connection = Arc::new(AdminConnection {
            surface,
            admin: admin.clone(),
            local: local.ip(),
            peer: peer.ip().to_canonical(),
            answering: Answering::default(),
            unsent: unsent.clone(),
            close: Arc::default(),
            is_probing: AtomicBool::new(false),
        });
        held.make_room(connection.peer);
        let task = tokio::spawn(connection.clone().serve(tcp, options));
        let answering = connection.answering.clone();
        held.add(connection.peer, answering, task.abort_handle());
    }
}

/// What the requests of one connection have in common.
struct AdminConnection {
    surface: Surface,
    admin: Arc<Admin>,
    /// Our end of it.
    local: IpAddr,
    peer: IpAddr,
    answering: Answering,
    /// Of the whole port.
    unsent: Arc<UnsentBodies>,
    /// Closes it.
    close: Arc<Notify>,
    /// It has asked for a probe or hook of the app.
    is_probing: AtomicBool,
}

impl AdminConnection {
    async fn serve(self: Arc<Self>, tcp: ReservedStream, options: SurfaceOptions) {
        let own = self.clone();
        let service = service_fn(move |request| {
            let own = own.clone();
            async move {
                let answer = own.answering.during(own.answer(request));
                Ok::<_, Infallible>(answer.await)
            }
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .keep_alive(options.keep_alive)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(tcp), service);
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::debug!(%error, surface = ?self.surface, "connection");
            },
            () = self.close.notified() => {}
            () = self.lifetime(&options) => {}
        }
    }

    /// Ends when the connection has been open for as long as it may.
    async fn lifetime(&self, options: &SurfaceOptions) {
        sleep(options.max_life).await;
        if self.is_probing.load(Relaxed) {
            sleep(options.max_probe_life.saturating_sub(options.max_life)).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        // Bodies are not read: everything is in the URL, and hyper closes what was not drained.
        let (head, _) = request.into_parts();
        if head.uri.path().starts_with(APP_HEALTH) {
            self.is_probing.store(true, Relaxed);
        }
        let answer = routes::answer(self.surface, &self.admin, self.local, &head).await;
        answer.map(|body| match self.surface {
            // Not open to every peer.
            Surface::Admin => Full::new(body),
            _ => Full::new(self.unsent.counted(body, self.peer, &self.close)),
        })
    }
}
