//! The CustomResourceDefinitions of our own kinds: that the chart has the current ones, and that
//! their schemas and the reader take the same manifests.
//!
//! `accepted.yaml` and `refused.yaml` are manifests of every field, and of every way in which one is
//! wrong, and `kept.yaml` of fields that the API server keeps and the reader refuses; `tests/kube`
//! shows them to a real API server. After a change of the types:
//! `UPDATE_GOLDEN=1 cargo test -p anyam-control --test crds`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests: a failed unwrap is a failed test

mod judge;
mod mutated;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyam_control::crd::{self, Definition};
use anyam_control::model::manifest::read::{self, ReadError};
use judge::Judge;
use serde_json::{Map, Value, json};
use xds_proto::yaml;

const GROUP: &str = "mesh.anyam.dev/";
const HEAD: &str = "# Made from the types in control-plane/src/model/manifest:\n\
    # UPDATE_GOLDEN=1 cargo test -p anyam-control --test crds\n";

/// The mark of objects whose unknown fields the API server keeps, and the kinds that have it.
const KEPT: &str = "x-kubernetes-preserve-unknown-fields";
const KEEPING: [&str; 2] = ["AuthorizationPolicy", "MeshPolicy"];

/// What CEL and the keys of lists say, by what the reader says of it: only the API server judges these.
const BY_THE_API_SERVER: [&str; 14] = [
    "is there twice",
    "is empty; leave",
    "needs `values` or `notValues`",
    "must be more than 0",
    "cannot target",
    "can be targeted",
    "is not supported; the policy holds for all ports",
    "is required for Deny and Audit",
    "needs targetRefs to a Workload",
    "no workload can have the address",
    "a port (1 to 65535)",
    "exclude each other",
    "needs loadBalancer",
    "must have exactly one setting",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The objects of our own kinds in a text of several documents.
fn ours(text: &str) -> Vec<Value> {
    let objects = yaml::documents(text).map(|document| document.unwrap().to_json());
    let of_ours = |object: &Value| {
        let version = object["apiVersion"].as_str();
        version.is_some_and(|version| version.starts_with(GROUP))
    };
    objects.filter(of_ours).collect()
}

/// What the reader says of an object.
fn read(object: &Value) -> Result<(), String> {
    let text = yaml::write(object);
    let document = yaml::documents(&text).next().unwrap().unwrap();
    let kind = crd::all()
        .into_iter()
        .find(|one| one.kind.name() == object["kind"])
        .unwrap()
        .kind;
    match read::object(kind, &document) {
        Ok(_) => Ok(()),
        Err(ReadError::Value(error)) => Err(error.to_string()),
        Err(ReadError::Fields(errors)) => {
            let all = errors
                .iter()
                .map(|error| format!("{}: {}", error.path, error.message));
            Err(all.collect::<Vec<_>>().join("\n"))
        }
    }
}

fn is_for_the_api_server(error: &str) -> bool {
    error
        .lines()
        .all(|line| BY_THE_API_SERVER.iter().any(|known| line.contains(known)))
}

/// Only the reader refuses fields that the API server keeps.
fn is_for_the_reader(object: &Value, error: &str) -> bool {
    let keeps = KEEPING.iter().any(|kind| object["kind"] == *kind);
    keeps && error.contains("unknown field")
}

#[test]
fn the_chart_has_the_current_definitions() {
    let folder = root().join("deploy/helm/anyam/files/crds");
    let expected: Vec<(PathBuf, String)> = crd::all()
        .iter()
        .map(|Definition { name, manifest, .. }| {
            let text = format!("{HEAD}{}", yaml::write(manifest));
            (folder.join(format!("{name}.yaml")), text)
        })
        .collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (path, text) in &expected {
            fs::write(path, text).unwrap();
        }
    }
    for (path, text) in &expected {
        let found = fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == *text,
            "{} is out of date; run\n  UPDATE_GOLDEN=1 cargo test -p anyam-control --test crds",
            path.display()
        );
    }
    let expected: BTreeSet<_> = expected.into_iter().map(|(path, _)| path).collect();
    let found = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}

