//! Messages with a JSON form of their own.

use serde_json::{Map, Value, json};

use super::error::JsonError;
use super::scalar::Scalar;
use super::write::{self, Names};
use super::{mask, read, scalar, time};
use crate::schema::{self, Message};
use crate::type_url;
use crate::wire::{self, MAX_DEPTH, WireValue};

/// Which form that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Any,
    Duration,
    Timestamp,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// A scalar in a message, so that absence shows.
    Wrapper,
}

/// `None`: an object with the message's fields, as most.
pub fn special(message: Message) -> Option<Special> {
    Some(match message.name().strip_prefix("google.protobuf.")? {
        "Any" => Special::Any,
        "Duration" => Special::Duration,
        "Timestamp" => Special::Timestamp,
        "FieldMask" => Special::FieldMask,
        "Struct" => Special::Struct,
        "Value" => Special::Value,
        "ListValue" => Special::ListValue,
        "BoolValue" | "BytesValue" | "DoubleValue" | "FloatValue" | "Int32Value" | "Int64Value"
        | "StringValue" | "UInt32Value" | "UInt64Value" => Special::Wrapper,
        _ => return None,
    })
}

/// JSON → wire.
pub fn read(
    special: Special,
    message: Message,
    value: &Value,
    depth: u32,
) -> Result<Vec<u8>, JsonError> {
    let text = |wanted: &str| {
        value
            .as_str()
            .ok_or_else(|| JsonError::expected(wanted, value))
    };
    match special {
        Special::Any => read_any(value, depth),
        Special::Duration => time::read_duration(text("a duration such as \"1.5s\"")?),
        Special::Timestamp => time::read_timestamp(text("a time such as 2026-01-31T12:00:00Z")?),
        Special::FieldMask => mask::read(text("field paths with commas between")?),
        Special::Value => read_value(value, depth),
        Special::Struct => match value {
            Value::Object(object) => read_struct(object, depth),
            other => Err(JsonError::expected("an object", other)),
        },
        Special::ListValue => match value {
            Value::Array(elements) => read_list(elements, depth),
            other => Err(JsonError::expected("a list", other)),
        },
        Special::Wrapper => {
            let mut out = Vec::new();
            if let Some(field) = message.field_by_number(1) {
                let scalar = scalar::read(field, value)?;
                if !scalar.is_default() {
                    scalar.put(&mut out, 1);
                }
            }
            Ok(out)
        }
    }
}

/// `google.protobuf.Value`: a oneof of six cases.
fn read_value(value: &Value, depth: u32) -> Result<Vec<u8>, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::new(format!(
            "nested deeper than {MAX_DEPTH} messages"
        )));
    }
    let mut out = Vec::new();
    match value {
        Value::Null => Scalar::Varint(0).put(&mut out, 1),
        Value::Number(number) => {
            let number = number
                .as_f64()
                .ok_or_else(|| JsonError::expected("a number", value))?;
            Scalar::Fixed64(number.to_bits()).put(&mut out, 2);
        }
        Value::String(text) => wire::put_bytes(&mut out, 3, text.as_bytes()),
        Value::Bool(value) => Scalar::Varint((*value).into()).put(&mut out, 4),
        Value::Object(object) => {
            wire::put_bytes(&mut out, 5, &read_struct(object, depth.saturating_add(1))?)
        }
        Value::Array(elements) => {
            wire::put_bytes(&mut out, 6, &read_list(elements, depth.saturating_add(1))?)
        }
    }
    Ok(out)
}

/// `google.protobuf.Struct`: a map from string to Value.
fn read_struct(object: &Map<String, Value>, depth: u32) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    for (key, value) in object {
        let mut entry = Vec::new();
        wire::put_bytes(&mut entry, 1, key.as_bytes());
        let value =
            read_value(value, depth.saturating_add(1)).map_err(|error| error.at_key(key))?;
        wire::put_bytes(&mut entry, 2, &value);
        wire::put_bytes(&mut out, 1, &entry);
    }
    Ok(out)
}

/// `google.protobuf.ListValue`: a list of Values.
fn read_list(elements: &[Value], depth: u32) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let value =
            read_value(element, depth.saturating_add(1)).map_err(|error| error.at(index))?;
        wire::put_bytes(&mut out, 1, &value);
    }
    Ok(out)
}

fn read_any(value: &Value, depth: u32) -> Result<Vec<u8>, JsonError> {
    let Value::Object(object) = value else {
        return Err(JsonError::expected("an object with \"@type\"", value));
    };
    if object.is_empty() {
        return Ok(Vec::new());
    }
    let url = match object.get("@type") {
        Some(Value::String(url)) => url,
        Some(other) => return Err(JsonError::expected("a type URL", other).within("@type")),
        None => {
            let example = format!("\"@type\": {}…", type_url::PREFIX);
            return Err(JsonError::new(format!("expected an object with {example}")));
        }
    };
    let inner = any_type(url).map_err(|error| error.within("@type"))?;
    let payload = if has_value_form(inner, object) {
        if let Some(extra) = object
            .keys()
            .find(|key| !["@type", "value"].contains(&key.as_str()))
        {
            let rule = format!("{} in an Any has only `value`", inner.name());
            return Err(JsonError::new(rule).within(extra));
        }
        let value = object.get("value").ok_or_else(|| {
            JsonError::new(format!("{} in an Any stands in `value`", inner.name()))
        })?;
        read::message(inner, value, depth.saturating_add(1))
            .map_err(|error| error.within("value"))?
    } else {
        read::fields(inner, object, &["@type"], depth.saturating_add(1))?
    };
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, url.as_bytes());
    if !payload.is_empty() {
        wire::put_bytes(&mut out, 2, &payload);
    }
    Ok(out)
}

