//! The container that `kubectl logs` and `kubectl exec` use if none is named. Without the
//! annotation it is the first container of the pod, which would be the sidecar if that is a classic
//! one.

use super::pod::{PodManifest, name};

const ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Sets the annotation to the app's first container, unless the pod has the annotation; returns
/// whether it did. Called before the sidecar is added.
pub(super) fn name_apps(pod: &mut PodManifest) -> bool {
    if pod.annotations.contains_key(ANNOTATION) {
        return false;
    }
    let Some(first) = pod.containers.first().map(|first| name(first).to_owned()) else {
        return false;
    };
    pod.annotations.insert(ANNOTATION.to_owned(), first.into());
    true
}

/// Removes the annotation that [`name_apps`] set. Called after the sidecar is removed.
pub(super) fn revert(pod: &mut PodManifest) {
    if pod.annotation(ANNOTATION) == pod.containers.first().map(name) {
        pod.annotations.shift_remove(ANNOTATION);
    }
}
