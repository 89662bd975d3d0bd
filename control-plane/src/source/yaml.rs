//! The text of one file into objects.

use std::collections::HashSet;

use serde::Deserialize;
use xds_proto::yaml::{self, Node, Place};

use super::{FileError, Sourced};
use crate::model::ObjectId;
use crate::model::manifest::object::FieldError;
use crate::model::manifest::read;
use crate::model::manifest::read::{Header, ReadError};

/// Documents in one file, and items in one list.
const MAX_DOCUMENTS: usize = 10_000;

/// Reads all documents of a file: YAML, of which JSON is a part.
///
/// # Errors
/// Everything found wrong. One error makes the whole file bad, so that objects that belong
/// together change together.
pub fn parse(file: &str, text: &str) -> Result<Vec<Sourced>, Vec<FileError>> {
    let mut reader = Reader {
        file,
        objects: Vec::new(),
        ids: HashSet::new(),
        errors: Vec::new(),
    };
    for (count, document) in yaml::documents(text).enumerate() {
        if count == MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents; split the file");
            reader.error(Place::default(), String::new(), message);
            break;
        }
        match document {
            Ok(document) if document.is_null() => {}
            Ok(document) => reader.document(&document),
            Err(error) => reader.error(error.place, error.path, error.message),
        }
    }
    match reader.errors.is_empty() {
        true => Ok(reader.objects),
        false => Err(reader.errors),
    }
}

struct Reader<'a> {
    file: &'a str,
    objects: Vec<Sourced>,
    ids: HashSet<ObjectId>,
    errors: Vec<FileError>,
}

impl Reader<'_> {
    fn document(&mut self, document: &Node<'_>) {
        let header = match Header::deserialize(document) {
            Ok(header) => header,
            Err(error) => return self.error(error.place, error.path, error.message),
        };
        let Some(of_items) = header.items() else {
            return self.object(&header, document, "");
        };
        let Some(items) = document.get("items") else {
            let message = format!("is required in a {}", header.kind);
            return self.error(document.place, "items".to_owned(), message);
        };
        if items.elements().len() > MAX_DOCUMENTS {
            let message = format!("has more than {MAX_DOCUMENTS} items; split the file");
            return self.error(items.place, "items".to_owned(), message);
        }
        for (index, item) in items.elements().iter().enumerate() {
            let prefix = format!("items[{index}]");
            match Header::deserialize(item) {
                Ok(header) => self.object(&header.or(&of_items), item, &prefix),
                Err(error) => self.error(error.place, join(&prefix, &error.path), error.message),
            }
        }
    }

    /// `within`: the path of `node` in its document.
    fn object(&mut self, header: &Header, node: &Node<'_>, within: &str) {
        let kind = header.known().map_err(|error| vec![error]);
        let read = match kind {
            Ok(kind) => read::object(kind, node),
            Err(fields) => Err(ReadError::Fields(fields)),
        };
        match read {
            Err(ReadError::Value(error)) => {
                self.error(error.place, join(within, &error.path), error.message);
            }
            Err(ReadError::Fields(fields)) => {
                for FieldError { path, message } in fields {
                    self.error(node.place_of(&path), join(within, &path), message);
                }
            }
            Ok(object) => {
                let id = object.id();
                if self.ids.contains(&id) {
                    let message = format!("{id} is in this file twice");
                    self.error(node.place, join(within, "metadata.name"), message);
                }
                self.ids.insert(id);
                self.objects.push(Sourced {
                    object,
                    file: self.file.to_owned(),
                    line: node.place.line,
                });
            }
        }
    }

    fn error(&mut self, place: Place, field: String, message: String) {
        self.errors.push(FileError {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            field,
            message,
            about: None,
        });
    }
}

