//! One message, one sequence of bytes.
//!
//! prost keeps maps in hash maps, whose order differs from one to the next: the same message
//! encodes differently each time, so its hash changes when the content has not.

use crate::schema::{self, Message};
use crate::wire::{self, MAX_DEPTH, Reader, WireError, WireValue};

/// The encoded message of type `name` with fields by number and map entries by key, in every
/// nested message and Any. Bytes that are no such message come back as they are, and so do
/// messages of a type that is not in the schema.
pub fn canonical(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    match schema::message(name).map(|message| ordered(message, &bytes, 0)) {
        Some(Ok(ordered)) => ordered,
        Some(Err(_)) | None => bytes,
    }
}

fn ordered(message: Message, bytes: &[u8], depth: u32) -> Result<Vec<u8>, WireError> {
    if depth > MAX_DEPTH {
        return Ok(bytes.to_vec());
    }
    if message.name() == "google.protobuf.Any" {
        return any(bytes, depth);
    }
    let mut parts: Vec<(u32, bool, Vec<u8>)> = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        let field = message.field_by_number(number);
        let mut part = Vec::new();
        match (field.and_then(|field| field.message()), value) {
            (Some(inner), WireValue::Bytes(bytes)) => {
                wire::put_bytes(&mut part, number, &ordered(inner, bytes, depth + 1)?);
            }
            (_, value) => wire::put(&mut part, number, value)?,
        }
        parts.push((number, field.is_some_and(|field| field.is_map()), part));
    }
    // Stable: the elements of a list stay as they are. An entry begins with its key.
    parts.sort_by(|(number, map, part), (other, _, rest)| {
        number.cmp(other).then_with(|| match map {
            true => part.cmp(rest),
            false => std::cmp::Ordering::Equal,
        })
    });
    Ok(parts.into_iter().flat_map(|(_, _, part)| part).collect())
}

fn any(bytes: &[u8], depth: u32) -> Result<Vec<u8>, WireError> {
    let (mut url, mut payload): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, WireValue::Bytes(bytes)) => url = bytes,
            (2, WireValue::Bytes(bytes)) => payload = bytes,
            _ => return Ok(bytes.to_vec()),
        }
    }
    let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let inner = std::str::from_utf8(name).ok().and_then(schema::message);
    let Some(inner) = inner else {
        return Ok(bytes.to_vec());
    };
    let mut out = Vec::new();
    wire::put_bytes(&mut out, 1, url);
    let payload = ordered(inner, payload, depth + 1)?;
    if !payload.is_empty() {
        wire::put_bytes(&mut out, 2, &payload);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::Message as _;

    use super::*;
    use crate::envoy::config::core::v3::Node;
    use crate::google::protobuf::{Struct, Value, value::Kind};

    fn node(names: impl Iterator<Item = usize>) -> Node {
        let value = |number: usize| Value {
            kind: Some(Kind::StringValue(number.to_string())),
        };
        let fields: HashMap<String, Value> =
            names.map(|n| (format!("name-{n}"), value(n))).collect();
        Node {
            id: "a".to_owned(),
            metadata: Some(Struct { fields }),
            client_features: vec!["z".to_owned(), "a".to_owned()],
            ..Node::default()
        }
    }

    const NODE: &str = "envoy.config.core.v3.Node";

    #[test]
    fn the_order_of_maps_does_not_show() {
        let (one, other) = (node(0..40), node((0..40).rev()));
        let bytes = canonical(NODE, one.encode_to_vec());
        assert_eq!(bytes, canonical(NODE, other.encode_to_vec()));
        // It is the same message, lists in their order.
        assert_eq!(Node::decode(bytes.as_slice()).unwrap(), one);
        // Within an Any too.
        let any = "google.protobuf.Any";
        let packed = |node: &Node| canonical(any, crate::any::pack(node).encode_to_vec());
        assert_eq!(packed(&one), packed(&other));
    }

    #[test]
    fn what_is_not_understood_stays_as_it_is() {
        for bytes in [vec![0x0a, 9], vec![0x0b, 0x0c], vec![0xff; 20]] {
            assert_eq!(canonical(NODE, bytes.clone()), bytes);
        }
        assert_eq!(canonical("no.such.Type", vec![1, 2]), [1, 2]);
        // An unknown field is kept.
        assert_eq!(canonical(NODE, vec![0xc0, 0x3e, 1]), [0xc0, 0x3e, 1]);
    }
}