/// The type URL of an Any whose type is not known.
pub fn unknown_any(value: &Value) -> Option<&str> {
    let url = value.get("@type")?.as_str()?;
    let (_, name) = url.rsplit_once('/')?;
    schema::message(name).is_none().then_some(url)
}

/// Empty stands in `value` too for some writers.
fn has_value_form(message: Message, object: &Map<String, Value>) -> bool {
    special(message).is_some()
        || (message.name() == "google.protobuf.Empty" && object.contains_key("value"))
}

/// The message type that a type URL names.
fn any_type(url: &str) -> Result<Message, JsonError> {
    let Some((_, name)) = url.rsplit_once('/') else {
        let hint = format!("{}{url}", type_url::PREFIX);
        return Err(JsonError::new(format!(
            "{url:?} is no type URL; did you mean {hint}?"
        )));
    };
    schema::message(name)
        .ok_or_else(|| JsonError::new(format!("the message type {name} is not supported")))
}

/// Wire → JSON.
pub fn write(
    special: Special,
    message: Message,
    bytes: &[u8],
    names: Names,
    depth: u32,
) -> Result<Value, JsonError> {
    match special {
        Special::Any => write_any(message, bytes, names, depth),
        Special::Duration => time::write_duration(message, bytes),
        Special::Timestamp => time::write_timestamp(message, bytes),
        Special::FieldMask => mask::write(message, bytes),
        // Of the one field they have, and of the one case that is set.
        Special::Value => {
            let object = write::fields(message, bytes, Names::Proto, depth)?;
            let value = object.into_iter().next().map(|(_, value)| value);
            // NaN and the infinities are strings here, which a Value's number must not be.
            let number = write::gather(message, bytes)?.contains_key(&2);
            match value {
                Some(Value::String(text)) if number => Err(JsonError::new(format!(
                    "a Value cannot hold the number {text}"
                ))),
                value => Ok(value.unwrap_or_default()),
            }
        }
        Special::Struct => {
            let object = write::fields(message, bytes, Names::Proto, depth)?;
            Ok(object
                .into_iter()
                .next()
                .map_or_else(|| json!({}), |(_, value)| value))
        }
        Special::ListValue => {
            let object = write::fields(message, bytes, Names::Proto, depth)?;
            Ok(object
                .into_iter()
                .next()
                .map_or_else(|| json!([]), |(_, value)| value))
        }
        Special::Wrapper => {
            let Some(field) = message.field_by_number(1) else {
                return Ok(Value::Null);
            };
            let found = write::gather(message, bytes)?;
            let last = found.get(&1).and_then(|values| values.last().copied());
            scalar::write(field, last.unwrap_or(scalar::default(field)))
        }
    }
}

fn write_any(message: Message, bytes: &[u8], names: Names, depth: u32) -> Result<Value, JsonError> {
    let (url, payload) = any_parts(message, bytes)?;
    if url.is_empty() && payload.is_empty() {
        return Ok(json!({}));
    }
    let mut object = Map::new();
    object.insert("@type".to_owned(), url.into());
    let known = url
        .rsplit_once('/')
        .and_then(|(_, name)| schema::message(name));
    match known {
        Some(inner) if special(inner).is_some() => {
            object.insert(
                "value".to_owned(),
                write::message(inner, payload, names, depth.saturating_add(1))?,
            );
        }
        Some(inner) => object.extend(write::fields(
            inner,
            payload,
            names,
            depth.saturating_add(1),
        )?),
        // Shown as it is: a dump must not fail for a type that is not in our schema.
        None => {
            if let Some(field) = message.field_by_number(2) {
                let raw = scalar::write(field, WireValue::Bytes(payload))?;
                object.insert("value".to_owned(), raw);
            }
        }
    }
    Ok(Value::Object(object))
}

/// An Any's type URL and bytes.
pub fn any_parts(message: Message, bytes: &[u8]) -> Result<(&str, &[u8]), JsonError> {
    let found = write::gather(message, bytes)?;
    let last = |number| match found.get(&number).and_then(|values| values.last()) {
        Some(WireValue::Bytes(bytes)) => *bytes,
        _ => &[],
    };
    let url =
        std::str::from_utf8(last(1)).map_err(|_| JsonError::new("a type URL that is not UTF-8"))?;
    Ok((url, last(2)))
}