fn join(within: &str, path: &str) -> String {
    match (within, path) {
        ("", path) => path.to_owned(),
        (within, "") => within.to_owned(),
        (within, path) => format!("{within}.{path}"),
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
    fn errors_in_values_have_their_place() {
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
                "filters: [{ type: ExtensionRef }]",
                "mesh.yaml:6:25: spec.rules[0].filters[0].type: unknown variant `ExtensionRef`, expected one of `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestRedirect`, `URLRewrite`, `RequestMirror`, `CORS`",
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
                "sessions: { type: Cookie }",
                "mesh.yaml:6:7: spec.rules[0].sessions: unknown field `sessions`, expected one of `name`, `matches`, `filters`, `backendRefs`, `timeouts`, `retry`, `sessionPersistence`",
            ),
            (
                "sessionPersistence: { sessionName: s, idleTimeout: 1h }",
                "mesh.yaml:6:58: spec.rules[0].sessionPersistence.idleTimeout: is not supported",
            ),
            (
                "sessionPersistence: { absoluteTimeout: 1h }",
                "mesh.yaml:6:46: spec.rules[0].sessionPersistence.absoluteTimeout: is only supported with cookieConfig.lifetimeType: Permanent",
            ),
            (
                "sessionPersistence: { cookieConfig: { lifetimeType: Permanent } }",
                "mesh.yaml:6:59: spec.rules[0].sessionPersistence.cookieConfig.lifetimeType: Permanent needs an absoluteTimeout",
            ),
            (
                "sessionPersistence: { type: Header, sessionName: Host }",
                "mesh.yaml:6:56: spec.rules[0].sessionPersistence.sessionName: is a header that cannot carry a session",
            ),
            (
                "sessionPersistence: {}\n      backendRefs: [{ name: a, port: 80 }, { name: b, port: 80 }]",
                "mesh.yaml:6:27: spec.rules[0].sessionPersistence: is not supported where a rule has several backends: each request is assigned anew by weight",
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
    fn all_errors_of_a_document_are_reported_with_their_lines() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: { name: a }\nspec:\n  type: NodePort\n  ports: [{ port: 80 }, { port: 80, name: b }]\n  clusterIP: here\n";
        assert_eq!(
            errors(text),
            [
                "mesh.yaml:6:33: spec.ports[1].port: 80 is there twice",
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
            error.starts_with(
                "mesh.yaml:2:7: kind: `Pod` is not known; allowed: Service, EndpointSlice"
            ),
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

    #[test]
    fn lists_are_read_item_by_item() {
        let item = |indent: &str, head: &str, name: &str| {
            format!(
                "{indent}- {head}metadata: {{ name: {name} }}\n{indent}  spec: {{ ports: [{{ port: 80 }}] }}\n"
            )
        };
        let full = "apiVersion: v1\n  kind: Service\n  ";
        let list = |kind: &str, items: &[String]| {
            let meta = "metadata: { resourceVersion: '' }\n";
            format!(
                "apiVersion: v1\nkind: {kind}\n{meta}items:\n{}",
                items.concat()
            )
        };
        let text = list("List", &[item("", full, "a"), item("", full, "b")]);
        let objects = parse("mesh.yaml", &text).unwrap();
        let lines: Vec<_> = objects.iter().map(|object| object.line).collect();
        assert_eq!(lines, [5, 9]);
        // An item of a typed list may omit its kind and version.
        let typed = list("ServiceList", &[item("", "", "a"), item("", full, "b")]);
        assert_eq!(parse("mesh.yaml", &typed).unwrap().len(), 2);
        assert!(
            parse("mesh.yaml", "kind: List\napiVersion: v1\nitems: []\n")
                .unwrap()
                .is_empty()
        );

        let mixed = list(
            "List",
            &[
                item("", full, "a"),
                item("", full, "a"),
                "- kind: Pod\n  apiVersion: v1\n".into(),
                "- 3\n".into(),
            ],
        );
        let bad = format!(
            "{mixed}- {full}metadata: {{ name: c }}\n  spec: {{ ports: [{{ prot: 80 }}] }}\n"
        );
        let found = errors(&bad);
        let expected = [
            "mesh.yaml:9:3: items[1].metadata.name: Service default/a is in this file twice",
            "mesh.yaml:13:9: items[2].kind: `Pod` is not known",
            "mesh.yaml:15:3: items[3]: invalid type: integer `3`",
            "mesh.yaml:19:21: items[4].spec.ports[0].prot: unknown field `prot`",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
        assert_eq!(
            errors("kind: List\napiVersion: v1\n"),
            ["mesh.yaml:1:1: items: is required in a List"]
        );
    }

    #[test]
    fn older_versions_of_gateway_api_and_anchors_are_read() {
        for kind in ["HTTPRoute", "GRPCRoute", "ReferenceGrant"] {
            let spec = match kind {
                "ReferenceGrant" => {
                    "{ from: [{ group: g, kind: HTTPRoute, namespace: a }], to: [{ group: '', kind: Service }] }"
                }
                _ => "{ parentRefs: [{ kind: Service, group: '', name: a, port: 80 }], rules: [] }",
            };
            for version in ["v1", "v1beta1"] {
                let text = format!(
                    "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{ name: a }}\nspec: {spec}\n"
                );
                assert_eq!(
                    parse("a.yaml", &text)
                        .unwrap_or_else(|e| panic!("{kind} {version}: {}", e[0]))
                        .len(),
                    1
                );
            }
        }
        let rules = "rules: [{ backendRefs: [{ name: a, port: 80 }] }]";
        let tls = "targetRefs: [{ group: '', kind: Service, name: a }], validation: { hostname: a.example, wellKnownCACertificates: System }";
        for (kind, versions, spec) in [
            ("TCPRoute", &["v1", "v1alpha2"][..], rules),
            ("TLSRoute", &["v1", "v1alpha3", "v1alpha2"], rules),
            ("BackendTLSPolicy", &["v1", "v1alpha3"], tls),
        ] {
            for version in versions {
                let text = format!(
                    "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{ name: a }}\nspec: {{ {spec} }}\n"
                );
                let read = parse("a.yaml", &text);
                assert_eq!(read.map(|all| all.len()).ok(), Some(1), "{kind} {version}");
            }
        }
        let text = format!(
            "{GOOD}---\napiVersion: v1\nkind: Service\nmetadata: {{ name: b, labels: &l {{ app: b }} }}\nspec: {{ selector: {{ <<: *l, tier: x }}, ports: [] }}\n"
        );
        let objects = parse("a.yaml", &text).unwrap();
        let crate::model::Object::Service(service) = &objects[1].object else {
            panic!("no Service");
        };
        assert_eq!(service.selector.len(), 2);
    }
}
