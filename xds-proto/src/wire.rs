//! The protobuf wire format, field by field.
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

use crate::schema::Kind;

/// Nested messages beyond this are refused, as prost does.
pub const MAX_DEPTH: u32 = 100;

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the bytes end in the middle of a field")]
    Truncated,
    #[error("a varint is longer than ten bytes")]
    Varint,
    #[error("field number 0, or one beyond 2^29")]
    FieldNumber,
    #[error("unknown wire type {0}")]
    WireType(u8),
    #[error("a group ends that did not begin, or too many are nested")]
    Group,
}

/// A field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    /// A group, which no schema here has: skipped.
    Group,
}

/// Reads the fields of one message in order.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field's number and value.
    pub fn next(&mut self) -> Result<Option<(u32, WireValue<'a>)>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        Ok(Some((number, self.value(number, wire_type, 0)?)))
    }

    fn key(&mut self) -> Result<(u32, u8), WireError> {
        let key = self.varint()?;
        match u32::try_from(key >> 3) {
            Ok(number @ 1..0x2000_0000) => Ok((number, (key & 7) as u8)),
            _ => Err(WireError::FieldNumber),
        }
    }

    fn value(&mut self, number: u32, wire: u8, depth: u32) -> Result<WireValue<'a>, WireError> {
        match wire {
            0 => Ok(WireValue::Varint(self.varint()?)),
            1 => Ok(WireValue::Fixed64(u64::from_le_bytes(self.array()?))),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
                Ok(WireValue::Bytes(self.take(length)?))
            }
            3 => self.skip_group(number, depth).map(|()| WireValue::Group),
            5 => Ok(WireValue::Fixed32(u32::from_le_bytes(self.array()?))),
            4 => Err(WireError::Group),
            other => Err(WireError::WireType(other)),
        }
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), WireError> {
        if depth >= MAX_DEPTH {
            return Err(WireError::Group);
        }
        loop {
            let (inner, wire) = self.key()?;
            if wire == 4 {
                return if inner == number {
                    Ok(())
                } else {
                    Err(WireError::Group)
                };
            }
            self.value(inner, wire, depth.saturating_add(1))?;
        }
    }

    /// A bare varint, as packed lists hold them.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        let mut rest = self.0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, after) = rest.split_first().ok_or(WireError::Truncated)?;
            let part = u64::from(byte & 0x7f);
            // Of the tenth byte, only the last bit fits.
            let shifted = part.wrapping_shl(shift);
            if shifted.wrapping_shr(shift) != part {
                return Err(WireError::Varint);
            }
            value |= shifted;
            rest = after;
            if byte & 0x80 == 0 {
                self.0 = rest;
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }
}

/// The elements of a packed list of `kind`.
pub fn unpack(kind: Kind, bytes: &[u8]) -> Result<Vec<WireValue<'_>>, WireError> {
    let mut reader = Reader(bytes);
    let mut values = Vec::new();
    while !reader.0.is_empty() {
        values.push(reader.value(0, wire_type(kind), 0)?);
    }
    Ok(values)
}

/// The wire type that `kind` is written with.
pub fn wire_type(kind: Kind) -> u8 {
    match kind {
        Kind::Int64 | Kind::Uint64 | Kind::Int32 | Kind::Bool | Kind::Uint32 | Kind::Enum => 0,
        Kind::Sint32 | Kind::Sint64 => 0,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::String | Kind::Message | Kind::Bytes => 2,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
    }
}

pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn put_key(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

/// A length-delimited field: key, length, bytes.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_key(out, number, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Any field as it was read. A group cannot be written: its content was skipped.
pub fn put(out: &mut Vec<u8>, number: u32, value: WireValue<'_>) -> Result<(), WireError> {
    match value {
        WireValue::Varint(value) => {
            put_key(out, number, 0);
            put_varint(out, value);
        }
        WireValue::Fixed64(value) => {
            put_key(out, number, 1);
            out.extend_from_slice(&value.to_le_bytes());
        }
        WireValue::Bytes(bytes) => put_bytes(out, number, bytes),
        WireValue::Fixed32(value) => {
            put_key(out, number, 5);
            out.extend_from_slice(&value.to_le_bytes());
        }
        WireValue::Group => return Err(WireError::Group),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_messages_are_errors() {
        let read = |bytes: &[u8]| Reader::new(bytes).next().map(|field| field.is_some());
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&[0x08]), Err(WireError::Truncated));
        assert_eq!(read(&[0x0a, 5, 1]), Err(WireError::Truncated));
        assert_eq!(read(&[0x00, 0x00]), Err(WireError::FieldNumber));
        assert_eq!(read(&[0x0e, 0x00]), Err(WireError::WireType(6)));
        assert_eq!(read(&[0x0c]), Err(WireError::Group));
        assert_eq!(read(&[0xff; 11]), Err(WireError::Varint));
        assert_eq!(read(&[0x0b; 300]), Err(WireError::Group));
        assert_eq!(read(&[0x0b, 0x08, 0x01, 0x0c]), Ok(true));
        assert_eq!(read(&[0x0b, 0x08, 0x01, 0x14]), Err(WireError::Group));
    }
}
