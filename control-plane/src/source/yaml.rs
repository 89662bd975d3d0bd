//! The text of one file into objects.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{FileError, Sourced};
use crate::model::read::{self, Header, ReadError};

/// Documents in one file.
const MAX_DOCUMENTS: usize = 10_000;

/// Reads all documents of a file: YAML, of which JSON is a part.
///
/// # Errors
/// Everything found wrong. One error makes the whole file bad, so that objects that belong
/// together change together.
pub fn parse(file: &str, text: &str) -> Result<Vec<Sourced>, Vec<FileError>> {
    let mut objects: Vec<Sourced> = Vec::new();
    let mut errors = Vec::new();
    // Three readers in step: one looks at the kind, one reads, one finds places of late errors.
    let documents = || serde_yaml_ng::Deserializer::from_str(text);
    let triples = documents().zip(documents()).zip(documents());
    for (count, ((header, body), again)) in triples.enumerate() {
        if count == MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents; split the file");
            errors.push(FileError {
                message,
                ..whole(file)
            });
            break;
        }
        let header = match Option::<Header>::deserialize(header) {
            Ok(None) => continue,
            Ok(Some(header)) => header,
            Err(error) => {
                errors.push(syntax(file, String::new(), &error));
                // What follows a document that is no YAML cannot be told apart.
                break;
            }
        };
        match one(header, body) {
            Err(ReadError::Syntax { path, error }) => errors.push(syntax(file, path, &error)),
            Err(ReadError::Fields(fields)) => {
                let places = locate(again, fields.iter().map(|field| field.path.as_str()), text);
                for (field, (line, column)) in fields.into_iter().zip(places) {
                    errors.push(FileError {
                        file: file.to_owned(),
                        line,
                        column,
                        field: field.path,
                        message: field.message,
                    });
                }
            }
            Ok(object) => {
                let (line, column) = place(again, &[]).unwrap_or_default();
                let id = object.id();
                if objects.iter().any(|other| other.object.id() == id) {
                    errors.push(FileError {
                        file: file.to_owned(),
                        line,
                        column,
                        field: "metadata.name".to_owned(),
                        message: format!("{id} is in this file twice"),
                    });
                }
                objects.push(Sourced {
                    object,
                    file: file.to_owned(),
                    line,
                });
            }
        }
    }
    if errors.is_empty() {
        Ok(objects)
    } else {
        Err(errors)
    }
}

fn one(
    header: Header,
    body: serde_yaml_ng::Deserializer<'_>,
) -> Result<crate::model::Object, ReadError> {
    let kind = header
        .known()
        .map_err(|error| ReadError::Fields(vec![error]))?;
    read::object(kind, body)
}

fn whole(file: &str) -> FileError {
    FileError {
        file: file.to_owned(),
        line: 0,
        column: 0,
        field: String::new(),
        message: String::new(),
    }
}

fn syntax(file: &str, path: String, error: &serde_yaml_ng::Error) -> FileError {
    let (line, column) = error
        .location()
        .map_or((0, 0), |at| (at.line(), at.column()));
    let text = error.to_string();
    // The reader repeats path and place in its text.
    let text = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text);
    let text = match text.split_once(": ") {
        Some((prefix, rest)) if !path.is_empty() && path.starts_with(prefix) => rest,
        _ => text,
    };
    let field = if path == "." || path == "?" {
        String::new()
    } else {
        path
    };
    FileError {
        file: file.to_owned(),
        line,
        column,
        field,
        message: text.to_owned(),
    }
}

/// Places of fields within one document. A reader can be used once: documents are re-read from the
/// text, which only happens for files with errors.
fn locate<'a>(
    document: serde_yaml_ng::Deserializer<'_>,
    paths: impl Iterator<Item = &'a str>,
    text: &str,
) -> Vec<(usize, usize)> {
    let start = place(document, &[]).unwrap_or_default();
    let of = |path: &str| {
        let mut steps = steps(path);
        loop {
            // The document that begins where this one does.
            let mut readers = serde_yaml_ng::Deserializer::from_str(text)
                .zip(serde_yaml_ng::Deserializer::from_str(text));
            let reader = readers
                .find_map(|(probe, reader)| (place(probe, &[]) == Some(start)).then_some(reader));
            match reader.and_then(|reader| place(reader, &steps)) {
                Some(at) => return at,
                // The field itself is missing: its parent is the place.
                None if steps.pop().is_some() => {}
                None => return start,
            }
        }
    };
    paths.map(of).collect()
}

/// A step of a field path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let mut pieces = part.split('[');
        if let Some(name) = pieces.next().filter(|name| !name.is_empty()) {
            steps.push(Step::Field(name.to_owned()));
        }
        let indices = pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok());
        steps.extend(indices.map(Step::Index));
    }
    steps
}

/// What [`Seek`] fails with where the path ends; the reader adds the place.
const HERE: &str = "anyam: here";

/// Line and column of the value at `steps`; `None`: it is not there.
fn place<'de, D>(document: D, steps: &[Step]) -> Option<(usize, usize)>
where
    D: Deserializer<'de, Error = serde_yaml_ng::Error>,
{
    let error = Seek(steps).deserialize(document).err()?;
    let at = error.location()?;
    error
        .to_string()
        .contains(HERE)
        .then(|| (at.line(), at.column()))
}

/// Walks down a path and fails where it ends, so that the reader's error tells the place.
struct Seek<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Scalars end any path.
macro_rules! here {
    ($($visit:ident: $type:ty),*) => {$(
        fn $visit<E: Error>(self, _: $type) -> Result<(), E> {
            if self.0.is_empty() { Err(E::custom(HERE)) } else { Ok(()) }
        }
    )*};
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    here!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.0.is_empty() {
            Err(E::custom(HERE))
        } else {
            Ok(())
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(HERE));
        };
        while let Some(key) = map.next_key::<String>()? {
            match *step == Step::Field(key) {
                true => map.next_value_seed(Seek(rest))?,
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            return Err(A::Error::custom(HERE));
        };
        let mut index = 0;
        loop {
            let found = match *step == Step::Index(index) {
                true => seq.next_element_seed(Seek(rest))?.is_some(),
                false => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !found {
                return Ok(());
            }
            index += 1;
        }
    }
}
