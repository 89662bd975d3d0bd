//! JSON → wire.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::JsonError;
use super::{scalar, well_known};
use crate::optional;
use crate::schema::{self, Field, Kind, Message};
use crate::wire::{self, MAX_DEPTH};

/// The wire form of a message.
pub fn message(message: Message, value: &Value, depth: u32) -> Result<Vec<u8>, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::new(format!(
            "nested deeper than {MAX_DEPTH} messages"
        )));
    }
    if let Some(special) = well_known::special(message) {
        return well_known::read(special, message, value, depth);
    }
    match value {
        Value::Object(object) => fields(message, object, &[], depth),
        other => Err(JsonError::expected(
            &format!("an object ({})", message.name()),
            other,
        )),
    }
}

/// The wire form of a message's fields, in the order of their numbers, so that the same message
/// has the same bytes however its JSON is ordered; `skipped` keys are not fields.
pub fn fields(
    message: Message,
    object: &Map<String, Value>,
    skipped: &[&str],
    depth: u32,
) -> Result<Vec<u8>, JsonError> {
    let mut parts: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut seen: Vec<u32> = Vec::new();
    let mut cases: HashMap<u8, &'static str> = HashMap::new();
    let optional = optional_extension(message, object);
    for (key, value) in object {
        if skipped.contains(&key.as_str()) {
            continue;
        }
        let field = message
            .field_by_name(key)
            .ok_or_else(|| unknown(message, key))?;
        if seen.contains(&field.number()) {
            let other = if key == field.name() {
                field.json_name()
            } else {
                field.name()
            };
            let error = JsonError::new(format!("given twice, as `{key}` and as `{other}`"));
            return Err(error.within(field.name()));
        }
        seen.push(field.number());
        if value.is_null() && !takes_null(field) {
            continue;
        }
        if let Some(oneof) = field.oneof()
            && let Some(other) = cases.insert(oneof, field.name())
        {
            let error = JsonError::new(format!("only one of `{other}` and this may be given"));
            return Err(error.within(field.name()));
        }
        let mut part = Vec::new();
        if optional == Some(field.number())
            && let Some(url) = well_known::unknown_any(value)
        {
            // Its content cannot be read; its presence can be reported.
            let mut any = Vec::new();
            wire::put_bytes(&mut any, 1, url.as_bytes());
            wire::put_bytes(&mut part, field.number(), &any);
        } else {
            put(&mut part, field, value, depth).map_err(|error| error.within(field.name()))?;
        }
        parts.push((field.number(), part));
    }
    parts.sort_by_key(|(number, _)| *number);
    Ok(parts.into_iter().flat_map(|(_, part)| part).collect())
}

/// The number of a field whose extension may be of a type that is not known.
fn optional_extension(message: Message, object: &Map<String, Value>) -> Option<u32> {
    let marked = optional::marked(message)?;
    let is_marked = object.iter().any(|(key, value)| {
        let field = message.field_by_name(key);
        *value == Value::Bool(true) && field.is_some_and(|field| field.number() == marked.flag)
    });
    is_marked.then_some(marked.extension)
}

fn unknown(message: Message, key: &str) -> JsonError {
    let names = message.fields().map(Field::name);
    let hint = match schema::nearest(key, names) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    };
    JsonError::new(format!("{} has no such field{hint}", message.name())).within(key)
}

/// Whether null is a value of this field rather than its absence.
fn takes_null(field: Field) -> bool {
    !field.is_list()
        && !field.is_map()
        && (field
            .message()
            .is_some_and(|message| message.name() == "google.protobuf.Value")
            || field
                .enumeration()
                .is_some_and(|kind| kind.name() == "google.protobuf.NullValue"))
}

fn put(out: &mut Vec<u8>, field: Field, value: &Value, depth: u32) -> Result<(), JsonError> {
    if field.is_map() {
        return map(out, field, value, depth);
    }
    if field.is_list() {
        return list(out, field, value, depth);
    }
    if let Some(inner) = field.message() {
        wire::put_bytes(
            out,
            field.number(),
            &message(inner, value, depth.saturating_add(1))?,
        );
        return Ok(());
    }
    let scalar = scalar::read(field, value)?;
    if field.has_presence() || !scalar.is_default() {
        scalar.put(out, field.number());
    }
    Ok(())
}

fn list(out: &mut Vec<u8>, field: Field, value: &Value, depth: u32) -> Result<(), JsonError> {
    let Value::Array(elements) = value else {
        return Err(JsonError::expected("a list", value));
    };
    let mut packed = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let mut put = || -> Result<(), JsonError> {
            if let Some(inner) = field.message() {
                if element.is_null() && inner.name() != "google.protobuf.Value" {
                    return Err(JsonError::expected(inner.name(), element));
                }
                wire::put_bytes(
                    out,
                    field.number(),
                    &message(inner, element, depth.saturating_add(1))?,
                );
                return Ok(());
            }
            let scalar = scalar::read(field, element)?;
            match field.kind() {
                Kind::String | Kind::Bytes => scalar.put(out, field.number()),
                _ => scalar.put_packed(&mut packed),
            }
            Ok(())
        };
        put().map_err(|error| error.at(index))?;
    }
    if !packed.is_empty() {
        wire::put_bytes(out, field.number(), &packed);
    }
    Ok(())
}

fn map(out: &mut Vec<u8>, field: Field, value: &Value, depth: u32) -> Result<(), JsonError> {
    let Value::Object(entries) = value else {
        return Err(JsonError::expected("an object that is a map", value));
    };
    let Some(entry) = field.message() else {
        return Err(JsonError::new("a map without entries"));
    };
    for (key, value) in entries {
        let bytes = map_entry(entry, key, value, depth).map_err(|error| error.at_key(key))?;
        wire::put_bytes(out, field.number(), &bytes);
    }
    Ok(())
}

fn map_entry(entry: Message, key: &str, value: &Value, depth: u32) -> Result<Vec<u8>, JsonError> {
    let (Some(key_field), Some(value_field)) = (entry.field_by_number(1), entry.field_by_number(2))
    else {
        return Err(JsonError::new("a map entry without key and value"));
    };
    if value.is_null() && !takes_null(value_field) {
        return Err(JsonError::expected("a value", value));
    }
    let mut bytes = Vec::new();
    scalar::read_key(key_field, key)?.put(&mut bytes, 1);
    match value_field.message() {
        Some(inner) => wire::put_bytes(
            &mut bytes,
            2,
            &message(inner, value, depth.saturating_add(1))?,
        ),
        None => scalar::read(value_field, value)?.put(&mut bytes, 2),
    }
    Ok(bytes)
}
