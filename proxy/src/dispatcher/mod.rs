//! What a worker thread's loop lends to whatever runs on it (Envoy's dispatcher): no module here
//! knows what a connection or a request is.
//!
//! - [`timer`]: coarse timers on one wheel; [`buffer`]: pooled read and write buffers
//! - [`pipe`]: pooled kernel pipes for `splice`
//! - [`future_slab`]: memory for the futures of requests

pub mod buffer;
pub mod date;
pub mod future_slab;
pub mod pipe;
pub mod timer;
