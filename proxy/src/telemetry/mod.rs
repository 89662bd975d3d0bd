//! Metrics and access logs. Handles are resolved when a snapshot compiles or a connection opens,
//! never per request.
//!
//! - `registry`: the metric registry, Istio's standard families, text exposition
//! - `edge`: who calls whom, label sets resolved once and bounded; `counts`: for onlookers
//! - `calls`: the edges of one connection, its caller looked up by address
//! - `resource`: counters per listener and per cluster; `splices`: of kernel pipes
//! - `tap`: live requests for onlookers
//! - `flags`: Envoy's response flags
//! - `access_log`: sinks; `record`: what a line can say; `format`, `escape`: how it is written

pub mod access_log;
pub mod calls;
pub mod counts;
pub mod edge;
pub mod escape;
pub mod flags;
pub mod format;
pub mod record;
pub mod registry;
pub mod resource;
pub mod splices;
pub mod tap;

pub use access_log::{Sinks, WorkerLogs};
pub use calls::{Call, Calls, Telemetry};
pub use edge::{Edge, Edges};
pub use flags::ResponseFlags;
pub use format::render;
pub use record::{Headers, Record};
pub use registry::Registry;
pub use resource::{ClusterMetrics, ListenerMetrics, OpenConnection};
pub use splices::SpliceMetrics;
