//! The chart's values: documented, and validated strictly.

use std::collections::BTreeMap;
use std::fs;

use anyam_tests_kube::{Helm, HelmVersion};
use serde_json::Value;

use super::{RENDERINGS, file};

fn schema() -> Value {
    let text = fs::read_to_string(Helm::chart().join("values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Each property of a schema by its path, without those of free maps and of lists' elements.
fn properties<'s>(at: &str, schema: &'s Value, found: &mut BTreeMap<String, &'s Value>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = match at {
            "" => name.clone(),
            at => format!("{at}.{name}"),
        };
        properties(&at, property, found);
        found.insert(at, property);
    }
}

/// The comment above each key of `values.yaml`.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut found, mut path) = (BTreeMap::new(), Vec::<(usize, &str)>::new());
    let mut comment = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(text) = trimmed.strip_prefix("# ") {
            comment.push(text);
            continue;
        }
        if let Some((key, _)) = trimmed.split_once(':') {
            let indent = line.len() - trimmed.len();
            path.retain(|(other, _)| *other < indent);
            path.push((indent, key));
            let path: Vec<_> = path.iter().map(|(_, key)| *key).collect();
            found.insert(path.join("."), comment.join(" "));
        }
        comment.clear();
    }
    found
}

#[test]
fn every_value_is_described_in_both_places() {
    let schema = schema();
    let mut known = BTreeMap::new();
    properties("", &schema, &mut known);
    let text = fs::read_to_string(Helm::chart().join("values.yaml")).unwrap();
    let comments = comments(&text);
    let values = file(&Helm::chart().join("values.yaml"));
    for (path, property) in &known {
        let described = property["description"].as_str().unwrap_or_default();
        assert!(!described.is_empty(), "{path} has no description");
        if property["type"] == "object" {
            assert!(
                property.get("additionalProperties").is_some() || path == "global",
                "{path} takes anything"
            );
        }
        let pointer = format!("/{}", path.replace('.', "/"));
        if values.pointer(&pointer).is_none() {
            // Parts of a container's resources; a chart around this one.
            let unset = path.contains(".resources.") || path == "global";
            assert!(unset, "values.yaml lacks {path}");
        } else if !path.contains(".resources.") {
            assert_eq!(
                comments.get(path).map(String::as_str),
                Some(described),
                "{path}"
            );
        }
    }
    for path in comments.keys() {
        assert!(known.contains_key(path), "the schema lacks {path}");
    }
}

#[test]
fn other_values_are_refused() {
    let helm = Helm::new(HelmVersion::V4);
    for (set, about) in [
        ("replicas=3", "replicas"),
        ("control.replica=3", "replica"),
        ("control.replicas=0", "control/replicas"),
        (
            "control.certificateLifetime=1w",
            "control/certificateLifetime",
        ),
        ("control.spread.nodes=hard", "control/spread/nodes"),
        ("image.pullPolicy=Sometimes", "image/pullPolicy"),
        ("trustDomain=Mesh", "trustDomain"),
        ("injection.failurePolicy=fail", "injection/failurePolicy"),
        ("injection.timeoutSeconds=31", "injection/timeoutSeconds"),
        ("injection.tokenSeconds=60", "injection/tokenSeconds"),
        ("injection.proxy.sidecars=native", "sidecars"),
        (
            "injection.proxy.concurrency=0",
            "injection/proxy/concurrency",
        ),
        ("injection.proxy.resources.limits.cpus=1", "cpus"),
        (
            "injection.proxy.redirect.excludeInboundPorts[0]=http",
            "excludeInboundPorts/0",
        ),
        (
            "injection.proxy.redirect.exemptUids[0]=root",
            "exemptUids/0",
        ),
        (
            "autoscaling.proxiesPerReplica=0",
            "autoscaling/proxiesPerReplica",
        ),
        ("priorityClass.value=2000000000", "priorityClass/value"),
        (
            "podDisruptionBudget.minAvailable=half",
            "podDisruptionBudget/minAvailable",
        ),
        ("meshNamespaces[0].quota=1", "meshNamespaces/0"),
        (
            "control.tolerations[0].operator=Is",
            "control/tolerations/0/operator",
        ),
    ] {
        let output = helm.try_run(&["template", "anyam", ".", "--set", set]);
        assert_ne!(output.status, Some(0), "{set}");
        assert!(output.stderr.contains(about), "{set}: {}", output.stderr);
    }
}

/// Each key of a values file exists in values.yaml: Helm would reject a misspelt or renamed one.
#[test]
fn files_of_values_change_something() {
    let defaults = file(&Helm::chart().join("values.yaml"));
    for (name, values) in RENDERINGS {
        let Some(values) = values.filter(|values| values.starts_with("values-")) else {
            continue;
        };
        assert_ne!(file(&Helm::chart().join(values)), defaults, "{name}");
        let differs = |at: &str, value: &Value| {
            let default = defaults.pointer(&at.replace('.', "/"));
            value.is_object() || default != Some(value)
        };
        let mut same = Vec::new();
        super::walk("", &file(&Helm::chart().join(values)), &mut |at, value| {
            if !at.contains('[') && !differs(at, value) {
                same.push(at.to_owned());
            }
        });
        assert!(same.is_empty(), "{values} repeats defaults: {same:?}");
    }
}
