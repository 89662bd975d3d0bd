//! What crosses a process boundary in Anyam.
//!
//! - [`envoy`], [`xds`], [`google`]: Envoy's v3 API and what it builds on, whole messages
//! - [`anyam`], [`istio`], [`grpc`]: our own small protos, the certificate service, health checks
//! - [`type_url`]: the names of resource types on the wire; [`any`]: packing and unpacking them
//! - [`json`]: the proto3 JSON mapping; [`unknown`]: finds fields that the schema lacks;
//!   [`schema`]: the schema; `wire`: the wire format, field by field; `optional`: extensions marked
//!   as optional
//! - [`yaml`]: YAML as users write bootstraps and manifests, with file positions
//! - [`canonical()`]: one encoding for equal messages
//! - [`inspect`]: constants of the Inspect stream

pub mod any;
mod canonical;
pub mod inspect;
pub mod json;
mod optional;
pub mod schema;
pub mod type_url;
pub mod unknown;
mod wire;
pub mod yaml;

pub use canonical::canonical;
pub use envoy_types::pb::{envoy, google, xds};

/// Generated code is not held to our lints.
macro_rules! generated {
    ($package:literal) => {
        #[allow(clippy::all, clippy::unwrap_used, rust_2018_idioms, rustdoc::all)]
        mod generated {
            tonic::include_proto!($package);
        }
        pub use generated::*;
    };
}

/// Our own protos.
pub mod anyam {
    /// `anyam.bootstrap.v1`: bootstrap extensions.
    pub mod bootstrap {
        pub mod v1 {
            generated!("anyam.bootstrap.v1");
        }
    }
    /// `anyam.dns.v1`: names of the mesh.
    pub mod dns {
        pub mod v1 {
            generated!("anyam.dns.v1");
        }
    }
    /// `anyam.inspect.v1`: reports, tap, dump, explain.
    pub mod inspect {
        pub mod v1 {
            generated!("anyam.inspect.v1");
        }
    }
    /// `anyam.tunnel.v1`: a network filter.
    pub mod tunnel {
        pub mod v1 {
            generated!("anyam.tunnel.v1");
        }
    }
    /// `anyam.workload.v1`: the workload at an address.
    pub mod workload {
        pub mod v1 {
            generated!("anyam.workload.v1");
        }
    }
}

/// Istio's certificate service, which our CA implements.
pub mod istio {
    pub mod v1 {
        /// `istio.v1.auth`.
        pub mod auth {
            generated!("istio.v1.auth");
        }
    }
}

/// gRPC's own services.
pub mod grpc {
    pub mod health {
        /// `grpc.health.v1`: health checks.
        pub mod v1 {
            generated!("grpc.health.v1");
        }
    }
}
