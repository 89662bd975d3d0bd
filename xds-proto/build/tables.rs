//! The schema as four integer tables and one text, in the order that look-ups need.
//!
//! No row holds a pointer: strings are (offset, length) in the text. So the tables need no
//! relocation, stay untouched in the executable until something is looked up, and cost no start.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// All strings in one; every string stands in it once.
#[derive(Default)]
struct Interner {
    text: String,
    known: HashMap<String, String>,
}

impl Interner {
    /// The Rust expression of `string`'s place in the text.
    fn place(&mut self, string: &str) -> String {
        if let Some(place) = self.known.get(string) {
            return place.clone();
        }
        let place = format!("Text({}, {})", self.text.len(), string.len());
        self.text.push_str(string);
        self.known.insert(string.to_owned(), place.clone());
        place
    }
}

/// What is written out.
pub struct Tables {
    pub text: String,
    messages: Vec<String>,
    fields: Vec<String>,
    enums: Vec<String>,
    values: Vec<String>,
}

/// Every message and enum of the compiled files, by full name.
#[derive(Default)]
struct Declared<'a> {
    messages: BTreeMap<String, &'a DescriptorProto>,
    enums: BTreeMap<String, &'a EnumDescriptorProto>,
}

impl<'a> Declared<'a> {
    fn nest(&mut self, scope: &str, message: &'a DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for inner in &message.nested_type {
            self.nest(&name, inner);
        }
        for inner in &message.enum_type {
            self.enums.insert(format!("{name}.{}", inner.name()), inner);
        }
        self.messages.insert(name, message);
    }
}

impl Tables {
    /// Of all messages of `files` and what they refer to.
    pub fn build(set: &FileDescriptorSet, files: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut declared = Declared::default();
        let mut open = Vec::new();
        for file in &set.file {
            let before: BTreeSet<String> = declared.messages.keys().cloned().collect();
            for message in &file.message_type {
                declared.nest(file.package(), message);
            }
            for inner in &file.enum_type {
                let name = format!("{}.{}", file.package(), inner.name());
                declared.enums.insert(name, inner);
            }
            if files.contains(&file.name()) {
                let new = declared
                    .messages
                    .keys()
                    .filter(|name| !before.contains(*name));
                open.extend(new.cloned());
            }
        }
        let (messages, enums) = reach(&declared, open)?;
        Self::lay_out(&declared, &messages, &enums)
    }

    fn lay_out(
        declared: &Declared<'_>,
        messages: &BTreeSet<String>,
        enums: &BTreeSet<String>,
    ) -> Result<Self, Box<dyn Error>> {
        let index = |set: &BTreeSet<String>| -> HashMap<String, usize> {
            set.iter().cloned().zip(0..).collect()
        };
        let (message_index, enum_index) = (index(messages), index(enums));
        let mut texts = Interner::default();
        let mut tables = Self {
            text: String::new(),
            messages: Vec::new(),
            fields: Vec::new(),
            enums: Vec::new(),
            values: Vec::new(),
        };
        for name in messages {
            let message = declared.messages[name];
            let mut fields: Vec<&FieldDescriptorProto> = message.field.iter().collect();
            fields.sort_by_key(|field| field.number());
            let (start, count) = (tables.fields.len(), fields.len());
            for field in fields {
                let target = match field.r#type() {
                    Type::Message => message_index[field.type_name().trim_start_matches('.')],
                    Type::Enum => enum_index[field.type_name().trim_start_matches('.')],
                    Type::Group => return Err(format!("{name}: groups are not supported").into()),
                    _ => 0,
                };
                let map = field.r#type() == Type::Message && {
                    let entry = declared.messages[field.type_name().trim_start_matches('.')];
                    entry
                        .options
                        .as_ref()
                        .is_some_and(|options| options.map_entry())
                };
                tables
                    .fields
                    .push(field_row(&mut texts, field, target, map));
            }
            let place = texts.place(name);
            tables.messages.push(format!(
                "MessageRow {{ name: {place}, start: {start}, count: {count} }}"
            ));
        }
        for name in enums {
            let (start, count) = (tables.values.len(), declared.enums[name].value.len());
            for value in &declared.enums[name].value {
                let place = texts.place(value.name());
                tables.values.push(format!(
                    "ValueRow {{ name: {place}, number: {} }}",
                    value.number()
                ));
            }
            let place = texts.place(name);
            tables.enums.push(format!(
                "EnumRow {{ name: {place}, start: {start}, count: {count} }}"
            ));
        }
        tables.text = texts.text;
        Ok(tables)
    }

    /// The tables as Rust.
    pub fn source(&self) -> String {
        let mut source = String::new();
        let mut table = |name: &str, row: &str, rows: &[String]| {
            let _ = writeln!(source, "static {name}: [{row}; {}] = [", rows.len());
            for row in rows {
                let _ = writeln!(source, "    {row},");
            }
            source.push_str("];\n");
        };
        table("MESSAGES", "MessageRow", &self.messages);
        table("FIELDS", "FieldRow", &self.fields);
        table("ENUMS", "EnumRow", &self.enums);
        table("VALUES", "ValueRow", &self.values);
        source
    }
}

fn field_row(
    texts: &mut Interner,
    field: &FieldDescriptorProto,
    target: usize,
    map: bool,
) -> String {
    let name = texts.place(field.name());
    let json = texts.place(field.json_name());
    let repeated = field.label() == Label::Repeated;
    // Oneof 0 is none. `optional` is a oneof of one for protobuf, and only presence for us.
    let oneof = match field.oneof_index {
        Some(index) if !field.proto3_optional() => index + 1,
        _ => 0,
    };
    let presence = field.oneof_index.is_some();
    format!(
        "FieldRow {{ name: {name}, json: {json}, number: {}, kind: Kind::{:?}, repeated: {repeated}, \
         map: {map}, presence: {presence}, oneof: {oneof}, target: {target} }}",
        field.number(),
        field.r#type(),
    )
}

/// Everything that `open` refers to, directly or not.
fn reach(
    declared: &Declared<'_>,
    mut open: Vec<String>,
) -> Result<(BTreeSet<String>, BTreeSet<String>), Box<dyn Error>> {
    let (mut messages, mut enums) = (BTreeSet::new(), BTreeSet::new());
    while let Some(name) = open.pop() {
        let message = declared
            .messages
            .get(&name)
            .ok_or_else(|| format!("no message {name} in the compiled protos"))?;
        if !messages.insert(name) {
            continue;
        }
        for field in &message.field {
            let target = field.type_name().trim_start_matches('.').to_owned();
            match field.r#type() {
                Type::Message => open.push(target),
                Type::Enum => {
                    enums.insert(target);
                }
                _ => {}
            }
        }
    }
    Ok((messages, enums))
}
