//! `imagePullSecrets` of the pod, by which nodes pull the sidecar's image from a private registry.

use serde_json::{Value, json};

use super::InjectError;
use super::pod::{PodManifest, shape};

const FIELD: &str = "imagePullSecrets";

/// Adds those of `names` that the pod does not have. Returns these.
///
/// # Errors
/// The field is no list of objects.
pub(super) fn add(pod: &mut PodManifest, names: &[String]) -> Result<Vec<String>, InjectError> {
    // The field keeps its place.
    let mut list = match pod.spec.get_mut(FIELD).map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(shape(format!("spec.{FIELD}"), "a list")),
    };
    if let Some(index) = list.iter().position(|one| !one.is_object()) {
        return Err(shape(format!("spec.{FIELD}[{index}]"), "an object"));
    }
    let has = |name: &&String| list.iter().any(|one| one.get("name") == Some(&json!(name)));
    let missing: Vec<String> = names.iter().filter(|name| !has(name)).cloned().collect();
    list.extend(missing.iter().map(|name| json!({"name": name})));
    match list.is_empty() {
        true => drop(pod.spec.shift_remove(FIELD)),
        false => drop(pod.spec.insert(FIELD.to_owned(), list.into())),
    }
    Ok(missing)
}

/// Removes what an earlier injection added. The list stays in its place, even if it is empty now.
pub(super) fn remove(pod: &mut PodManifest, added: &Value) {
    let added = added.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(Value::Array(list)) = pod.spec.get_mut(FIELD) {
        list.retain(|one| one.get("name").is_none_or(|name| !added.contains(name)));
    }
}
