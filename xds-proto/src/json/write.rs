//! Wire → JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::JsonError;
use super::{scalar, well_known};
use crate::schema::{Field, Kind, Message};
use crate::wire::{self, MAX_DEPTH, Reader, WireValue};

/// Which of a field's two names is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// As the proto spells it: `filter_chains`.
    Proto,
    /// As proto3 JSON spells it: `filterChains`.
    Json,
}

impl Names {
    fn of(self, field: Field) -> &'static str {
        match self {
            Self::Proto => field.name(),
            Self::Json => field.json_name(),
        }
    }
}

/// The JSON form of a message.
pub fn message(
    message: Message,
    bytes: &[u8],
    names: Names,
    depth: u32,
) -> Result<Value, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::new(format!(
            "nested deeper than {MAX_DEPTH} messages"
        )));
    }
    match well_known::special(message) {
        Some(special) => well_known::write(special, message, bytes, names, depth),
        None => Ok(Value::Object(fields(message, bytes, names, depth)?)),
    }
}

/// The JSON form of a message's fields.
pub fn fields(
    message: Message,
    bytes: &[u8],
    names: Names,
    depth: u32,
) -> Result<Map<String, Value>, JsonError> {
    let mut object = Map::new();
    for (number, values) in gather(message, bytes)? {
        let Some(field) = message.field_by_number(number) else {
            continue;
        };
        let value =
            one(field, &values, names, depth).map_err(|error| error.within(field.name()))?;
        if let Some(value) = value {
            object.insert(names.of(field).to_owned(), value);
        }
    }
    Ok(object)
}

/// Known fields by number with all their occurrences; of a oneof only the case that came last.
pub fn gather(
    message: Message,
    bytes: &[u8],
) -> Result<BTreeMap<u32, Vec<WireValue<'_>>>, JsonError> {
    let mut fields: BTreeMap<u32, Vec<WireValue<'_>>> = BTreeMap::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        let Some(field) = message.field_by_number(number) else {
            continue;
        };
        if field.oneof().is_some() {
            let rival = |other: Field| other.oneof() == field.oneof() && other.number() != number;
            fields.retain(|other, _| !message.field_by_number(*other).is_some_and(rival));
        }
        fields.entry(number).or_default().push(value);
    }
    Ok(fields)
}

/// One field, or `None` when it has its default and is omitted.
fn one(
    field: Field,
    values: &[WireValue<'_>],
    names: Names,
    depth: u32,
) -> Result<Option<Value>, JsonError> {
    if field.is_map() {
        return map(field, values, names, depth).map(Some);
    }
    if field.is_list() {
        return list(field, values, names, depth).map(Some);
    }
    if let Some(inner) = field.message() {
        // A message given in parts is the parts merged, and parts merge by standing in a row.
        let joined = values
            .iter()
            .map(|value| nested(*value))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        return message(inner, &joined, names, depth.saturating_add(1)).map(Some);
    }
    let Some(last) = values.last() else {
        return Ok(None);
    };
    if !field.has_presence() && *last == scalar::default(field) {
        return Ok(None);
    }
    scalar::write(field, *last).map(Some)
}

fn list(
    field: Field,
    values: &[WireValue<'_>],
    names: Names,
    depth: u32,
) -> Result<Value, JsonError> {
    let mut elements = Vec::new();
    for value in values {
        let index = elements.len();
        match (field.message(), field.kind(), *value) {
            (Some(inner), _, value) => {
                let element = nested(value)
                    .and_then(|bytes| message(inner, bytes, names, depth.saturating_add(1)))
                    .map_err(|error| error.at(index))?;
                elements.push(element);
            }
            (None, kind, WireValue::Bytes(packed))
                if !matches!(kind, Kind::String | Kind::Bytes) =>
            {
                for value in wire::unpack(kind, packed)? {
                    elements.push(scalar::write(field, value)?);
                }
            }
            (None, _, value) => {
                elements.push(scalar::write(field, value).map_err(|error| error.at(index))?);
            }
        }
    }
    Ok(Value::Array(elements))
}

fn map(
    field: Field,
    values: &[WireValue<'_>],
    names: Names,
    depth: u32,
) -> Result<Value, JsonError> {
    let mut object = Map::new();
    let parts = field
        .message()
        .and_then(|entry| Some((entry, entry.field_by_number(1)?, entry.field_by_number(2)?)));
    let Some((entry, key_field, value_field)) = parts else {
        return Err(JsonError::new("a map without entries"));
    };
    for value in values {
        let mut found = gather(entry, nested(*value)?)?;
        let key = found.remove(&1).and_then(|values| values.last().copied());
        let key = match scalar::write(key_field, key.unwrap_or(scalar::default(key_field)))? {
            Value::String(key) => key,
            other => other.to_string(),
        };
        let default = scalar::default(value_field);
        let value = found.remove(&2).unwrap_or_else(|| vec![default]);
        let value = match value_field.message() {
            Some(_) => one(value_field, &value, names, depth),
            None => scalar::write(value_field, value.last().copied().unwrap_or(default)).map(Some),
        };
        let value = value.map_err(|error| error.at_key(&key))?;
        object.insert(key, value.unwrap_or_default());
    }
    Ok(Value::Object(object))
}

/// The bytes of a nested message.
fn nested(value: WireValue<'_>) -> Result<&[u8], JsonError> {
    match value {
        WireValue::Bytes(bytes) => Ok(bytes),
        found => Err(JsonError::new(format!(
            "no message on the wire but {found:?}"
        ))),
    }
}
