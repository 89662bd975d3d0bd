//! HTTP for admin, metrics and health. hyper serves it; the data path never does.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{Admin, routes};

/// Connections served at once per port; more wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// Request head, bytes.
const MAX_HEAD: usize = 16 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives no longer than this: nothing here streams.
const MAX_LIFE: Duration = Duration::from_secs(600);

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything; loopback only.
    Admin,
    /// `/stats/prometheus`.
    Metrics,
    /// `/healthz/ready`.
    Health,
}

/// Binds a port for [`serve`].
///
/// # Errors
/// As `bind(2)`.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until the process ends.
pub async fn serve(listener: &TcpListener, surface: Surface, admin: &Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, ?surface, "accept failed");
                // Out of descriptors, most likely: trying at once would only spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request| answer(surface, admin.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(tcp), service);
            if let Ok(Err(error)) = tokio::time::timeout(MAX_LIFE, connection).await {
                tracing::debug!(%error, ?surface, "connection");
            }
        });
    }
}

fn answer(
    surface: Surface,
    admin: Arc<Admin>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> {
    // Bodies are not read: everything is in the URL, and hyper closes what was not drained.
    let (head, _) = request.into_parts();
    async move { Ok(routes::answer(surface, &admin, &head).await) }
}
