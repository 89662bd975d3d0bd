//! The mesh into xDS resources: pure functions of the mesh, a name and a scope.
//!
//! - [`listener`], [`inbound`], [`http`], [`policy`]: listeners and their chains, the connection
//!   manager, authorisation; [`connection_route`]: chains by TCPRoutes and TLSRoutes
//! - [`route`], [`action`]: routes in Gateway API's order, and what they do; [`edits`]: to headers;
//!   [`cors`]: for other origins; [`session`]: those that stay on an endpoint; `route_filters`: whether
//!   any are
//! - [`cluster`], `balancing`, [`protocol`], [`resilience`], [`tls`], [`backend_tls`], [`endpoint`]:
//!   upstreams
//! - [`workload`], [`name`]: the workload at an address; names for DNS
//! - [`naming`]: names of resources; [`proto`]: short ways to write protobufs
//! - [`resource`]: a name and a scope into encoded bytes; [`touched`]: what a change may change;
//!   [`view`]: states that ADS serves from, `cache`: what they have encoded

pub mod action;
pub mod backend_tls;
mod balancing;
mod cache;
pub mod cluster;
pub mod connection_route;
pub mod cors;
pub mod edits;
pub mod endpoint;
pub mod http;
pub mod inbound;
pub mod listener;
pub mod name;
pub mod naming;
pub mod policy;
pub mod proto;
pub mod protocol;
pub mod resilience;
pub mod resource;
pub mod route;
pub mod route_filters;
pub mod session;
pub mod tls;
pub mod touched;
pub mod view;
pub mod workload;

pub use view::Translator;
