//! YAML 1.2 as people write configuration: each document is parsed once, into nodes that record
//! where they stand, and from there read into any serde type or a JSON value.
//!
//! - `load`: the parser's events into nodes, within bounds; anchors, aliases and merge keys resolved
//! - `scalar`: what a plain scalar means (core schema)
//! - `de`: nodes as a serde deserializer whose errors have place and path
//! - `write`: a JSON value as YAML
//!
//! Duplicate keys, keys that are no scalars and tags beyond the core schema are errors. A byte order
//! mark before a document is skipped.

mod de;
mod load;
mod scalar;
mod write;

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value as Json};

pub use load::{Documents, documents};
use scalar::Meaning;
pub use write::write;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node<'t> {
    pub place: Place,
    pub value: Value<'t>,
}

#[derive(Clone, Debug)]
pub enum Value<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// Without quotes: the text may mean null, a boolean or a number.
        plain: bool,
    },
    Sequence(Vec<Node<'t>>),
    /// In the order of the text. Keys are scalars, each there once.
    Mapping(Vec<(Node<'t>, Node<'t>)>),
}

/// 1-based; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    /// In characters.
    pub column: usize,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub place: Place,
    /// `spec.ports[0].port`; empty where it is about the document, or no YAML.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.place {
            Place { line: 0, .. } => Ok(()),
            Place { line, column } => write!(f, " at line {line} column {column}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Error {
            place,
            path: String::new(),
            message: message.into(),
        }
    }

    /// The innermost place stays.
    fn at(mut self, place: Place) -> Self {
        if self.place == Place::default() {
            self.place = place;
        }
        self
    }

    fn in_field(mut self, name: &str) -> Self {
        self.path = match self.path.chars().next() {
            None => name.to_owned(),
            Some('[') => format!("{name}{}", self.path),
            Some(_) => format!("{name}.{}", self.path),
        };
        self
    }

    fn in_element(mut self, index: usize) -> Self {
        self.path = match self.path.chars().next() {
            None => format!("[{index}]"),
            Some('[') => format!("[{index}]{}", self.path),
            Some(_) => format!("[{index}].{}", self.path),
        };
        self
    }
}

impl<'t> Node<'t> {
    pub fn is_null(&self) -> bool {
        matches!(self.meaning(), Some(Meaning::Null))
    }

