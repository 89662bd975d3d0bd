//! `selector` of policies: workloads by their labels, in place of `targetRefs`.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::object::{FieldError, Target};

/// Labels of one selector.
const MAX_LABELS: usize = 16;
/// Bytes of a label's value (Kubernetes).
const MAX_VALUE: usize = 63;

/// For `x-kubernetes-validations` of a spec that has both.
pub const ONE_OF_BOTH: (&str, &str) = (
    "!has(self.selector) || !has(self.targetRefs) || size(self.targetRefs) == 0",
    "selector and targetRefs exclude each other",
);

/// Workloads of the policy's namespace that have all of these labels, those to come too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSelector {
    /// Labels and their values.
    #[serde(deserialize_with = "without_null")]
    #[schemars(schema_with = "labels_schema")]
    match_labels: BTreeMap<String, String>,
}

/// As the API server reads a map.
fn without_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let labels: BTreeMap<String, Option<String>> = Deserialize::deserialize(deserializer)?;
    let labels = labels.into_iter();
    Ok(labels
        .filter_map(|(name, value)| Some((name, value?)))
        .collect())
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_LABELS,
        "additionalProperties": {
            "type": "string",
            "maxLength": MAX_VALUE,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
        }
    })
}

/// The target that a policy's selector is, beside the `others`.
pub fn target(
    selector: Option<WorkloadSelector>,
    others: &[Target],
    errors: &mut Vec<FieldError>,
) -> Option<Target> {
    let labels = selector?.match_labels;
    let path = "spec.selector.matchLabels";
    if !others.is_empty() {
        let message = "exclude each other: write either selector or targetRefs";
        errors.push(FieldError::new("spec.selector", message));
    }
    if labels.is_empty() || labels.len() > MAX_LABELS {
        // Without any it would hold for the namespace, which a policy without a selector says.
        let message = format!("between 1 and {MAX_LABELS} labels are needed");
        errors.push(FieldError::new(path, message));
    }
    if let Some((name, value)) = labels.iter().find(|(_, value)| !is_value(value)) {
        let message = format!("`{value}`, of `{name}`, is no value of a label");
        errors.push(FieldError::new(path, message));
    }
    Some(Target::Labels(labels))
}

/// What Kubernetes allows: letters, digits, `-`, `_` and `.`, a letter or digit at both ends.
fn is_value(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().next_back()];
    let good = ends
        .into_iter()
        .flatten()
        .all(|it| it.is_ascii_alphanumeric());
    text.len() <= MAX_VALUE && text.bytes().all(fits) && good
}
