//! The admin server: its connections are bounded, and only POST changes anything.
//!
//! - `server`: HTTP on the admin, metrics and health ports; `held`: the connections it holds;
//!   `reserve`: the descriptors it keeps for them; `unsent`: the bodies that peers have not taken yet
//! - `surface`: which pages a port has; `routes`: which path does what; `pages`: what can be read;
//!   `query`: a page's parameters
//! - `dump`, `mask`: `/config_dump`; `stats`, `quantiles`: metrics; `merged`: those for scrapers, with
//!   the app's;
//!   `clusters`, `certs`, `runtime`: the pages of those names
//! - `logging`: log levels, changed live
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod certs;
mod clusters;
mod dump;
mod held;
pub mod logging;
mod mask;
mod merged;
mod pages;
mod quantiles;
mod query;
mod reserve;
mod routes;
mod runtime;
pub mod server;
mod stats;
pub mod surface;
mod unsent;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

use self::logging::Logging;
use crate::drain::Drain;
use crate::identity;
use crate::log_sink::Sinks;
use crate::metrics::Registry;
use crate::probe::Prober;
use crate::snapshot::Store;
use crate::xds::client::Handle;
use crate::xds::resource_type::ResourceType;

pub use merged::ScrapePages;
pub use pages::Page;
pub use query::PageError;

/// Everything the pages read.
pub struct Admin {
    pub store: Arc<Store>,
    pub registry: Arc<Registry>,
    pub drain: Arc<Drain>,
    pub logging: Logging,
    /// Destinations of logs.
    pub sinks: Arc<Sinks>,
    /// `None`: no configuration comes over xDS.
    pub xds: Option<Handle>,
    /// `None`: certificates do not come by CSR.
    pub identity: Option<watch::Receiver<identity::CertificateStatus>>,
    /// `None`: there is no status port.
    pub prober: Option<Prober>,
    pub scrapes: ScrapePages,
    /// The bootstrap, encoded.
    pub bootstrap: Bytes,
    /// Resources of the bootstrap, encoded.
    pub statics: Vec<(ResourceType, String, Bytes)>,
    pub node: serde_json::Value,
    pub options: serde_json::Value,
    /// All listeners of the first configuration are open.
    pub listening: watch::Receiver<bool>,
    pub started: SystemTime,
    pub since: Instant,
}

/// Envoy's `ServerInfo.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    Live,
    Draining,
    Initializing,
}

impl ServerState {
    pub fn label(self) -> &'static str {
        match self {
            ServerState::Live => "LIVE",
            ServerState::Draining => "DRAINING",
            ServerState::Initializing => "INITIALIZING",
        }
    }
}

impl Admin {
    pub fn state(&self) -> ServerState {
        if !self.drain.is_healthy() {
            return ServerState::Draining;
        }
        let configured = self
            .xds
            .as_ref()
            .is_none_or(|xds| xds.watch().borrow().initialised);
        let identified = self
            .identity
            .as_ref()
            .is_none_or(|status| !status.borrow().serial.is_empty());
        match configured && identified && *self.listening.borrow() {
            true => ServerState::Live,
            false => ServerState::Initializing,
        }
    }

    /// What is missing before the state is live; empty when nothing is.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if let Some(status) = &self.identity {
            let status = status.borrow();
            if status.serial.is_empty() {
                let why = status.error.as_deref().unwrap_or("asked for");
                missing.push(format!("certificate: {why}"));
            }
        }
        if let Some(xds) = &self.xds {
            let state = xds.state();
            if !state.initialised {
                let why = state.error.as_deref().unwrap_or("not all has come yet");
                missing.push(format!("configuration: {why}"));
            }
        }
        if !*self.listening.borrow() {
            missing.push("listeners: not open yet".to_owned());
        }
        missing
    }
}

/// The node as the control plane sees it, for `/server_info`.
pub(crate) fn wire_node(node: &xds_proto::envoy::config::core::v3::Node) -> serde_json::Value {
    xds_proto::json::encode_json(node).unwrap_or_default()
}

/// RFC 3339, UTC, milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    use crate::telemetry::escape::{Civil, strftime};
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut out = Vec::with_capacity(24);
    // Writing to a Vec does not fail.
    let _ = strftime(
        &mut out,
        "%FT%T.%3fZ",
        &Civil::from_unix(since.as_secs()),
        since,
    );
    String::from_utf8(out).unwrap_or_default()
}

/// Sets a field of a JSON object.
fn set(object: &mut serde_json::Value, key: &str, value: serde_json::Value) {
    if let serde_json::Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests;
