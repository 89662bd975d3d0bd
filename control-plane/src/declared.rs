//! What is declared, as the rest of the control plane sees it: [`open`] reads a folder once,
//! [`open_filled`] waits for one that has lost its files, [`list`] for a cluster's first report;
//! [`follow`] keeps up with a source, and the API reads what was declared. `condition_log`: what is
//! logged of it.

mod condition_log;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::condition_log::ConditionLog;
use crate::api::declared::{Declared, DeclaredPorts, DeclaredWorkload};
use crate::findings;
use crate::incumbents::{Incumbents, IncumbentsError};
use crate::model::mesh::builder::Builder;
use crate::model::mesh::endpoints::EndpointsBy;
use crate::model::mesh::ports;
use crate::model::mesh::vip::{VipError, Vips};
use crate::model::{MeshOptions, ObjectId};
use crate::source::absence;
use crate::source::files::Folder;
use crate::source::kubernetes::Cluster;
use crate::source::kubernetes::status::Statuses;
use crate::source::{Observed, Source, SourceError};
use crate::translate::Translator;
use crate::types::{FileError, Finding, Objects};

/// Why a folder cannot be opened: a file of the state folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Vips(#[from] VipError),
    #[error(transparent)]
    Incumbents(#[from] IncumbentsError),
}

/// The folder as a source. Where several files declare an object, the file whose declaration is
/// used is recorded in `<state_dir>/duplicates.json`, so that a restart does not choose another.
///
/// # Errors
/// When that file cannot be read.
pub fn folder(config_dir: &Path, state_dir: &Path) -> Result<Folder, IncumbentsError> {
    let incumbents = Incumbents::load(&state_dir.join("duplicates.json"))?;
    Ok(Folder::new(config_dir).remember(incumbents))
}

/// Reads `config_dir`. Addresses allotted to services are kept in `<state_dir>/vips.json`; which of
/// several objects has an address that all of them claim, in `address-conflicts.json`.
///
/// # Errors
/// When a file of the state folder cannot be read. What is wrong with manifests is no error here: it
/// is logged, and [`Declared`] reports it.
pub fn open(
    config_dir: &Path,
    state_dir: &Path,
    options: MeshOptions,
) -> Result<(Arc<Translator>, Folder), OpenError> {
    let Unread {
        translator,
        mut folder,
        ..
    } = unread(config_dir, state_dir, options)?;
    publish_first(&translator, folder.changes(), None);
    Ok((translator, folder))
}

/// As [`open`], for a control plane that proxies come to. If an earlier run allotted addresses and the
/// folder declares nothing now, it may be a volume that is not mounted yet: it is waited for, as long
/// as a folder that loses its objects later keeps them. Until then nothing is served, so that
/// proxies keep what they have.
///
/// # Errors
/// As [`open`].
pub async fn open_filled(
    config_dir: &Path,
    state_dir: &Path,
    options: MeshOptions,
) -> Result<(Arc<Translator>, Folder), OpenError> {
    let Unread {
        translator,
        mut folder,
        served_before,
    } = unread(config_dir, state_dir, options)?;
    if served_before {
        until_filled(&mut folder).await;
    }
    publish_first(&translator, folder.changes(), None);
    Ok((translator, folder))
}

/// How often an empty folder is looked at before anything is served.
const LOOK: Duration = Duration::from_millis(500);

