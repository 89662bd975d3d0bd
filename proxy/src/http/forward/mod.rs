//! A request on its way to an upstream, and the response on its way back.
//!
//! - `attempt` (one or more; `state`: what they have in common; `progress`: what is watched while one
//!   runs; `retry`: whether to make another)
//! - `downstream`, `upstream`: the two ends of an exchange, HTTP/1 or HTTP/2
//! - `relay` with `pump` and `splice`: bodies; `mirror`: copies of requests
//! - `upgrade`, `connect_tunnel`: bytes that have left the codec

pub(super) mod attempt;
pub(super) mod connect_tunnel;
pub(super) mod downstream;
pub(super) mod mirror;
pub(super) mod progress;
pub(super) mod pump;
pub(super) mod relay;
pub(super) mod retry;
pub(super) mod splice;
pub(super) mod state;
pub(crate) mod upgrade;
pub mod upstream;
