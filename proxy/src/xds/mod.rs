//! Where configuration comes from: ADS, incremental or state-of-the-world.
//!
//! - `kind`: the resource types; `message`: requests and responses without their encoding
//! - `cache`: the client as a sans-IO state machine: subscriptions, ACK/NACK, warming, on demand
//! - `client`: the gRPC stream under it, reconnecting
//! - `apply`: judged resources → compiler → snapshot → store; answers the data path

pub mod cache;
pub mod kind;
pub mod message;