async fn until_filled(folder: &mut Folder) {
    let began = Instant::now();
    while folder.scan(Instant::now()).objects.is_empty() {
        let waited = began.elapsed();
        if waited >= absence::FOLDER {
            tracing::error!(
                folder = folder.name(),
                "the folder has stayed without objects: the mesh is empty"
            );
            return;
        }
        if waited < LOOK {
            tracing::error!(
                folder = folder.name(),
                "the folder has no objects, but the state folder has addresses of Services: waiting for objects for {} s before anything is served",
                absence::FOLDER.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Opened, with nothing of the folder read.
struct Unread {
    translator: Arc<Translator>,
    folder: Folder,
    /// The state folder has addresses that an earlier run allotted.
    served_before: bool,
}

fn unread(config_dir: &Path, state_dir: &Path, options: MeshOptions) -> Result<Unread, OpenError> {
    let vips = Vips::load(&state_dir.join("vips.json"))?;
    let served_before = !vips.is_empty();
    let incumbents = Incumbents::load(&state_dir.join("address-conflicts.json"))?;
    let builder = Builder::new(options, vips).remember(incumbents);
    Ok(Unread {
        translator: Arc::new(Translator::new(builder)),
        folder: folder(config_dir, state_dir)?,
        served_before,
    })
}

/// Waits for a cluster's first report, which has everything. Services of a cluster have their
/// addresses, so no allotted ones are kept.
///
/// # Errors
/// When no report can come any more.
pub async fn list(
    mut cluster: Cluster,
    options: MeshOptions,
) -> Result<(Arc<Translator>, Cluster), SourceError> {
    let options = MeshOptions {
        endpoints: EndpointsBy::Slices,
        machine_ranges: Some(cluster.machine_ranges().to_vec()),
        ..options
    };
    let translator = Arc::new(Translator::new(Builder::new(options, Vips::new())));
    let first = cluster.next().await?;
    publish_first(&translator, first, Some(&cluster.statuses()));
    Ok((translator, cluster))
}

/// How long, at least, callers accept the identities that a change removes from a service, for
/// proxies that have received only half of the change; twice as long at most. A proxy takes in a
/// change in well under a second.
const SETTLE: Duration = Duration::from_secs(10);

/// Follows `source` for as long as it reports; then its last report stays in force. `statuses`
/// learns which objects' conditions changed.
pub async fn follow(
    translator: Arc<Translator>,
    mut source: impl Source,
    statuses: Option<Statuses>,
) {
    let statuses = statuses.as_ref();
    let log = Mutex::new(ConditionLog::default());
    let log = || log.lock().unwrap_or_else(PoisonError::into_inner);
    let following = async {
        loop {
            match source.next().await {
                Ok(observed) => {
                    let objects = publish(&translator, observed, statuses);
                    let objects = objects.iter().map(|id| &**id);
                    log().changed(&translator.state().mesh, objects);
                }
                Err(error) => break error,
            }
        }
    };
    let settling = async {
        loop {
            tokio::time::sleep(SETTLE).await;
            let objects = translator.settle();
            log().age(&translator.state().mesh);
            if let Some(statuses) = statuses {
                statuses.add(objects.iter().map(|id| &**id));
            }
        }
    };
    let error = tokio::select! {
        error = following => error,
        never = settling => never,
    };
    tracing::error!(%error, source = source.name(), "changes are not followed any more");
}

fn publish_first(translator: &Translator, observed: Observed, statuses: Option<&Statuses>) {
    let objects = publish(translator, observed, statuses);
    condition_log::log_all(&translator.state().mesh, objects.iter().map(|id| &**id));
}

/// Returns the objects whose conditions may have changed.
fn publish(
    translator: &Translator,
    observed: Observed,
    statuses: Option<&Statuses>,
) -> BTreeSet<Arc<ObjectId>> {
    for error in observed.errors.iter().flatten() {
        tracing::error!("{error}");
    }
    let changed = observed.delta.set.len() + observed.delta.removed.len();
    let objects = translator.apply(observed);
    if let Some(statuses) = statuses {
        statuses.add(objects.iter().map(|id| &**id));
    }
    let generation = translator.state().generation;
    tracing::info!(generation, changed, "configuration read");
    objects
}

impl Declared for Translator {
    fn objects(&self) -> Objects {
        let state = self.state();
        let error = |error: &crate::source::FileError| FileError {
            file: error.file.clone(),
            line: u32::try_from(error.line).unwrap_or(u32::MAX),
            field: error.field.clone(),
            message: error.message.clone(),
            namespace: error
                .about
                .as_ref()
                .map(|about| about.object().key.namespace.clone())
                .unwrap_or_default(),
        };
        Objects {
            objects: findings::objects(&state),
            file_errors: state.file_errors.iter().map(error).collect(),
            generation: state.generation,
            unreachable_replicas: Vec::new(),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        findings::findings(&self.state().mesh)
    }

    fn declarations(&self, namespace: &str, service: &str) -> Vec<ports::Declaration> {
        let state = self.state();
        let service = state
            .mesh
            .service(&crate::model::Key::new(namespace, service));
        service.map_or_else(Vec::new, |service| ports::declarations(service))
    }

    fn ports_at(&self, address: IpAddr) -> Option<DeclaredPorts> {
        findings::ports_at(&self.state().mesh, address)
    }

    fn uncovered(&self, at: SocketAddr) -> Vec<String> {
        findings::uncovered(&self.state().mesh, at)
    }

    fn cluster_domain(&self) -> String {
        self.state().mesh.options.cluster_domain.clone()
    }

    fn workloads(&self, namespace: &str) -> Vec<DeclaredWorkload> {
        let state = self.state();
        let origin = |id: &ObjectId| {
            let status = state.mesh.statuses.get(id);
            status
                .map(|status| status.origin.to_string())
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
                file: origin(&ObjectId {
                    kind: crate::model::Kind::Workload,
                    key: key.clone(),
                }),
            }
        };
        let all = state.mesh.workloads.iter();
        let shown = all.filter(|(key, _)| namespace.is_empty() || key.namespace == namespace);
        let mut workloads: Vec<_> = shown.collect();
        workloads.sort_by_key(|(key, _)| *key);
        workloads.into_iter().map(workload).collect()
    }
}
