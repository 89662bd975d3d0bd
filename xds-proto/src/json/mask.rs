//! FieldMask: paths in lowerCamelCase with commas between.

use serde_json::Value;

use super::error::JsonError;
use super::write;
use crate::schema::Message;
use crate::wire::{self, WireValue};

pub fn read(text: &str) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    for path in text.split(',').filter(|path| !path.is_empty()) {
        let mut snake = String::with_capacity(path.len());
        for letter in path.chars() {
            match letter {
                'A'..='Z' => {
                    snake.push('_');
                    snake.push(letter.to_ascii_lowercase());
                }
                '_' => return Err(JsonError::new(format!("{path:?} is not in lowerCamelCase"))),
                letter => snake.push(letter),
            }
        }
        wire::put_bytes(&mut out, 1, snake.as_bytes());
    }
    Ok(out)
}

pub fn write(message: Message, bytes: &[u8]) -> Result<Value, JsonError> {
    let mut paths = Vec::new();
    for value in write::gather(message, bytes)?
        .remove(&1)
        .unwrap_or_default()
    {
        let WireValue::Bytes(path) = value else {
            return Err(JsonError::new("a path that is no string"));
        };
        let path =
            std::str::from_utf8(path).map_err(|_| JsonError::new("a path that is not UTF-8"))?;
        paths.push(camel(path)?);
    }
    Ok(paths.join(",").into())
}

/// Refuses what would not come back the same.
fn camel(path: &str) -> Result<String, JsonError> {
    let mut camel = String::with_capacity(path.len());
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '_' => match letters.next() {
                Some(next @ 'a'..='z') => camel.push(next.to_ascii_uppercase()),
                _ => {
                    return Err(JsonError::new(format!(
                        "JSON cannot spell the path {path:?}"
                    )));
                }
            },
            'A'..='Z' => {
                return Err(JsonError::new(format!(
                    "JSON cannot spell the path {path:?}"
                )));
            }
            letter => camel.push(letter),
        }
    }
    Ok(camel)
}
