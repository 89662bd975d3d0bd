//! The annotation `mesh.anyam.dev/status`: what injection changed in the pod, so that injecting
//! again begins with the pod as it was before.

use serde_json::{Value, json};

use super::metrics::{self, Merged};
use super::pod::{Pod, name};
use super::probes::{self, Rewritten};
use super::{InjectError, sidecar, volumes};
use crate::injected::STATUS;

pub(super) fn write(pod: &mut Pod, probes: &Rewritten, metrics: &Merged) {
    let status = json!({"probes": probes.originals, "annotations": metrics.originals});
    pod.annotations
        .insert(STATUS.to_owned(), status.to_string().into());
}

/// Undoes an earlier injection, if there was one. What was changed by hand since stays.
///
/// # Errors
/// The annotation is not what [`write()`] wrote.
pub(super) fn revert(pod: &mut Pod) -> Result<(), InjectError> {
    let Some(status) = pod.annotations.shift_remove(STATUS) else {
        return Ok(());
    };
    let wrong = |why: String| InjectError::Status { name: STATUS, why };
    let text = status.as_str().unwrap_or_default();
    let status: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let part = |field: &str| {
        let part = status.get(field).and_then(Value::as_object);
        part.ok_or_else(|| wrong(format!("it has no object {field:?}")))
    };
    let (probes, annotations) = (part("probes")?, part("annotations")?);

    pod.init_containers
        .retain(|container| !sidecar::is_ours(container));
    pod.containers
        .retain(|container| !sidecar::is_ours(container));
    if pod.containers.is_empty() {
        return Err(wrong("without the sidecar the pod has no container".into()));
    }
    pod.volumes
        .retain(|volume| !volumes::ALL.contains(&name(volume)));
    for (probe, original) in probes {
        restore_probe(pod, probe, original);
    }
    for (name, original) in annotations {
        let is_written = metrics::written(name)
            .is_some_and(|written| pod.annotation(name) == Some(written.as_str()));
        match original {
            Value::String(_) if is_written => {
                pod.annotations.insert(name.clone(), original.clone());
            }
            Value::Null if is_written => drop(pod.annotations.shift_remove(name)),
            _ => {}
        }
    }
    Ok(())
}

fn restore_probe(pod: &mut Pod, probe: &str, original: &Value) {
    let Some((container, word)) = probe.split_once('/') else {
        return;
    };
    let mut containers = pod.all_containers_mut();
    let Some(container) = containers.find(|candidate| name(candidate) == container) else {
        return;
    };
    let (Some(found), Value::Object(original)) = (probes::probe_mut(container, word), original)
    else {
        return;
    };
    // The API server fills in defaults, so that only the path shows that the handler is ours.
    let path = found.get("httpGet").and_then(|http| http.get("path"));
    if path.is_some_and(|path| *path == probes::path(probe)) {
        found.shift_remove("httpGet");
        found.extend(original.clone());
    }
}
