//! Clusters at work.
//!
//! - `cluster`: picking an endpoint, publishing endpoints, telling outlier detection
//! - `lb`: priorities, panic, round robin, least request, random
//! - `host`: what is known of one endpoint; `limits`: circuit breakers; `outlier`: ejection
//! - `connect`: dialling; `pool`: connections kept per worker

pub mod cluster;
pub mod connect;
pub mod host;
pub mod lb;
pub mod limits;
pub mod outlier;
pub mod pool;
