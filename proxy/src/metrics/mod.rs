//! Metrics: families, and handles resolved when a snapshot compiles or a connection opens, never
//! per request.
//!
//! - [`registry`]: the metric registry, Istio's standard families, text exposition
//! - [`edge`]: source and destination of calls, label sets resolved once; [`edges`]: all of them,
//!   bounded; [`counts`]: for subscribers
//! - [`resource`]: counters per listener, cluster and filter; [`splices`]: of kernel pipes
//! - [`flags`]: Envoy's response flags; [`open_metrics`]: the other exposition format
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

pub mod counts;
pub mod edge;
pub mod edges;
pub mod flags;
pub mod open_metrics;
pub mod registry;
pub mod resource;
pub mod splices;

pub use self::edge::Edge;
pub use self::edges::Edges;
pub use self::flags::ResponseFlags;
pub use self::registry::Registry;
pub use self::resource::{
    ClusterMetrics, CompressorMetrics, CsrfMetrics, DecompressorMetrics, HeaderToMetadataMetrics,
    JwtAuthnMetrics, ListenerMetrics, OpenConnection,
};
pub use self::splices::SpliceMetrics;