    /// The value of a key; `None` also where this is no mapping.
    pub fn get(&self, key: &str) -> Option<&Node<'t>> {
        let Value::Mapping(entries) = &self.value else {
            return None;
        };
        let found = entries.iter().find(|(name, _)| name.text() == key);
        found.map(|(_, value)| value)
    }

    /// The elements of a sequence; none where this is no sequence.
    pub fn elements(&self) -> &[Node<'t>] {
        match &self.value {
            Value::Sequence(elements) => elements,
            _ => &[],
        }
    }

    /// The place of the value at `path` (`spec.ports[0].port`), or of the nearest value above it.
    pub fn place_of(&self, path: &str) -> Place {
        match self.below(path) {
            None => self.place,
            Some((index, rest)) => match &self.value {
                Value::Sequence(elements) => elements[index].place_of(rest),
                Value::Mapping(entries) => entries[index].1.place_of(rest),
                Value::Scalar { .. } => self.place,
            },
        }
    }

    /// The value at `path`, to be changed.
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Node<'t>> {
        if path.is_empty() {
            return Some(self);
        }
        let (index, rest) = self.below(path)?;
        let child = match &mut self.value {
            Value::Sequence(elements) => elements.get_mut(index)?,
            Value::Mapping(entries) => &mut entries.get_mut(index)?.1,
            Value::Scalar { .. } => return None,
        };
        child.at_mut(rest)
    }

    /// Removes the entry or element at `path`. False: there is none.
    pub fn remove(&mut self, path: &str) -> bool {
        let Some((index, rest)) = self.below(path) else {
            return false;
        };
        match &mut self.value {
            Value::Sequence(elements) if rest.is_empty() => drop(elements.remove(index)),
            Value::Mapping(entries) if rest.is_empty() => drop(entries.remove(index)),
            Value::Sequence(elements) => return elements[index].remove(rest),
            Value::Mapping(entries) => return entries[index].1.remove(rest),
            Value::Scalar { .. } => return false,
        }
        true
    }

    /// The entry or element that a path begins with, and the rest of the path.
    fn below<'p>(&self, path: &'p str) -> Option<(usize, &'p str)> {
        let path = path.strip_prefix('.').unwrap_or(path);
        match &self.value {
            Value::Scalar { .. } => None,
            Value::Sequence(elements) => {
                let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
                let index = index.parse::<usize>().ok()?;
                (index < elements.len()).then_some((index, rest))
            }
            // Keys may contain dots: the longest key that matches is taken.
            Value::Mapping(entries) => {
                let all = entries.iter().enumerate();
                let fitting = all.filter_map(|(index, (key, _))| {
                    let rest = path.strip_prefix(key.text())?;
                    let whole = rest.is_empty() || rest.starts_with(['.', '[']);
                    (whole && !key.text().is_empty()).then_some((index, rest))
                });
                fitting.min_by_key(|(_, rest)| rest.len())
            }
        }
    }

    /// The same as JSON: keys become strings as they are written; `.inf` and `.nan`, which JSON
    /// does not have, the strings that the proto3 JSON mapping has for them.
    pub fn to_json(&self) -> Json {
        self.json_of(scalar::meaning)
    }

    /// As [`Self::to_json`], with the meaning that unquoted scalars have to kubectl, which reads
    /// YAML 1.1: `yes` and `on` are true, `0644` is octal.
    pub fn to_json_as_kubectl(&self) -> Json {
        self.json_of(scalar::meaning_in_yaml_1_1)
    }

    fn json_of(&self, meaning: fn(&str) -> Meaning) -> Json {
        match &self.value {
            Value::Scalar { text, plain: false } => text.as_ref().into(),
            Value::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Null => Json::Null,
                Meaning::Bool(value) => value.into(),
                Meaning::Unsigned(value) => value.into(),
                Meaning::Signed(value) => value.into(),
                Meaning::Float(value) if value.is_nan() => "NaN".into(),
                Meaning::Float(f64::INFINITY) => "Infinity".into(),
                Meaning::Float(f64::NEG_INFINITY) => "-Infinity".into(),
                Meaning::Float(value) => value.into(),
                Meaning::Text => text.as_ref().into(),
            },
            Value::Sequence(elements) => elements.iter().map(|e| e.json_of(meaning)).collect(),
            Value::Mapping(entries) => {
                let entries = entries.iter();
                let entry = |(key, value): &(Node<'_>, Node<'_>)| {
                    (key.text().into(), value.json_of(meaning))
                };
                Json::Object(entries.map(entry).collect::<Map<_, _>>())
            }
        }
    }

    /// The text of a scalar without quotes; empty for other nodes.
    pub fn text(&self) -> &str {
        match &self.value {
            Value::Scalar { text, .. } => text,
            _ => "",
        }
    }

    fn meaning(&self) -> Option<Meaning> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(scalar::meaning(text)),
            Value::Scalar { plain: false, .. } => Some(Meaning::Text),
            _ => None,
        }
    }
}

/// The only document of a text as JSON; null where there is none.
///
/// # Errors
/// What is no YAML, beyond the bounds, or several documents.
pub fn to_json(text: &str) -> Result<Json, Error> {
    let mut documents = documents(text);
    let Some(first) = documents.next().transpose()? else {
        return Ok(Json::Null);
    };
    match documents.next().transpose()? {
        None => Ok(first.to_json()),
        Some(second) => Err(Error::new(
            second.place,
            "a second document begins here; there may be one",
        )),
    }
}
