//! Sidecar injection: from a pod and the mesh's settings to the pod with a sidecar.
//!
//! - [`inject`]: a pure function, which the webhook and `anyam inject` both call
//! - [`settings`]: what the operator sets; [`annotations`]: what a pod overrides of that; `values`,
//!   [`quantity`]: how values are read; `mistakes`: values that are not allowed
//! - `decision`: whether a pod is injected; `conflicts`: parts of a pod that conflict with a
//!   sidecar
//! - `pod`: the pod as JSON, so that fields of newer API versions survive unchanged
//! - `probes`, `metrics`: what the sidecar does for the app; [`hook_token`]: the secret in the path
//!   of a lifecycle hook; `status`: the pod before injection, for injecting it again
//! - `sidecar`, `redirect`, `volumes`, `pull_secrets`: what is added; `default_container`: the
//!   container that kubectl uses
//! - [`manifest`]: workloads in files; [`review`], [`webhook`]: admission; [`start`]: runs the
//!   webhook in the control plane's process
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod annotations;
mod conflicts;
mod decision;
mod default_container;
pub mod hook_token;
pub mod manifest;
mod metrics;
mod mistakes;
mod pod;
mod probes;
mod pull_secrets;
pub mod quantity;
mod redirect;
pub mod review;
pub mod settings;
mod sidecar;
pub mod start;
mod status;
mod values;
mod volumes;
pub mod webhook;

use serde_json::Value;

pub use decision::Skip;
use hook_token::HookToken;
use pod::PodManifest;
use settings::MeshSettings;

/// The namespace of a pod, as far as injection depends on it.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceFacts<'a> {
    pub name: &'a str,
    /// It has the label `mesh.anyam.dev/inject: enabled`.
    pub enabled: bool,
}

/// The result of injection.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    Injected {
        pod: Value,
        /// For the person who applied the pod: what will not work as expected.
        warnings: Vec<String>,
    },
    /// The pod is unchanged.
    Skipped(Skip),
}

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("{kind} {name}: {value:?} is not allowed; write {allowed}")]
    Value {
        /// `annotation` or `label`.
        kind: &'static str,
        name: String,
        value: String,
        allowed: String,
    },
    #[error("there is no annotation {name}; remove it, or write one of {known}")]
    Unknown { name: String, known: String },
    #[error(
        "the label {name} and the annotation of that name contradict each other; remove one of them"
    )]
    Contradiction { name: &'static str },
    #[error(
        "{what}: the request ({request}) is above the limit ({limit}); set both with {annotations}"
    )]
    AboveLimit {
        what: &'static str,
        request: String,
        limit: String,
        annotations: String,
    },
    #[error("{place}: expected {expected}; this is no pod that Kubernetes would take")]
    Shape {
        place: String,
        expected: &'static str,
    },
    #[error(
        "the pod has a {kind} {name} of its own, which is the name of the sidecar's; rename it"
    )]
    NameTaken {
        kind: &'static str,
        name: &'static str,
    },
    #[error(
        "{place} is {uid}, the sidecar's own user id: its connections would bypass the mesh; \
         choose another"
    )]
    ProxyUser { place: String, uid: u32 },
    #[error(
        "annotation {name}: it is not what injection wrote ({why}); remove it, and the sidecar with it"
    )]
    Status { name: &'static str, why: String },
    #[error(
        "the operating system gives no random bytes, which a lifecycle hook's token is made of"
    )]
    NoRandomBytes,
}

/// Injects a pod or a pod template. A pod that is injected already is first restored, then
/// injected. `token`: for its lifecycle hooks, unless it has one.
///
/// # Errors
/// What in the pod must be changed before it can be part of the mesh.
pub fn inject(
    pod: &Value,
    namespace: NamespaceFacts<'_>,
    settings: &MeshSettings,
    token: &HookToken,
) -> Result<Injection, InjectError> {
    let mut pod = PodManifest::read(pod)?;
    if let Some(skip) = decision::skip(&pod, namespace, settings)? {
        return Ok(Injection::Skipped(skip));
    }
    let former = status::revert(&mut pod)?;
    let token = former.as_ref().unwrap_or(token);
    let proxy = annotations::settings(&pod, &settings.proxy)?;
    let mut warnings = conflicts::check(&pod, settings, &proxy)?;
    let probes = match proxy.rewrite_probes {
        true => probes::rewrite(&mut pod, proxy.sidecar, token, &mut warnings),
        false => probes::Rewritten::default(),
    };
    let metrics = match proxy.merge_metrics {
        true => metrics::merge(&mut pod, &mut warnings),
        false => metrics::Merged::default(),
    };
    let redirect = redirect::container(&proxy);
    let sidecar = sidecar::container(&pod, settings, &proxy, &probes, &metrics);
    let mut names_default = false;
    match proxy.sidecar {
        // Before all other init containers, so that those are in the mesh too; and the sidecar
        // comes right after the rules, so that nothing runs between the two.
        settings::SidecarKind::Native => {
            let others = std::mem::replace(&mut pod.init_containers, vec![redirect, sidecar]);
            pod.init_containers.extend(others);
        }
        // A classic sidecar starts after the init containers, which would reach nothing with the
        // rules set: so the rules come last.
        settings::SidecarKind::Classic => {
            pod.init_containers.push(redirect);
            names_default = default_container::name_apps(&mut pod);
            // The kubelet starts the next container when this one's hook says that it is ready.
            pod.containers.insert(0, sidecar);
        }
    }
    pod.volumes.extend(volumes::all(settings));
    let changes = status::Changes {
        probes: &probes,
        metrics: &metrics,
        names_default,
        pull_secrets: pull_secrets::add(&mut pod, &settings.image_pull_secrets)?,
    };
    status::write(&mut pod, &changes);
    Ok(Injection::Injected {
        pod: pod.into_json(),
        warnings,
    })
}

/// Sets a field of a JSON object.
fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}
