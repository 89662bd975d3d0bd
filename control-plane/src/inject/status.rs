//! The annotation `mesh.anyam.dev/status`: what injection changed in the pod, so that injecting
//! again begins with the pod as it was before.

use serde_json::{Value, json};

use super::hook_token::HookToken;
use super::metrics::{self, Merged};
use super::pod::{PodManifest, name};
use super::probes::{self, Rewritten};
use super::{InjectError, default_container, pull_secrets, set, sidecar, volumes};
use crate::injected::STATUS;

/// Whether injection named the default container.
const DEFAULT_CONTAINER: &str = "defaultContainer";
/// Names that injection added.
const PULL_SECRETS: &str = "imagePullSecrets";

/// What injection changed beside its containers and volumes, which are known by their names.
pub(super) struct Changes<'a> {
    pub(super) probes: &'a Rewritten,
    pub(super) metrics: &'a Merged,
    pub(super) names_default: bool,
    pub(super) pull_secrets: Vec<String>,
}

pub(super) fn write(pod: &mut PodManifest, changes: &Changes<'_>) {
    let (probes, metrics) = (changes.probes, changes.metrics);
    let mut status = json!({"probes": probes.originals, "annotations": metrics.originals});
    if changes.names_default {
        set(&mut status, DEFAULT_CONTAINER, true.into());
    }
    if !changes.pull_secrets.is_empty() {
        let names = changes.pull_secrets.clone();
        set(&mut status, PULL_SECRETS, names.into());
    }
    pod.annotations
        .insert(STATUS.to_owned(), status.to_string().into());
}

/// Reverts an earlier injection, if there was one, and returns the token of its hooks. Manual
/// changes made since stay.
///
/// # Errors
/// The annotation is not what [`write()`] wrote.
pub(super) fn revert(pod: &mut PodManifest) -> Result<Option<HookToken>, InjectError> {
    let Some(status) = pod.annotations.shift_remove(STATUS) else {
        return Ok(None);
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
    let mut token = None;
    for (probe, original) in probes {
        let former = restore_probe(pod, probe, original);
        token = token.or(former);
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
    if let Some(added) = status.get(PULL_SECRETS) {
        pull_secrets::remove(pod, added);
    }
    if status.get(DEFAULT_CONTAINER).is_some() {
        default_container::revert(pod);
    }
    Ok(token)
}

/// Restores the handler of a probe or hook. Returns the token, if it is a hook that had one.
fn restore_probe(pod: &mut PodManifest, probe: &str, original: &Value) -> Option<HookToken> {
    let (container, word) = probe.split_once('/')?;
    let mut containers = pod.all_containers_mut();
    let container = containers.find(|candidate| name(candidate) == container)?;
    let (Some(found), Value::Object(original)) = (probes::probe_mut(container, word), original)
    else {
        return None;
    };
    // The API server fills in defaults, so that only the path shows that the handler is ours.
    let path = found.get("httpGet").and_then(|http| http.get("path"));
    let token = probes::token(path.and_then(Value::as_str)?, probe)?;
    let token = HookToken::read(token);
    found.shift_remove("httpGet");
    found.extend(original.clone());
    token
}
