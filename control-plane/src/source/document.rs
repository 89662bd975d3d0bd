//! YAML text → objects. Errors carry file, line and field.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::manifest::{Kind, Manifest};
use super::{FileError, Object};

/// Documents in one file; more is a mistake or an attack.
const MAX_DOCUMENTS: usize = 10_000;

/// Parses every document of a file.
///
/// # Errors
/// The first thing that is wrong. A file counts as a whole: with one bad document none of its
/// objects is taken, so that a half-written file never takes effect by halves.
pub fn parse(file: &str, text: &str) -> Result<Vec<Arc<Object>>, FileError> {
    let name: Arc<str> = file.into();
    let mut objects = Vec::new();
    for (first_line, document) in documents(text) {
        if objects.len() >= MAX_DOCUMENTS {
            return Err(FileError {
                file: file.into(),
                line: first_line + 1,
                field: String::new(),
                message: format!("more than {MAX_DOCUMENTS} documents; split the file"),
            });
        }
        let manifest = parse_one(document).map_err(|error| FileError {
            file: file.into(),
            line: if error.line == 0 { first_line + 1 } else { first_line + error.line },
            field: error.field,
            message: error.message,
        })?;
        if let Some(manifest) = manifest {
            objects.push(Arc::new(Object { file: name.clone(), manifest }));
        }
    }
    Ok(objects)
}

/// Each document with the number of lines before it. A line that begins with `---` is always a
/// marker: YAML allows it nowhere else at the first column.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.starts_with("---") {
            found.push((start_line, &text[start..at]));
            (start, start_line) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    found.push((start_line, &text[start..]));
    found
}

struct DocumentError {
    /// 1-based within the document; 0: unknown.
    line: usize,
    field: String,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
}

fn parse_one(text: &str) -> Result<Option<Manifest>, DocumentError> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return Ok(None);
    }
    let header: Header = typed(text)?;
    let kind = Kind::find(&header.api_version, &header.kind).ok_or_else(|| DocumentError {
        line: 0,
        field: "kind".into(),
        message: format!(
            "{}/{} is not an object Anyam reads; it reads {}",
            header.api_version,
            header.kind,
            Kind::all_names()
        ),
    })?;
    Ok(Some(match kind {
        Kind::Service => Manifest::Service(typed(text)?),
        Kind::Workload => Manifest::Workload(typed(text)?),
        Kind::HttpRoute => Manifest::HttpRoute(typed(text)?),
        Kind::GrpcRoute => Manifest::GrpcRoute(typed(text)?),
        Kind::ReferenceGrant => Manifest::ReferenceGrant(typed(text)?),
        Kind::AuthorizationPolicy => Manifest::AuthorizationPolicy(typed(text)?),
        Kind::MeshPolicy => Manifest::MeshPolicy(typed(text)?),
        Kind::BackendPolicy => Manifest::BackendPolicy(typed(text)?),
    }))
}

fn typed<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    let deserializer = serde_yaml_ng::Deserializer::from_str(text);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let inner = error.inner();
        let line = inner.location().map_or(0, |location| location.line());
        DocumentError { line, message: message(inner, &field), field }
    })
}

/// The parser's message without the path and position it repeats.
fn message(error: &serde_yaml_ng::Error, field: &str) -> String {
    let text = error.to_string();
    let text = text.strip_prefix(&format!("{field}: ")).unwrap_or(&text);
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> FileError {
        parse("shop.yaml", text).unwrap_err()
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n    - port: 80\n    - port: 70000\n";
        let error = error(text);
        assert_eq!((error.file.as_str(), error.line), ("shop.yaml", 10));
        assert_eq!(error.field, "spec.ports[1].port");
        assert!(error.message.contains("70000"), "{}", error.message);
    }

    #[test]
    fn unknown_fields_kinds_and_broken_yaml_are_refused() {
        let e = error("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  prots: []\n");
        assert_eq!((e.line, e.field.as_str()), (5, "spec.prots"));
        assert!(e.message.contains("unknown field `prots`"), "{}", e.message);
        let e = error("apiVersion: v1\nkind: Secret\n");
        assert!(e.message.contains("not an object Anyam reads"), "{}", e.message);
        let e = error("apiVersion: v1\nkind: [\n");
        assert!(e.line >= 2, "{e}");
    }

    #[test]
    fn documents_are_split_at_markers_and_empty_ones_skipped() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n---\n";
        assert_eq!(parse("f", text).unwrap().len(), 1);
    }
}