/// What the API server asks of a structural schema, and what `kubectl explain` shows.
#[test]
fn schemas_are_structural_and_every_field_is_described() {
    fn look(at: &str, schema: &Value, found: &mut Vec<String>) {
        let schema = schema.as_object().unwrap();
        for never in ["$ref", "oneOf", "nullable", "default"] {
            if schema.contains_key(never) {
                found.push(format!("{at}: {never}"));
            }
        }
        if !schema["type"].is_string() {
            found.push(format!("{at}: type {}", schema["type"]));
        }
        if let Some(format) = schema.get("format")
            && !["date-time", "int64"].contains(&format.as_str().unwrap())
        {
            found.push(format!("{at}: format {format}"));
        }
        if schema["type"] == "array" {
            look(&format!("{at}[]"), &schema["items"], found);
        }
        for (name, property) in properties(schema) {
            let at = format!("{at}.{name}");
            if property.get("description").is_none() && at.contains(".spec.") {
                found.push(format!("{at}: no description"));
            }
            look(&at, property, found);
        }
        if let Some(values) = schema.get("additionalProperties") {
            look(&format!("{at}{{}}"), values, found);
        }
    }
    fn properties(schema: &Map<String, Value>) -> Vec<(&String, &Value)> {
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().collect()
    }
    let mut found = Vec::new();
    for one in crd::all() {
        let schema = &one.manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        look(&one.name, schema, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// In the status nothing is kept: only the control plane writes it.
#[test]
fn kinds_that_guard_access_keep_the_fields_that_they_do_not_know() {
    fn look(at: &str, schema: &Value, expected: bool, wrong: &mut Vec<String>) {
        let has_fields = schema.get("properties").is_some();
        if schema.get(KEPT).is_some() != (expected && has_fields) {
            wrong.push(at.to_owned());
        }
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let expected = expected && name != "status";
            look(&format!("{at}.{name}"), property, expected, wrong);
        }
        for within in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(within) {
                look(&format!("{at}.{within}"), schema, expected, wrong);
            }
        }
    }
    let mut wrong = Vec::new();
    for one in crd::all() {
        let schema = &one.manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let expected = KEEPING.contains(&one.kind.name());
        look(&one.name, schema, expected, &mut wrong);
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn names_are_distinct() {
    let mut names = BTreeSet::new();
    for one in crd::all() {
        let of = &one.manifest["spec"]["names"];
        for name in [&of["plural"], &of["singular"], &of["shortNames"][0]] {
            assert!(names.insert(name.to_string()), "{name} is there twice");
        }
        assert_eq!(of["categories"], json!(["anyam"]));
    }
}

/// By GEP-713's label tools find them.
#[test]
fn kinds_of_policies_are_labelled_as_such() {
    for one in crd::all() {
        let labels = &one.manifest["metadata"]["labels"];
        let expected = match one.kind.name() {
            "BackendPolicy" => json!("direct"),
            "MeshPolicy" | "AuthorizationPolicy" => json!("inherited"),
            _ => Value::Null,
        };
        assert_eq!(
            labels["gateway.networking.k8s.io/policy"], expected,
            "{}",
            one.name
        );
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Every good manifest in the tree.
fn good() -> Vec<Value> {
    let mut paths = Vec::new();
    files(&root().join("deploy/demo"), &mut paths);
    files(&root().join("control-plane/tests/golden"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|it| it == "yaml"));
    let mut objects: Vec<Value> = paths
        .iter()
        .flat_map(|path| ours(&fs::read_to_string(path).unwrap()))
        .filter(|object| read(object).is_ok())
        .collect();
    assert!(objects.len() > 40, "{}", objects.len());
    let guide = fs::read_to_string(root().join("docs/guide.md")).unwrap();
    let fences = guide.split("```yaml\n").skip(1);
    for fence in fences.map(|rest| rest.split("```").next().unwrap()) {
        objects.extend(ours(fence));
    }
    objects.extend(ours(include_str!("accepted.yaml")));
    objects
}

#[test]
fn good_manifests_are_good_to_both() {
    let judge = Judge::new();
    for object in good() {
        assert_eq!(read(&object), Ok(()), "{object:#}");
        assert_eq!(judge.look(&object), Ok(()), "{object:#}");
    }
}

/// `accepted.yaml` is shown to the API server: it must have every field.
#[test]
fn every_field_is_tried() {
    fn used(at: &str, schema: &Value, values: &[&Value], missing: &mut Vec<String>) {
        if values.is_empty() {
            missing.push(at.to_owned());
        }
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let within: Vec<_> = values.iter().filter_map(|value| value.get(name)).collect();
            used(&format!("{at}.{name}"), property, &within, missing);
        }
        if schema.get("items").is_some() {
            let lists = values.iter().filter_map(|value| value.as_array());
            let elements: Vec<_> = lists.flatten().collect();
            used(&format!("{at}[]"), &schema["items"], &elements, missing);
        }
    }
    let objects = ours(include_str!("accepted.yaml"));
    let mut missing = Vec::new();
    for one in crd::all() {
        let schema = &one.manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let of_kind = objects.iter().filter(|it| it["kind"] == one.kind.name());
        let specs: Vec<_> = of_kind.map(|object| &object["spec"]).collect();
        used(
            one.kind.name(),
            &schema["properties"]["spec"],
            &specs,
            &mut missing,
        );
    }
    // Only an AuthorizationPolicy may name a port; the others share the type, and CEL refuses it.
    missing.retain(|at| {
        at.starts_with("AuthorizationPolicy") || !at.ends_with("targetRefs[].sectionName")
    });
    assert!(missing.is_empty(), "accepted.yaml lacks {missing:?}");
}

#[test]
fn bad_manifests_are_bad_to_both() {
    let judge = Judge::new();
    let objects = ours(include_str!("refused.yaml"));
    assert!(objects.len() > 30);
    for object in objects {
        let expected = object["metadata"]["annotations"]["expect"]
            .as_str()
            .unwrap();
        let error = read(&object).expect_err(&object.to_string());
        assert!(error.contains(expected), "{error}\n{object:#}");
        if !is_for_the_api_server(&error) {
            judge
                .look(&object)
                .expect_err(&format!("{error}\n{object:#}"));
        }
    }
}

#[test]
fn fields_that_are_kept_are_refused_by_the_reader() {
    let judge = Judge::new();
    let objects = ours(include_str!("kept.yaml"));
    assert!(objects.len() > 10);
    for object in objects {
        let path = object["metadata"]["annotations"]["expect"]
            .as_str()
            .unwrap();
        assert_eq!(judge.look(&object), Ok(()), "{object:#}");
        let error = read(&object).expect_err(&object.to_string());
        let expected = format!("{path}: unknown field");
        assert!(error.starts_with(&expected), "{error}\n{object:#}");
    }
}
