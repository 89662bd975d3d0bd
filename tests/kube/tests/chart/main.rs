//! The Helm chart, without a cluster.
//!
//! - `rendered`: golden manifests; `helm lint`
//! - `agreement`: that the program takes the flags and settings it is given, and images are those that
//!   are built
//! - `values`: the values' descriptions, and which values are refused
//! - `rights`: RBAC as documented; restricted pod security

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreement;
mod rendered;
mod rights;
mod values;

use std::fs;
use std::path::{Path, PathBuf};

use anyam_tests_kube::Helm;
use serde_json::Value;
use xds_proto::yaml;

/// Values that enable every template; the chart's own values files are beside it.
const EVERYTHING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chart/everything.yaml");

/// Name of a rendering, and the file of values that makes it.
const RENDERINGS: [(&str, Option<&str>); 5] = [
    ("default", None),
    ("staging", Some("values-staging.yaml")),
    ("production", Some("values-production.yaml")),
    ("dr", Some("values-dr.yaml")),
    ("everything", Some(EVERYTHING)),
];

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn objects(text: &str) -> Vec<Value> {
    let documents = yaml::documents(text).map(|document| document.unwrap().to_json());
    documents.filter(|object| !object.is_null()).collect()
}

fn file(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    objects(&text).remove(0)
}

/// The objects of a rendering.
fn rendering(helm: &Helm, values: Option<&str>) -> Vec<Value> {
    let options: Vec<&str> = values.into_iter().flat_map(|file| ["-f", file]).collect();
    objects(&helm.template(&options))
}

fn of_kind<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let found = objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// Each object, and each place in it, for which `wrong` finds something.
fn walk(at: &str, value: &Value, look: &mut impl FnMut(&str, &Value)) {
    look(at, value);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                walk(&format!("{at}.{key}"), value, look);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                walk(&format!("{at}[{index}]"), value, look);
            }
        }
        _ => {}
    }
}
