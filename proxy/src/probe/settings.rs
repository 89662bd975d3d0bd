//! Settings of the status port (anyam.bootstrap.v1.StatusPort, checked).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
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
    /// The token at the end of a hook's path; `None`: a probe, which every peer may request.
    pub token: Option<HookToken>,
}

/// See `AppProbe.hook_token` (anyam.bootstrap.v1).
pub struct HookToken(String);

/// Never written to a log.
impl fmt::Debug for HookToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl HookToken {
    /// Bytes of a token.
    const LENGTH: RangeInclusive<usize> = 16..=128;

    /// `None`: it is too short, too long, or no segment of a path.
    pub fn read(text: String) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_token = Self::LENGTH.contains(&text.len()) && text.bytes().all(fits);
        is_token.then_some(Self(text))
    }
}

impl AppProbe {
    /// Whether a path below `/app-health/` asks for it. The token is compared in constant time.
    pub fn is_at(&self, path: &str) -> bool {
        let Some(token) = &self.token else {
            return path == self.name;
        };
        let below = path.strip_prefix(self.name.as_str());
        let given = below.and_then(|below| below.strip_prefix('/'));
        given.is_some_and(|given| {
            verify_slices_are_equal(given.as_bytes(), token.0.as_bytes()).is_ok()
        })
    }
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
