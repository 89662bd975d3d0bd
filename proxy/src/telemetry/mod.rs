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
pub mod escape;
pub mod format;
pub mod record;
pub mod tap;

pub use access_log::{Sinks, WorkerLogs};
pub use calls::{Call, Calls, Telemetry};
pub use format::render;
pub use record::{Headers, Record};
