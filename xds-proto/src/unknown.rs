//! What stands in a message's bytes and not in the schema.
//!
//! prost drops unknown fields in silence. A proxy must not: a field it doesn't support may be the
//! one that forbids something.

use std::fmt;

use crate::optional;
use crate::schema::{self, Message};
use crate::wire::{MAX_DEPTH, Reader, WireError, WireValue};

/// More than these are not listed: the first ones show the cause.
const MAX_FINDINGS: usize = 32;

/// One thing the schema lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// `path` ends in the number of a field that the message around it does not have.
    Field { path: String },
    /// The Any at `path` holds a message type that is not in the schema.
    Type { path: String, url: String },
    /// Nested too deep to look at.
    Depth { path: String },
}

impl Unknown {
    pub fn path(&self) -> &str {
        match self {
            Self::Field { path } | Self::Type { path, .. } | Self::Depth { path } => path,
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { path } => write!(f, "{path}: unknown field"),
            Self::Type { path, url } => write!(f, "{path}: unknown type {url}"),
            Self::Depth { path } => write!(f, "{path}: nested deeper than {MAX_DEPTH} messages"),
        }
    }
}

/// What the schema lacks of a message of type `name`, as text; see [`find`].
pub fn unknown_fields(name: &str, bytes: &[u8]) -> Vec<String> {
    find(name, bytes).iter().map(ToString::to_string).collect()
}

/// What the schema lacks of a message of type `name`, into every nested message and Any: the first
/// few findings. Bytes that are no message end the search there; decoding them reports it.
pub fn find(name: &str, bytes: &[u8]) -> Vec<Unknown> {
    let mut search = Search::default();
    match schema::message(name) {
        Some(message) => {
            // Malformed bytes are the decoder's to report.
            let _ = search.message(message, bytes, 0);
        }
        None => search.findings.push(Unknown::Type {
            path: String::new(),
            url: name.to_owned(),
        }),
    }
    search.findings
}

#[derive(Default)]
struct Search {
    path: String,
    findings: Vec<Unknown>,
}

impl Search {
    fn message(&mut self, message: Message, bytes: &[u8], depth: u32) -> Result<(), WireError> {
        if depth > MAX_DEPTH {
            self.findings.push(Unknown::Depth {
                path: self.path.clone(),
            });
            return Ok(());
        }
        if message.name() == "google.protobuf.Any" {
            return self.any(bytes, depth);
        }
        let optional = optional_extension(message, bytes)?;
        let mut counts: Vec<(u32, usize)> = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.next()? {
            if self.findings.len() >= MAX_FINDINGS {
                return Ok(());
            }
            let parent = self.path.len();
            let dot = if parent == 0 { "" } else { "." };
            match message.field_by_number(number) {
                None => {
                    let path = format!("{}{dot}{number}", self.path);
                    self.findings.push(Unknown::Field { path });
                }
                Some(field) => {
                    if let (Some(inner), WireValue::Bytes(bytes)) = (field.message(), value) {
                        self.path.push_str(dot);
                        self.path.push_str(field.name());
                        if field.is_list() || field.is_map() {
                            self.path
                                .push_str(&format!("[{}]", count(&mut counts, number)));
                        }
                        let known = self.findings.len();
                        self.message(inner, bytes, depth + 1)?;
                        if optional == Some(number) {
                            self.drop_type_finding(known);
                        }
                        self.path.truncate(parent);
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops the finding that the extension's type is unknown.
    fn drop_type_finding(&mut self, known: usize) {
        let path = &self.path;
        let mut index = 0;
        self.findings.retain(|finding| {
            index += 1;
            let is_extension = matches!(finding, Unknown::Type { path: at, .. } if at == path);
            index <= known || !is_extension
        });
    }

    fn any(&mut self, bytes: &[u8], depth: u32) -> Result<(), WireError> {
        let (mut url, mut payload): (&[u8], &[u8]) = (&[], &[]);
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.next()? {
            match (number, value) {
                (1, WireValue::Bytes(bytes)) => url = bytes,
                (2, WireValue::Bytes(bytes)) => payload = bytes,
                _ => {}
            }
        }
        if url.is_empty() && payload.is_empty() {
            return Ok(());
        }
        let url = String::from_utf8_lossy(url);
        let name = url.rsplit('/').next().unwrap_or_default();
        match schema::message(name) {
            Some(inner) => self.message(inner, payload, depth + 1),
            None => {
                self.findings.push(Unknown::Type {
                    path: self.path.clone(),
                    url: url.into_owned(),
                });
                Ok(())
            }
        }
    }
}

/// The number of a field whose extension may be of a type that is not known.
fn optional_extension(message: Message, bytes: &[u8]) -> Result<Option<u32>, WireError> {
    let Some(marked) = optional::marked(message) else {
        return Ok(None);
    };
    let mut is_marked = false;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if let (true, WireValue::Varint(flag)) = (number == marked.flag, value) {
            is_marked = flag != 0;
        }
    }
    Ok(is_marked.then_some(marked.extension))
}

/// The index of the next element of list `number`.
fn count(counts: &mut Vec<(u32, usize)>, number: u32) -> usize {
    match counts.iter_mut().find(|(known, _)| *known == number) {
        Some((_, count)) => {
            *count += 1;
            *count
        }
        None => {
            counts.push((number, 0));
            0
        }
    }
}
