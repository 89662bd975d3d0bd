//! The folder of manifests as the rest of the control plane sees it: [`open`] reads it once,
//! [`follow`] keeps up with it, and the API asks it what was declared.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::api::types::{Condition, FileError, Finding, Object, Objects, Severity};
use crate::api::{Declared, DeclaredWorkload};
use crate::model::builder::Builder;
use crate::model::vip::{VipError, Vips};
use crate::model::{Mesh, Options};
use crate::source::files::{Folder, Scan};
use crate::source::watch;
use crate::translate::Translator;

/// Reads `config_dir`; addresses allotted to services are kept in `<state_dir>/vips.json`.
///
/// # Errors
/// When the file of allotted addresses cannot be read or written. What is wrong with manifests is
/// no error here: it is logged, and [`Declared`] tells it.
pub fn open(
    config_dir: &Path,
    state_dir: &Path,
    options: Options,
) -> Result<(Arc<Translator>, Folder), VipError> {
    let vips = Vips::load(&state_dir.join("vips.json"))?;
    let translator = Arc::new(Translator::new(Builder::new(options, vips)));
    let mut folder = Folder::new(config_dir);
    publish(&translator, folder.scan());
    Ok((translator, folder))
}

/// How long what a change replaces is kept for proxies that have only half of it, at least; twice as
/// long at most. They take a change in well under a second.
const SETTLE: Duration = Duration::from_secs(10);

/// Keeps up with the folder until the kernel refuses to watch it; then what was read last serves on.
pub async fn follow(translator: Arc<Translator>, folder: Folder) {
    let shown = folder.root().display().to_string();
    let mut first = true;
    let keep = |scan: Scan| {
        // The first look repeats `open`'s; nothing is published twice.
        if !(std::mem::take(&mut first) && translator.says(&scan)) {
            publish(&translator, scan);
        }
        true
    };
    let settling = async {
        loop {
            tokio::time::sleep(SETTLE).await;
            translator.settle();
        }
    };
    let watched = tokio::select! {
        watched = watch::run(folder, keep) => watched,
        never = settling => never,
    };
    if let Err(error) = watched {
        tracing::error!(%error, folder = shown, "the folder cannot be watched; changes are not seen");
    }
}

fn publish(translator: &Translator, scan: Scan) {
    for error in &scan.errors {
        tracing::error!("{error}");
    }
    let objects = scan.objects.len();
    translator.apply(scan);
    let state = translator.state();
    tracing::info!(generation = state.generation, objects, "configuration read");
    for status in &state.mesh.statuses {
        for condition in status
            .conditions
            .iter()
            .filter(|condition| !condition.status)
        {
            let (what, reason) = (condition.kind, condition.reason);
            tracing::warn!(object = %status.id, at = status.origin, "{what} is False, {reason}: {}", condition.message);
        }
    }
}

impl Declared for Translator {
    fn objects(&self) -> Objects {
        let state = self.state();
        let object = |status: &crate::model::status::ObjectStatus| Object {
            kind: status.id.kind.name().to_owned(),
            namespace: status.id.key.namespace.clone(),
            name: status.id.key.name.clone(),
            file: status.origin.clone(),
            conditions: status
                .conditions
                .iter()
                .map(|condition| Condition {
                    kind: condition.kind.to_owned(),
                    status: condition.status,
                    reason: condition.reason.to_owned(),
                    message: condition.message.clone(),
                })
                .collect(),
        };
        let error = |error: &crate::source::FileError| FileError {
            file: error.file.clone(),
            line: u32::try_from(error.line).unwrap_or(u32::MAX),
            field: error.field.clone(),
            message: error.message.clone(),
        };
        Objects {
            objects: state.mesh.statuses.iter().map(object).collect(),
            file_errors: state.file_errors.iter().map(error).collect(),
            generation: state.generation,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let state = self.state();
        services_without_endpoints(&state.mesh)
    }

    fn workloads(&self) -> Vec<DeclaredWorkload> {
        let state = self.state();
        let origin = |id: &crate::model::ObjectId| {
            let status = state.mesh.statuses.iter().find(|status| status.id == *id);
            status
                .map(|status| status.origin.clone())
                .unwrap_or_default()
        };
        let workload = |(key, entry): (&crate::model::Key, &Arc<_>)| {
            let entry: &crate::model::mesh::WorkloadEntry = entry;
            let workload = &entry.workload;
            DeclaredWorkload {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                service_account: workload.service_account.clone(),
                addresses: workload.addresses.iter().map(ToString::to_string).collect(),
                services: entry.services.iter().map(ToString::to_string).collect(),
                sidecar: workload.sidecar,
                file: origin(&crate::model::ObjectId {
                    kind: crate::model::Kind::Workload,
                    key: key.clone(),
                }),
            }
        };
        state.mesh.workloads.iter().map(workload).collect()
    }
}

fn services_without_endpoints(mesh: &Mesh) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, service) in &mesh.services {
        let ready = mesh.members(service).any(|entry| entry.workload.ready);
        // A service that only routes to others needs none of its own.
        let routed = service.ports.iter().any(|port| !port.producers.is_empty());
        if !ready && !routed {
            findings.push(Finding {
                severity: Severity::Warning,
                what: format!("Service {key} has no ready workload: calls to it answer 503"),
                location: format!("Service {key}"),
                todo: "give a Workload the labels of its selector, or mend the selector".to_owned(),
            });
        }
    }
    findings
}
