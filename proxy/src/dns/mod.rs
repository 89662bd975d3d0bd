//! The captured resolver: names of the mesh answered here, everything else forwarded.
//!
//! - `question`: a message's question, and answers to it (no I/O)
//! - `resolve`: mesh or elsewhere, with search paths
//! - `forward`: upstream resolvers
//! - `server`: UDP and TCP sockets, bounded
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

mod forward;
mod question;
mod resolve;
pub mod server;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

/// anyam.bootstrap.v1.DnsProxy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    pub listen: SocketAddr,
    /// Empty: names outside the mesh are refused.
    pub upstream: Vec<SocketAddr>,
    /// Search domains, tried as suffixes of a name, in order.
    pub search: Vec<String>,
    /// Suffixes of the mesh's own names: never forwarded while the control plane does not answer.
    pub own: Vec<String>,
}

impl DnsSettings {
    /// `namespace`: of the workload; its services go by their short names. `domain`: of the cluster.
    /// `search`: tried after the mesh's own suffixes.
    pub fn new(
        listen: SocketAddr,
        upstream: Vec<SocketAddr>,
        (namespace, domain): (&str, &str),
        search: &[String],
    ) -> Self {
        let services = format!("svc.{domain}");
        let mut all = Vec::new();
        if !namespace.is_empty() {
            all.extend([format!("{namespace}.{services}"), services.clone()]);
        }
        for suffix in search {
            let suffix = suffix.trim_matches('.').to_ascii_lowercase();
            if !suffix.is_empty() && !all.contains(&suffix) {
                all.push(suffix);
            }
        }
        DnsSettings {
            listen,
            upstream,
            search: all,
            own: vec![services],
        }
    }
}
