//! Whether a pod is injected.

use std::fmt;

use super::annotations::{INJECT, INJECT_VALUES};
use super::pod::PodManifest;
use super::settings::MeshSettings;
use super::{InjectError, NamespaceFacts};

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its own label or annotation is `disabled`.
    OptedOut {
        kind: &'static str,
    },
    /// Neither its namespace nor itself opted in.
    NotEnabled {
        namespace: String,
    },
    /// Pods of this namespace are never injected.
    ExcludedNamespace {
        namespace: String,
    },
    HostNetwork,
    Windows,
    /// What the API server shows of a static pod: its containers run already, as a file of its node
    /// has them.
    Mirror,
}

/// The annotation by which the kubelet marks the mirror of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl Skip {
    /// Whether a warning is due: the person who applied the pod would expect it to be injected.
    pub fn is_surprising(&self) -> bool {
        match self {
            // The kubelet creates mirror pods, not a person.
            Skip::OptedOut { .. } | Skip::NotEnabled { .. } | Skip::Mirror => false,
            Skip::ExcludedNamespace { .. } | Skip::HostNetwork | Skip::Windows => true,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::OptedOut { kind } => write!(f, "its {kind} {INJECT} is disabled"),
            Skip::NotEnabled { namespace } => write!(
                f,
                "neither the namespace {namespace} nor the pod has {INJECT}: enabled"
            ),
            Skip::ExcludedNamespace { namespace } => {
                write!(f, "pods of the namespace {namespace} are never injected")
            }
            Skip::HostNetwork => f.write_str(
                "it uses the host's network (hostNetwork: true), where its rules would redirect the whole node",
            ),
            Skip::Windows => f.write_str("it runs on Windows, which has no netfilter"),
            Skip::Mirror => f.write_str(
                "it is the mirror of a static pod, which runs as a file of its node has it",
            ),
        }
    }
}

/// A label or annotation `mesh.anyam.dev/inject`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Enabled,
    Disabled,
}

/// Why the pod is not injected; `None`: it is. The pod's own label or annotation takes precedence
/// over its namespace's.
///
/// # Errors
/// A label or annotation has a value that is not allowed, or they contradict each other.
pub(super) fn skip(
    pod: &PodManifest,
    namespace: NamespaceFacts<'_>,
    settings: &MeshSettings,
) -> Result<Option<Skip>, InjectError> {
    let label = choice("label", pod.label(INJECT))?;
    let annotation = choice("annotation", pod.annotation(INJECT))?;
    if label
        .zip(annotation)
        .is_some_and(|(label, annotation)| label != annotation)
    {
        return Err(InjectError::Contradiction { name: INJECT });
    }
    let name = || namespace.name.to_owned();
    let kind = if label.is_some() {
        "label"
    } else {
        "annotation"
    };
    let wanted = match label.or(annotation) {
        Some(Choice::Disabled) => return Ok(Some(Skip::OptedOut { kind })),
        Some(Choice::Enabled) => true,
        None => namespace.enabled,
    };
    if !wanted {
        return Ok(Some(Skip::NotEnabled { namespace: name() }));
    }
    if settings
        .excluded_namespaces
        .iter()
        .any(|excluded| excluded == namespace.name)
    {
        return Ok(Some(Skip::ExcludedNamespace { namespace: name() }));
    }
    if pod.annotation(MIRROR).is_some() {
        return Ok(Some(Skip::Mirror));
    }
    if pod
        .spec
        .get("hostNetwork")
        .is_some_and(|value| value == true)
    {
        return Ok(Some(Skip::HostNetwork));
    }
    let system = super::pod::at(&pod.spec, &["os", "name"]);
    Ok(system
        .filter(|name| *name == "windows")
        .map(|_| Skip::Windows))
}

fn choice(kind: &'static str, value: Option<&str>) -> Result<Option<Choice>, InjectError> {
    match value {
        None => Ok(None),
        Some("enabled") => Ok(Some(Choice::Enabled)),
        Some("disabled") => Ok(Some(Choice::Disabled)),
        Some(other) => Err(InjectError::Value {
            kind,
            name: INJECT.to_owned(),
            value: other.to_owned(),
            allowed: INJECT_VALUES.to_owned(),
        }),
    }
}
