//! What a message is.
//!
//! - [`head`]: start line and fields, ordered, spelling kept; `header_id`: names known in advance
//! - [`authority`], [`path`]: canonical forms, one value each for routing, policy and upstream
//! - [`header_case`]: spellings carried over HTTP/2; [`date`]: the `date` field

pub mod authority;
pub mod date;
pub mod head;
pub mod header_case;
pub(super) mod header_id;
pub mod path;
