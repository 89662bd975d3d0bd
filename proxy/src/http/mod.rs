//! HTTP: codec, routing, forwarding.
//!
//! In the order a request meets them:
//! - `serve` (which codec), `serve1`, `serve2` (a connection's loop), `conn` (what its requests
//!   share)
//! - `handle`: a request's life, step by step: `path`, `authority` (one value each), `headers`
//!   (sanitise, edit) with `client_cert`, `plan` with `matching` (route), `authorise`, `redirect`, `rewrite`,
//!   `attempt` with `patience`, `retry`, `deadline`, `timeout` and `upgrade`, `relay` with `pump` and
//!   `splice` (bodies), `tunnel` (bytes that left the codec), `mirror`
//! - `down` and `up`: the two ends of an exchange, HTTP/1 or HTTP/2; `io`: socket and buffers
//! - `local` (responses made here) for an `error`; `observe`: what is known of a request
//! - `rooms`: memory for a request's future; `head`, `spelling`, `date`: the head type and its spellings; `h1`, `h2`: the protocols

mod attempt;
pub(crate) mod authorise;
pub mod authority;
mod client_cert;
pub mod conn;
pub mod date;
mod deadline;
mod down;
pub mod error;
pub mod h1;
pub mod h2;
mod handle;
pub mod head;
mod header_id;
mod headers;
pub mod io;
mod local;
pub mod matching;
mod mirror;
pub mod observe;
pub mod path;
mod patience;
pub mod plan;
mod pump;
mod redirect;
mod relay;
mod retry;
mod rewrite;
pub mod rooms;
pub mod serve;
mod serve1;
mod serve2;
pub mod spelling;
mod splice;
mod timeout;
mod tunnel;
pub mod up;
mod upgrade;
