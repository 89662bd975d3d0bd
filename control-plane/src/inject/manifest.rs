//! Workloads in manifests, for `anyam inject`. Objects without pods stay as they are; the others
//! have theirs injected as the webhook would inject them in an enabled namespace.

use serde_json::Value;

use super::hook_token::HookTokens;
use super::settings::MeshSettings;
use super::{InjectError, Injection, NamespaceFacts, Skip, inject};

/// What was done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectOutcome {
    /// `Deployment shop/web`.
    pub object: String,
    pub what: ObjectChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectChange {
    Injected {
        warnings: Vec<String>,
    },
    Skipped(Skip),
    /// It has no pods, or is of a kind that is not injected.
    Unchanged,
}

/// An object whose pods cannot be injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {error}")]
pub struct ManifestError {
    pub object: String,
    pub error: InjectError,
}

/// How deep Lists may be nested.
const MAX_DEPTH: u32 = 8;

/// Injects one object, or each of a `v1` List. `namespace`: of objects that do not say it; `tokens`: for
/// the lifecycle hooks of their pods.
///
/// # Errors
/// The first object that must be changed before it can be part of the mesh.
pub fn inject_object(
    object: Value,
    namespace: &str,
    settings: &MeshSettings,
    tokens: &HookTokens,
    outcomes: &mut Vec<ObjectOutcome>,
) -> Result<Value, ManifestError> {
    walk(object, (namespace, settings, tokens), outcomes, 0)
}

fn walk(
    mut object: Value,
    context: (&str, &MeshSettings, &HookTokens),
    outcomes: &mut Vec<ObjectOutcome>,
    depth: u32,
) -> Result<Value, ManifestError> {
    if is_list(&object) && depth < MAX_DEPTH {
        if let Some(Value::Array(items)) = object.get_mut("items") {
            let injected = std::mem::take(items)
                .into_iter()
                .map(|item| walk(item, context, outcomes, depth.saturating_add(1)));
            *items = injected.collect::<Result<_, _>>()?;
        }
        return Ok(object);
    }
    let (default_namespace, settings, tokens) = context;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
    let metadata = |field: &str| text(object.get("metadata").and_then(|m| m.get(field)));
    let namespace = Some(metadata("namespace")).filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| default_namespace.to_owned());
    let name = [metadata("name"), metadata("generateName")];
    let name = name
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default();
    let label = format!("{} {namespace}/{name}", text(object.get("kind")));
    let mut what = ObjectChange::Unchanged;
    if let Some(pod) = pod_of(&mut object) {
        let enabled = NamespaceFacts {
            name: &namespace,
            enabled: true,
        };
        let token = tokens.token(&label);
        let injected = token.and_then(|token| inject(pod, enabled, settings, &token));
        let injected = injected.map_err(|error| ManifestError {
            object: label.clone(),
            error,
        })?;
        what = match injected {
            Injection::Skipped(skip) => ObjectChange::Skipped(skip),
            Injection::Injected {
                pod: injected,
                warnings,
            } => {
                *pod = injected;
                ObjectChange::Injected { warnings }
            }
        };
    }
    outcomes.push(ObjectOutcome {
        object: label,
        what,
    });
    Ok(object)
}

fn type_of(object: &Value) -> (&str, &str) {
    let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    (field("apiVersion"), field("kind"))
}

fn is_list(object: &Value) -> bool {
    type_of(object) == ("v1", "List")
}

/// The pod, or pod template, in an object of a kind that has one.
fn pod_of(object: &mut Value) -> Option<&mut Value> {
    let (version, kind) = type_of(object);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let path = match (group, kind) {
        ("", "Pod") => "",
        ("", "ReplicationController") => "/spec/template",
        ("", "PodTemplate") => "/template",
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => "/spec/template",
        ("batch", "Job") => "/spec/template",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template",
        _ => return None,
    };
    object.pointer_mut(path)
}
