//! The container that `kubectl logs` and `kubectl exec` take where none is named. Without the annotation
//! that is the pod's first one, which a classic sidecar is.

use super::pod::{Pod, name};

const ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Names the app's first container, unless the pod names one itself; whether it did. The sidecar is not
/// in the pod yet.
pub(super) fn name_apps(pod: &mut Pod) -> bool {
    if pod.annotations.contains_key(ANNOTATION) {
        return false;
    }
    let Some(first) = pod.containers.first().map(|first| name(first).to_owned()) else {
        return false;
    };
    pod.annotations.insert(ANNOTATION.to_owned(), first.into());
    true
}

/// Takes back what [`name_apps`] wrote. The sidecar is not in the pod any more.
pub(super) fn revert(pod: &mut Pod) {
    if pod.annotation(ANNOTATION) == pod.containers.first().map(name) {
        pod.annotations.shift_remove(ANNOTATION);
    }
}
