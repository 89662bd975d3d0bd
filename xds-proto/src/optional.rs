//! Extensions that a configuration marks as optional (`is_optional`): a reader that lacks their type
//! may leave them out, and has to report it.

use crate::schema::Message;

/// The fields of a message that holds an extension and marks whether it is optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The number of `is_optional`.
    pub flag: u32,
    /// The number of the Any.
    pub extension: u32,
}

/// `None`: messages of this type hold no extension that may be optional.
pub fn marked(message: Message) -> Option<Marked> {
    match message.name() {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter" => Some(Marked {
            flag: 6,
            extension: 4,
        }),
        "envoy.config.route.v3.FilterConfig" => Some(Marked {
            flag: 2,
            extension: 1,
        }),
        _ => None,
    }
}
