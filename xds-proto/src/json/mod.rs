//! The proto3 JSON mapping, complete, for every message of the [`crate::schema`].
//!
//! - `read`: JSON → wire; `write`: wire → JSON
//! - `scalar`: numbers, strings, bytes, enums; `well_known`: Any, Struct, wrappers;
//!   `time`: Duration, Timestamp; `mask`: FieldMask
//! - `error`: what went wrong, and the path of the field where
//!
//! Reading is strict: an unknown field, a second case of a oneof, a number out of range and a
//! field given under both its names are errors, each with the path of the field.
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

mod error;
mod mask;
mod read;
mod scalar;
mod time;
mod well_known;
mod write;

use prost::{Message, Name};
use serde_json::Value;

pub use error::JsonError;
pub use write::Names;

use crate::schema;

/// Turns the JSON form of the message type `name` into its wire form.
///
/// # Errors
/// When `value` is no such message, with the path of the field at fault.
pub fn from_json(name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    read::message(find(name)?, value, 0)
}

/// Turns wire bytes of the message type `name` into JSON, with the field names of the proto, as
/// Envoy's own dumps have them. What the schema lacks is left out: see [`crate::unknown`].
///
/// # Errors
/// When `bytes` are no such message.
pub fn to_json(name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
    to_json_named(name, bytes, Names::Proto)
}

/// [`to_json`] with a choice of field names.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_named(name: &str, bytes: &[u8], names: Names) -> Result<Value, JsonError> {
    write::message(find(name)?, bytes, names, 0)
}

/// The typed [`from_json`].
///
/// # Errors
/// As [`from_json`].
pub fn decode_json<M: Message + Name + Default>(value: &Value) -> Result<M, JsonError> {
    let bytes = from_json(&M::full_name(), value)?;
    M::decode(bytes.as_slice()).map_err(|error| JsonError::new(error.to_string()))
}

/// The typed [`to_json`].
///
/// # Errors
/// When the message holds what JSON cannot express, such as a Timestamp before the year 1.
pub fn encode_json<M: Message + Name>(message: &M) -> Result<Value, JsonError> {
    to_json(&M::full_name(), &message.encode_to_vec())
}

fn find(name: &str) -> Result<schema::Message, JsonError> {
    schema::message(name)
        .ok_or_else(|| JsonError::new(format!("the message type {name} is not known to Anyam")))
}
