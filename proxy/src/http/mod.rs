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

pub mod connection;
pub mod filter;
pub mod forward;
pub mod h1;
pub mod h2;
pub mod message;
pub mod pool;
pub mod request;
