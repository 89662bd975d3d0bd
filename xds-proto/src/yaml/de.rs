//! Nodes as a serde deserializer. An error carries the place of the innermost value it is about and
//! the path to it.
//!
//! As Kubernetes' readers do, null counts as an empty list or mapping, and a field of a
//! struct that is null as one that is not there (not an entry of a map: a label may not be ignored). A text may be written without quotes whatever it looks like
//! (`version: 1.0`).

use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::scalar::Meaning;
use super::{Error, Node, Value};

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Error::new(Default::default(), message.to_string())
    }
}

impl<'de> Deserializer<'de> for &'de Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match (&self.value, self.meaning()) {
            (Value::Sequence(elements), _) => visitor.visit_seq(Elements::of(elements)),
            (Value::Mapping(entries), _) => visitor.visit_map(Entries::of(entries)),
            (_, Some(Meaning::Null)) => visitor.visit_unit(),
            (_, Some(Meaning::Bool(value))) => visitor.visit_bool(value),
            (_, Some(Meaning::Unsigned(value))) => visitor.visit_u64(value),
            (_, Some(Meaning::Signed(value))) => visitor.visit_i64(value),
            (_, Some(Meaning::Float(value))) => visitor.visit_f64(value),
            (_, Some(Meaning::Text) | None) => visitor.visit_borrowed_str(self.text()),
        };
        read.map_err(|error| error.at(self.place))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Scalar { text, .. } => visitor
                .visit_borrowed_str(text)
                .map_err(|error: Error| error.at(self.place)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_null() {
            true => visitor.visit_seq(Elements::of(&[])),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match (&self.value, self.is_null()) {
            (_, true) => visitor.visit_map(Entries::of(&[])),
            (Value::Sequence(_), _) => {
                Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor))
            }
            _ => self.deserialize_any(visitor),
        };
        read.map_err(|error: Error| error.at(self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Mapping(entries) => visitor
                .visit_map(Entries::without_nulls(entries))
                .map_err(|error: Error| error.at(self.place)),
            // Not from a list: serde would fill a struct from one, by position.
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Scalar { text, .. } => visitor
                .visit_enum(BorrowedStrDeserializer::<Error>::new(text))
                .map_err(|error| error.at(self.place)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct
    }
}

struct Elements<'de, 't> {
    rest: slice::Iter<'de, Node<'t>>,
    index: usize,
}

impl<'de, 't> Elements<'de, 't> {
    fn of(elements: &'de [Node<'t>]) -> Self {
        Elements {
            rest: elements.iter(),
            index: 0,
        }
    }
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        let read = seed.deserialize(node).map(Some);
        read.map_err(|error| error.at(node.place).in_element(index))
    }
}

struct Entries<'de, 't> {
    rest: slice::Iter<'de, (Node<'t>, Node<'t>)>,
    /// Whose key was read last.
    entry: Option<&'de (Node<'t>, Node<'t>)>,
    skips_nulls: bool,
}

impl<'de, 't> Entries<'de, 't> {
    fn of(entries: &'de [(Node<'t>, Node<'t>)]) -> Self {
        Entries {
            rest: entries.iter(),
            entry: None,
            skips_nulls: false,
        }
    }

    fn without_nulls(entries: &'de [(Node<'t>, Node<'t>)]) -> Self {
        Entries {
            skips_nulls: true,
            ..Self::of(entries)
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let skips_nulls = self.skips_nulls;
        self.entry = self
            .rest
            .find(|(_, value)| !(skips_nulls && value.is_null()));
        let Some((key, _)) = self.entry else {
            return Ok(None);
        };
        let read = seed.deserialize(key).map(Some);
        read.map_err(|error| error.at(key.place).in_field(key.text()))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.entry else {
            return Err(serde::de::Error::custom(
                "a value was asked for before its key",
            ));
        };
        let read = seed.deserialize(value);
        read.map_err(|error| error.at(value.place).in_field(key.text()))
    }
}
