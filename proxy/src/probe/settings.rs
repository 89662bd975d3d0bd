//! Settings of the status port (anyam.bootstrap.v1.StatusPort, checked).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;

/// The status port, and what is called for it.
#[derive(Clone, Debug)]
pub struct StatusPortSettings {
    pub listen: SocketAddr,
    /// The pod's own address.
    pub app: IpAddr,
    pub probes: Vec<Arc<AppProbe>>,
    pub metrics: Option<AppMetrics>,
}

/// A probe or lifecycle hook.
#[derive(Debug)]
pub struct AppProbe {
    /// `<container>/<livez|readyz|startupz|prestop|poststart>`.
    pub name: String,
    pub handler: ProbeHandler,
    pub timeout: Duration,
}

#[derive(Debug)]
pub enum ProbeHandler {
    Http(AppResource),
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// A resource of the app.
#[derive(Clone, Debug)]
pub struct AppResource {
    pub https: bool,
    pub port: u16,
    pub path: PathAndQuery,
    /// With `Host`, where it is not the address.
    pub headers: HeaderMap,
}

#[derive(Clone, Debug)]
pub struct AppMetrics {
    pub target: AppResource,
}
