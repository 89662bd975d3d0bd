//! Which protobuf message, oneof case or field a Rust path is.
//!
//! prost respells names (`HTTPFault` is `HttpFault`, a message's inner messages live in a module
//! of its name in snake case), so they are compared without case and underscores.

use std::collections::HashMap;
use std::sync::OnceLock;

use xds_proto::schema::{self, Field, Message};

/// A name as it is compared.
pub fn plain(name: &str) -> String {
    name.trim_start_matches("r#")
        .chars()
        .filter(|letter| *letter != '_')
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

/// The message at a full Rust path such as `xds_proto::envoy::config::core::v3::Node`.
pub fn message(path: &[String]) -> Option<Message> {
    static MESSAGES: OnceLock<HashMap<String, &'static str>> = OnceLock::new();
    let messages = MESSAGES.get_or_init(|| {
        schema::messages()
            .map(|message| (plain(message.name()), message.name()))
            .collect()
    });
    let (first, rest) = path.split_first()?;
    if first != "xds_proto" {
        return None;
    }
    let name: Vec<String> = rest.iter().map(|segment| plain(segment)).collect();
    schema::message(messages.get(&name.join("."))?)
}

/// The message and field of a oneof's case, such as `…::address::Address::Pipe`.
pub fn case(path: &[String]) -> Option<(Message, Field)> {
    let (variant, path) = path.split_last()?;
    let (_oneof, module) = path.split_last()?;
    let message = message(module)?;
    // prost appends an underscore to what would be a keyword.
    let name = plain(variant);
    let field = message
        .fields()
        .find(|field| field.oneof().is_some() && plain(field.name()) == name)?;
    Some((message, field))
}
