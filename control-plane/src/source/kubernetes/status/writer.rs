//! Writes statuses, while this control plane is the leader: one after the other, at a bounded rate,
//! only where the present status differs. Each write has the resourceVersion of a read just before, so
//! that it conflicts with a concurrent write of another controller, and overwrites none.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use super::Statuses;
use super::document::DesiredStatus;
use super::failed::FailedStatuses;
use super::rate::TokenBucket;
use crate::model::mesh::status::ObjectStatus;
use crate::model::{Kind, ObjectId};
use crate::source::kubernetes::kinds::WatchedKind;
use crate::source::kubernetes::watch::served;

const FIELD_MANAGER: &str = "anyam-control";
/// Writes at once, and in a second.
const BURST: u32 = 50;
const PER_SECOND: u32 = 20;
/// Attempts for one object, on conflicts.
const ATTEMPTS: usize = 5;
/// For a response of the API server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP status codes.
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
const INVALID: u16 = 422;

/// The status of an object in the newest state of the mesh.
pub type StatusLookup = Box<dyn Fn(&ObjectId) -> Option<Arc<ObjectStatus>> + Send + Sync>;

/// Why a status was not written. The text does not name the object, so that it is the same for all
/// that fail for the same reason.
#[derive(Debug, thiserror::Error)]
pub enum StatusWriteError {
    #[error("{advice} ({})", answer(.source))]
    Api {
        advice: &'static str,
        source: Box<kube::Error>,
    },
    #[error("the API server does not answer within {} s", TIMEOUT.as_secs())]
    Silent,
    #[error("too many conflicts with other writers")]
    Contended,
}

impl From<kube::Error> for StatusWriteError {
    fn from(source: kube::Error) -> Self {
        let advice = match code(&source) {
            Some(FORBIDDEN) => {
                "may not be written: let the control plane's service account get it and patch its status"
            }
            _ => "cannot be written now",
        };
        StatusWriteError::Api {
            advice,
            source: Box::new(source),
        }
    }
}

/// An error without the API server's message, which names the object.
fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        other => other.to_string(),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// See the module.
pub struct StatusWriter {
    client: Client,
    statuses: Statuses,
    lookup: StatusLookup,
    rate: TokenBucket,
    resources: HashMap<Kind, ApiResource>,
}

impl fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusWriter").finish_non_exhaustive()
    }
}

impl StatusWriter {
    pub fn new(client: Client, statuses: Statuses, lookup: StatusLookup) -> Self {
        StatusWriter {
            client,
            statuses,
            lookup,
            rate: TokenBucket::new(BURST, PER_SECOND, Instant::now()),
            resources: HashMap::new(),
        }
    }

    /// Writes while `leads` is true. If the sender is dropped, its last value stays in force. Returns
    /// only if that is false.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>) {
        while leads.wait_for(|leads| *leads).await.is_ok() {
            self.statuses.add_all();
            tokio::select! {
                () = deposed(&mut leads) => {}
                () = self.write_all() => {}
            }
        }
    }

    /// Never ends.
    async fn write_all(&mut self) {
        let mut failed = FailedStatuses::new();
        loop {
            let id = tokio::select! {
                id = self.statuses.next() => id,
                () = until(failed.again()) => {
                    let exists = |id: &ObjectId| self.statuses.reported(id).is_some();
                    self.statuses.add(failed.retry(exists));
                    continue;
                }
            };
            match self.write(&id).await {
                Ok(()) => failed.succeeded(&id),
                Err(error) => {
                    let source = error.source();
                    tracing::debug!(object = %id, %error, source, "its status was not written");
                    failed.failed(id, &error, Instant::now());
                }
            }
        }
    }

    /// Writes the status of an object if it differs.
    async fn write(&mut self, id: &ObjectId) -> Result<(), StatusWriteError> {
        let Some(reported) = self.statuses.reported(id) else {
            return Ok(());
        };
        let (unread, status) = (self.statuses.unread(id), (self.lookup)(id));
        let desired = match (&unread, &status) {
            (Some(version), _) => DesiredStatus::of_unread(id.kind, version),
            (None, Some(status)) if status.origin.is_of(id.kind.name()) => {
                DesiredStatus::of(status)
            }
            // Or the model has a Pod of this name in place of the Workload.
            (None, _) => return Ok(()),
        };
        if desired.merge(&reported, &now()).is_none() {
            return Ok(());
        }
        let Some(resource) = self.resource(id.kind).await? else {
            return Ok(());
        };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &id.key.namespace, &resource);
        for _ in 0..ATTEMPTS {
            sleep(self.rate.take(Instant::now())).await;
            let attempt = timeout(TIMEOUT, attempt(&api, &id.key.name, &desired)).await;
            let error = match attempt.map_err(|_| StatusWriteError::Silent)? {
                Ok(written) => {
                    if written {
                        self.statuses.written(id);
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            match code(&error) {
                Some(CONFLICT) => {}
                // The object is deleted, or its kind has no status subresource.
                Some(NOT_FOUND) => {
                    self.resources.remove(&id.kind);
                    return Ok(());
                }
                Some(INVALID) => {
                    self.statuses.written(id);
                    tracing::warn!(object = %id, %error, "the API server rejects its status");
                    return Ok(());
                }
                _ => return Err(error.into()),
            }
        }
        Err(StatusWriteError::Contended)
    }

    /// The version in which the API server serves a kind.
    async fn resource(&mut self, kind: Kind) -> Result<Option<ApiResource>, StatusWriteError> {
        if let Some(known) = self.resources.get(&kind) {
            return Ok(Some(known.clone()));
        }
        let found = timeout(TIMEOUT, served(&self.client, WatchedKind::Manifest(kind))).await;
        let found = found.map_err(|_| StatusWriteError::Silent)??;
        self.resources
            .extend(found.clone().map(|found| (kind, found)));
        Ok(found)
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns when this control plane is not the leader any more.
async fn deposed(leads: &mut watch::Receiver<bool>) {
    if leads.wait_for(|leads| !*leads).await.is_err() {
        std::future::pending().await
    }
}

/// Reads an object, and patches its status if that differs; returns whether it did.
async fn attempt(
    api: &Api<DynamicObject>,
    name: &str,
    desired: &DesiredStatus<'_>,
) -> Result<bool, kube::Error> {
    let object = api.get(name).await?;
    let status = object.data.get("status").unwrap_or(&Json::Null);
    // The watch will report the change that it belongs to, and queue the object again.
    if desired.is_outdated(object.metadata.generation) {
        return Ok(false);
    }
    let Some(merged) = desired.merge(status, &now()) else {
        return Ok(false);
    };
    let patch = json!({
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "status": merged,
    });
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &parameters, &Patch::Merge(patch))
        .await?;
    Ok(true)
}

/// RFC 3339 in whole seconds, as Kubernetes writes times.
fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_missing_right_has_one_text_for_all_objects() {
        let error = |name: &str| {
            let message = format!("httproutes \"{name}\" is forbidden: User \"u\" cannot patch");
            let status = Status::failure(&message, "Forbidden").with_code(FORBIDDEN);
            StatusWriteError::from(kube::Error::Api(Box::new(status)))
        };
        let text = error("a").to_string();
        assert!(text.ends_with("patch its status (403 Forbidden)"), "{text}");
        assert_eq!(text, error("b").to_string());
    }
}
