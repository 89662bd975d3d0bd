//! Errors that name the field.

use std::fmt;

use serde_json::Value;

use crate::wire::WireError;

/// What is wrong with a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// The field's path from the message's root, such as
    /// `static_resources.listeners[0].address`; empty for the message itself.
    pub path: String,
    pub message: String,
}

impl JsonError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            message: message.into(),
        }
    }

    /// `wanted` was expected where `found` stands.
    pub(super) fn expected(wanted: &str, found: &Value) -> Self {
        Self::new(format!("expected {wanted}, found {}", describe(found)))
    }

    /// Seen from the message around it: `segment` is a field's name.
    pub(super) fn within(mut self, segment: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{segment}{dot}{}", self.path);
        self
    }

    /// Seen from the list around it.
    pub(super) fn at(self, index: usize) -> Self {
        self.within(&format!("[{index}]"))
    }

    /// Seen from the map around it.
    pub(super) fn at_key(self, key: &str) -> Self {
        self.within(&format!("[{key:?}]"))
    }
}

impl From<WireError> for JsonError {
    fn from(error: WireError) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for JsonError {}

/// A value in the words of an error: short whatever it holds.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) if value.chars().count() <= 60 => format!("{value:?}"),
        Value::String(_) => "a long string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
