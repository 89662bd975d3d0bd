//! What an HTTP message is: types and canonical forms, without any codec.
//!
//! - [`head`]: start line and fields, ordered, spelling kept; `header_id`: names known in advance
//! - [`authority`], [`path`]: canonical forms, one value each for routing, policy and upstream
//! - [`fault`]: what can be wrong with one; [`grpc`]: statuses of gRPC
//! - [`header_case`]: spellings carried over HTTP/2; [`cookie`]: the cookies of a request
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

pub mod authority;
pub mod cookie;
pub mod fault;
pub mod grpc;
pub mod head;
pub mod header_case;
pub(crate) mod header_id;
pub mod path;
