//! JSON Web Tokens (RFC 7519): parsing, verification, and the keys for it (RFC 7517). No I/O.
//!
//! - [`token`]: a token's parts and claims; `json`: the strict JSON in them; [`status`]: why one is refused
//! - [`algorithm`], `key`: signatures; [`jwks`]: key sets
//! - [`remote`]: a key set that is fetched, as requests and the fetching task share it
//! - [`cache`]: tokens that were verified, per worker
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod algorithm;
pub mod cache;
mod json;
pub mod jwks;
mod key;
pub mod remote;
pub mod status;
pub mod token;

pub use self::algorithm::SignatureAlgorithm;
pub use self::cache::{CacheSettings, TokenCaches, VerifiedToken};
pub use self::jwks::{Jwks, JwksError};
pub use self::status::JwtStatus;
pub use self::token::Jwt;

#[cfg(test)]
mod tests;
