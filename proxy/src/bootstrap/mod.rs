//! What the process starts from: an Envoy bootstrap.
//!
//! - `source`: file and `--config-yaml` → one message; `error`: file, field, what to do
//! - `compile` (with `dynamic`, `runtime`, `limits`, `extensions`, `status`): that message →
//!   [`Bootstrap`]
//! - `sidecar`: writes such a message from a pod's environment
//! - `validate`: `--mode validate`, the whole configuration included
//! - `concurrency`: how many workers; `capacity`: how many connections
//!
//! Listeners, clusters and secrets are passed on unchanged: static or dynamic, they go through the
//! same compiler (`config/compile`).

// Messages are destructured whole, deprecated fields too.
#![allow(deprecated)]

pub mod capacity;
mod compile;
pub mod concurrency;
mod dynamic;
mod error;
pub mod extensions;
pub mod limits;
mod runtime;
pub mod sidecar;
mod source;
mod status;
#[cfg(test)]
mod tests;
pub mod validate;

use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;
use xds_proto::envoy::config::bootstrap::v3 as pb;
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::config::listener::v3::Listener;
use xds_proto::envoy::extensions::transport_sockets::tls::v3::Secret;

pub use self::error::BootstrapError;
pub use self::extensions::Extensions;
pub use self::limits::ConnectionLimits;
use crate::args::{Serve, Sidecar};
use crate::config::compile::CompileError;
use crate::config::compile::support::At;
use crate::xds::message::ProtocolVariant;

/// A bootstrap, checked.
pub struct Bootstrap {
    /// Sent to the control plane as it is.
    pub node: Node,
    /// `None`: no admin server.
    pub admin: Option<SocketAddr>,
    /// `static_resources`, for the compiler.
    pub listeners: Vec<Listener>,
    pub clusters: Vec<Cluster>,
    pub secrets: Vec<Secret>,
    /// `cluster_manager.local_cluster_name`, one of the static clusters; empty: there is none.
    pub local_cluster: String,
    /// `None`: everything there is, is static.
    pub ads: Option<Ads>,
    pub extensions: Extensions,
    pub limits: ConnectionLimits,
    /// The message itself, for the config dump.
    pub message: pb::Bootstrap,
}

/// The aggregated stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ads {
    /// One of the static clusters.
    pub cluster: String,
    pub protocol: ProtocolVariant,
    /// Listeners come over it.
    pub listeners: bool,
    /// Clusters come over it.
    pub clusters: bool,
    /// The longest that listeners and clusters are waited for (`initial_fetch_timeout`); `None`:
    /// neither come over it.
    pub init_timeout: Option<Duration>,
}

/// Reads the bootstrap that the flags name.
///
/// # Errors
/// Says which file and which field, and what to do.
pub fn load(serve: &Serve) -> Result<Bootstrap, BootstrapError> {
    let bytes = source::read(serve)?;
    let mut message =
        pb::Bootstrap::decode(bytes.as_slice()).map_err(|error| BootstrapError::Syntax {
            source_name: "the bootstrap".to_owned(),
            format: "protobuf",
            error: error.to_string(),
        })?;
    let node = message.node.get_or_insert_default();
    if let Some(id) = &serve.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &serve.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &serve.service_zone {
        node.locality.get_or_insert_default().zone.clone_from(zone);
    }
    Ok(from_message(message)?)
}

/// The bootstrap of a sidecar.
///
/// # Errors
/// When the flags contradict each other.
pub fn of_sidecar(sidecar: &Sidecar) -> Result<Bootstrap, BootstrapError> {
    Ok(from_message(sidecar::bootstrap(sidecar)?)?)
}

/// Checks a bootstrap, except for what `config/compile` checks.
///
/// # Errors
/// Names the first field that cannot be used.
pub fn from_message(message: pb::Bootstrap) -> Result<Bootstrap, CompileError> {
    compile::bootstrap(At::root(""), message)
}
