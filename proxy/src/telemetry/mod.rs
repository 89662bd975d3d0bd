//! Access logs, taps, and the edges that a connection's requests are counted on.
//!
//! - `calls`: the edges of one connection, its caller looked up by address
//! - `tap`: live requests for subscribers
//! - `access_log`: sinks; `record`: what a line can say; `format`, `escape`: how it is written

pub mod access_log;
pub mod calls;
pub mod escape;
pub mod format;
pub mod record;
pub mod tap;

pub use access_log::{Sinks, WorkerLogs};
pub use calls::{Call, Callers, Calls, Telemetry};
pub use format::render;
pub use record::{Headers, Record};
