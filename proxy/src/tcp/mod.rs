//! The tcp_proxy network filter.
//!
//! - `proxy`: a connection from dialling to its log line; `dial`: where to, and the way there
//! - `verdict`: how it ended, as access logs show it

pub mod dial;
pub mod proxy;
pub(crate) mod verdict;
