//! A request's life, step by step (`handle`).
//!
//! - `headers` (sanitised, edited), `response` (those of responses) with `client_cert` and `request_id`; `target`: path and
//!   authority, normalised; [`plan`] with [`matching`]: the request's route
//! - `redirect`, `rewrite`: the route's changes to the request; `deadline`, `timeout`: how long it
//!   may take; `hash`: what chooses its endpoint
//! - `local_reply`: responses that the proxy makes for an [`error`], with `reply_text`; `refuse`: without
//!   a request
//! - [`stream_info`]: the record of a request, for logs, metrics and taps

pub(crate) mod client_cert;
pub(super) mod deadline;
pub mod error;
pub(super) mod handle;
mod hash;
pub(crate) mod headers;
pub(crate) mod local_reply;
pub mod matching;
pub mod plan;
pub(super) mod redirect;
pub(super) mod refuse;
mod reply_text;
mod request_id;
pub(crate) mod response;
pub(super) mod rewrite;
pub mod stream_info;
pub(crate) mod target;
pub(super) mod timeout;
