//! The text of one file into objects.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{FileError, Sourced};
use crate::model::manifest::read;
use crate::model::manifest::read::{Header, ReadError};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        parse("mesh.yaml", text)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const GOOD: &str =
        "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec: { ports: [{ port: 80 }] }\n";

    #[test]
    fn many_documents_and_json() {
        let text = format!(
            "---\n# nothing\n---\n{GOOD}---\n{}",
            GOOD.replace("name: a", "name: b")
        );
        let objects = parse("mesh.yaml", &text).unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!((objects[0].line, objects[1].line), (4, 9));
        assert_eq!(objects[0].object.id().to_string(), "Service default/a");
        let json = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"a","annotations":{"x":"y"}},"spec":{"clusterIP":"None"},"status":{"loadBalancer":{}}}"#;
        assert_eq!(parse("a.json", json).unwrap().len(), 1);
        assert!(parse("empty.yaml", "").unwrap().is_empty());
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place_and_what_is_allowed() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  ports:\n    - name: http\n      prot: 80\n";
        let error = &errors(text)[0];
        assert!(
            error.starts_with(
                "mesh.yaml:8:7: spec.ports[0].prot: unknown field `prot`, expected one of"
            ),
            "{error}"
        );
        assert!(error.contains("`targetPort`"), "{error}");
    }

    #[test]
    fn values_are_judged_where_they_stand() {
        let route = |rule: &str| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r }}\nspec:\n  rules:\n    - {rule}\n"
            )
        };
        for (rule, expected) in [
            (
                "timeouts: { request: 5 }",
                "mesh.yaml:6:28: spec.rules[0].timeouts.request: `5` is no duration; write it like 10ms, 5s, 1m30s, 2h",
            ),
            (
                "timeouts: { request: 5x }",
                "mesh.yaml:6:28: spec.rules[0].timeouts.request: `5x` is no duration; write it like 10ms, 5s, 1m30s, 2h",
            ),
            (
                "timeouts: { request: 1s, backendRequest: 2s }",
                "mesh.yaml:6:48: spec.rules[0].timeouts.backendRequest: must not be longer than timeouts.request",
            ),
            (
                "matches: [{ path: { value: 'a' } }]",
                "mesh.yaml:6:34: spec.rules[0].matches[0].path.value: the path `a` must begin with `/`",
            ),
            (
                "matches: [{ headers: [{ name: 'a b', value: c }] }]",
                "mesh.yaml:6:37: spec.rules[0].matches[0].headers[0].name: `a b` is no header name",
            ),
            (
                "filters: [{ type: CORS, cors: {} }]",
                "mesh.yaml:6:25: spec.rules[0].filters[0].type: unknown variant `CORS`, expected one of `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestRedirect`, `URLRewrite`, `RequestMirror`",
            ),
            (
                "filters: [{ type: URLRewrite }]",
                "mesh.yaml:6:17: spec.rules[0].filters[0]: must have `urlRewrite` and no other settings",
            ),
            (
                "name: A b",
                "mesh.yaml:6:13: spec.rules[0].name: `A b` is no name: lower-case letters, digits and `-` (and `.`, 253 at most), a letter or digit at both ends",
            ),
            (
                "sessionPersistence: { type: Cookie }",
                "mesh.yaml:6:7: spec.rules[0].sessionPersistence: unknown field `sessionPersistence`, expected one of `name`, `matches`, `filters`, `backendRefs`, `timeouts`, `retry`",
            ),
            (
                "backendRefs: [{ name: a, port: 0 }]",
                "mesh.yaml:6:38: spec.rules[0].backendRefs[0].port: invalid value: integer `0`, expected a nonzero u16",
            ),
        ] {
            assert_eq!(errors(&route(rule)), [expected]);
        }
    }

    #[test]
    fn what_is_wrong_together_is_all_told_with_places() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec:\n  type: ExternalName\n  sessionAffinity: ClientIP\n  clusterIP: here\n";
        assert_eq!(
            errors(text),
            [
                "mesh.yaml:5:9: spec.type: ExternalName is not supported; allowed: ClusterIP, NodePort, LoadBalancer",
                "mesh.yaml:6:20: spec.sessionAffinity: is not supported by the mesh; allowed: None",
                "mesh.yaml:7:14: spec.clusterIP: `here` is no IP address, nor None",
            ]
        );
        // The field is missing, so its parent's place is given.
        let text = "apiVersion: mesh.anyam.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: { name: a }\nspec:\n  action: Deny\n";
        assert_eq!(
            errors(text),
            [
                "mesh.yaml:5:3: spec.rules: is required for Deny and Audit; `[{}]` matches everything"
            ]
        );
    }

    #[test]
    fn kinds_versions_and_broken_yaml() {
        let error = &errors("apiVersion: v1\nkind: Pod\nmetadata: { name: a }\n")[0];
        assert!(
            error
                .starts_with("mesh.yaml:2:7: kind: `Pod` is not known; allowed: Service, Workload"),
            "{error}"
        );
        let error = &errors("apiVersion: v2\nkind: Service\nmetadata: { name: a }\n")[0];
        assert_eq!(
            error,
            "mesh.yaml:1:13: apiVersion: `v2` is not known for Service; allowed: v1"
        );
        let error = &errors(&format!("{GOOD}---\na: [\n"))[0];
        assert!(error.starts_with("mesh.yaml:"), "{error}");
        let error = &errors(&format!("{GOOD}---\n{GOOD}"))[0];
        assert_eq!(
            error,
            "mesh.yaml:6:1: metadata.name: Service default/a is in this file twice"
        );
        let error =
            &errors("apiVersion: v1\nkind: Service\nmetadata: { name: A_b }\nspec: {}\n")[0];
        assert!(
            error.starts_with("mesh.yaml:3:19: metadata.name: `A_b` is no name"),
            "{error}"
        );
    }
}
