//! The objects of one kind: listed in pages, then watched from that version on with bookmarks, for
//! as long as the control plane runs. Failures are logged and retried with a back-off and jitter;
//! meanwhile the objects stay as they were last reported.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::decode::{Manifest, Node, Pod};
use super::kinds::WatchedKind;
use super::status::{self, document};
use super::{lenient, pod};
use crate::model::manifest::object::{Key, Kind};
use crate::model::manifest::read::Object;
use crate::model::manifest::workload::{Locality, Workload};
use crate::model::mesh::change::ClusterDetails;
use crate::source::absence;

/// Seconds after which a watch ends and resumes at its last version: a server that sends nothing
/// for longer is unreachable.
const WATCH: u32 = 60;
/// All objects are listed again this often, in case events were missed.
const RESYNC: Duration = Duration::from_secs(3600);

/// Times to wait.
#[derive(Clone, Copy, Debug)]
struct Waits {
    /// For the API server to answer which kinds it has.
    answer: Duration,
    /// Before a kind is requested again that was not found, or whose request failed.
    again: Duration,
    /// Before a custom resource is looked for again that is not installed.
    absent: Duration,
    /// After this the objects of a kind that is no longer served are removed. An API server that
    /// starts may not serve a custom resource yet, and a moment without policies would let
    /// everything through.
    withdrawn: Duration,
}

const WAITS: Waits = Waits {
    answer: Duration::from_secs(30),
    again: Duration::from_secs(2),
    absent: Duration::from_secs(5),
    withdrawn: absence::FOLDER,
};

/// HTTP status codes; a 404 for an unknown path has no other reason in its body.
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;

/// A change to the objects of a kind.
#[derive(Debug)]
pub enum Event {
    /// A list begins: objects that are not in it when it is [`Event::Listed`] do not exist any
    /// more.
    Listing(WatchedKind),
    Set(WatchedKind, Key, Decoded),
    Gone(WatchedKind, Key),
    Listed(WatchedKind),
    /// The API server does not have the kind now, which had objects; they are kept.
    Missing(WatchedKind),
    /// The API server was asked for a ConfigMap; before this comes what it has.
    Looked(Key),
}

/// What is kept of an object.
#[derive(Debug)]
pub enum Decoded {
    Node(Option<Locality>),
    /// `None`: a pod without an address, or that has ended.
    Pod(Option<Box<Workload>>),
    Manifest {
        /// `None`: nothing of it can be used.
        object: Option<Object>,
        details: ClusterDetails,
        /// Our part of what its status says, of kinds whose status is written.
        status: Option<Json>,
    },
}

/// Ends when the receiver is gone.
pub async fn follow(client: Client, watched: WatchedKind, to: mpsc::Sender<Event>) {
    follow_with(WAITS, client, watched, to).await;
}

async fn follow_with(waits: Waits, client: Client, watched: WatchedKind, to: mpsc::Sender<Event>) {
    let mut there = CrdState::default();
    loop {
        let resource = match timeout(waits.answer, served(&client, watched)).await {
            Ok(Ok(resource)) => resource,
            Ok(Err(error)) => {
                tracing::warn!(kind = %watched, %error, "requesting the kind from the API server failed; trying again");
                sleep(waits.again).await;
                continue;
            }
            Err(_) => {
                tracing::warn!(kind = %watched, "the API server did not answer within {:?}; trying again", waits.answer);
                sleep(waits.again).await;
                continue;
            }
        };
        let Some(resource) = resource else {
            if there.holds(waits, &client, watched).await {
                if to.send(Event::Missing(watched)).await.is_err() {
                    return;
                }
                sleep(waits.again).await;
                continue;
            }
            for event in [Event::Listing(watched), Event::Listed(watched)] {
                if to.send(event).await.is_err() {
                    return;
                }
            }
            sleep(waits.absent).await;
            continue;
        };
        there = CrdState::Served;
        let ended = match watched {
            WatchedKind::Node => objects(&client, &resource, watched, &to, node).await,
            WatchedKind::Pod => objects(&client, &resource, watched, &to, workload).await,
            WatchedKind::Manifest(_) => {
                objects(&client, &resource, watched, &to, manifest(watched)).await
            }
        };
        match ended {
            Ended::Closed => return,
            Ended::Resync => continue,
            Ended::NotFound => {}
        }
        sleep(waits.again).await;
    }
}

/// Whether the API server serves a kind, so that its objects are reported.
#[derive(Clone, Copy, Debug, Default)]
enum CrdState {
    #[default]
    Absent,
    Served,
    /// The API server has not served the kind since then; its objects are kept.
    Missing(Instant),
}

impl CrdState {
    /// Called when the API server does not serve the kind. Returns whether its objects are kept.
    async fn holds(&mut self, waits: Waits, client: &Client, watched: WatchedKind) -> bool {
        let since = match *self {
            CrdState::Absent => return false,
            CrdState::Served => Instant::now(),
            CrdState::Missing(since) => since,
        };
        let asked = timeout(waits.answer, is_deleted(client, watched)).await;
        if asked.unwrap_or(false) {
            tracing::warn!(kind = %watched, "their CustomResourceDefinition is deleted, so all of them are gone");
            *self = CrdState::Absent;
        } else if since.elapsed() >= waits.withdrawn {
            tracing::error!(kind = %watched, "the API server has not served this kind for {:?}: its objects are not in force any more", waits.withdrawn);
            *self = CrdState::Absent;
        } else if matches!(self, CrdState::Served) {
            tracing::error!(kind = %watched, "the API server does not serve this kind any more; its objects stay in force for {:?}", waits.withdrawn);
            *self = CrdState::Missing(since);
        }
        !matches!(self, CrdState::Absent)
    }
}

/// Whether a kind's CustomResourceDefinition is seen to be gone.
async fn is_deleted(client: &Client, watched: WatchedKind) -> bool {
    let Some(resource) = watched.resources().next() else {
        return false;
    };
    let name = format!("{}.{}", resource.plural, resource.group);
    let definitions = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    matches!(api.get_metadata_opt(&name).await, Ok(None))
}

/// In which version the API server has a kind. `None`: in none, so its CustomResourceDefinition is
/// not there (yet).
pub(super) async fn served(
    client: &Client,
    watched: WatchedKind,
) -> Result<Option<ApiResource>, kube::Error> {
    for resource in watched.resources() {
        if watched.is_builtin() {
            return Ok(Some(resource));
        }
        match client.list_api_group_resources(&resource.api_version).await {
            Ok(list) if list.resources.iter().any(|it| it.name == resource.plural) => {
                return Ok(Some(resource));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Why a watch ended.
enum Ended {
    /// The receiver is gone.
    Closed,
    /// The API server has no such resource any more.
    NotFound,
    Resync,
}

/// Reports the objects of a kind until the watch must begin anew.
async fn objects<K>(
    client: &Client,
    resource: &ApiResource,
    watched: WatchedKind,
    to: &mpsc::Sender<Event>,
    of: impl Fn(&Key, K) -> Decoded,
) -> Ended
where
    K: Resource<DynamicType = ApiResource> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<K> = Api::all_with(client.clone(), resource);
    let config = watcher::Config::default().timeout(WATCH);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut failing = false;
    let resync = Instant::now() + RESYNC;
    while let Ok(Some(event)) = timeout_at(resync, events.next()).await {
        let event = match event {
            Ok(event) => event,
            Err(error) if is_not_found(&error) => return Ended::NotFound,
            Err(error) => {
                failing = true;
                tracing::warn!(kind = %watched, %error, "{}", advice(&error));
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!(kind = %watched, "the API server answers again");
        }
        let event = match event {
            watcher::Event::Init => Event::Listing(watched),
            watcher::Event::InitDone => Event::Listed(watched),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                let key = key(object.meta());
                let found = of(&key, object);
                Event::Set(watched, key, found)
            }
            watcher::Event::Delete(object) => Event::Gone(watched, key(object.meta())),
        };
        if to.send(event).await.is_err() {
            return Ended::Closed;
        }
    }
    Ended::Resync
}

const CONFIG_MAPS: WatchedKind = WatchedKind::Manifest(Kind::ConfigMap);

/// Follows one ConfigMap. Ends when the receiver is gone.
pub async fn follow_config_map(client: Client, key: Key, to: mpsc::Sender<Event>) {
    let Some(resource) = CONFIG_MAPS.resources().next() else {
        return;
    };
    let api: Api<Manifest> = Api::namespaced_with(client, &key.namespace, &resource);
    let config = watcher::Config::default().timeout(WATCH);
    let config = config.fields(&format!("metadata.name={}", key.name));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let decode = manifest(CONFIG_MAPS);
    let (mut found, mut failing) = (false, false);
    while let Some(event) = events.next().await {
        let failed_before = std::mem::replace(&mut failing, event.is_err());
        let event = match event {
            Ok(watcher::Event::Init) => {
                found = false;
                continue;
            }
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                found = true;
                Event::Set(CONFIG_MAPS, key.clone(), decode(&key, object))
            }
            Ok(watcher::Event::InitDone) if found => Event::Looked(key.clone()),
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => {
                Event::Gone(CONFIG_MAPS, key.clone())
            }
            // Else the first report would wait for a right that was not granted.
            Err(error) => {
                if !failed_before {
                    tracing::warn!(config_map = %key, %error, "{}", advice(&error));
                }
                match status_of(&error) {
                    Some(status) if status.code == FORBIDDEN => Event::Looked(key.clone()),
                    _ => continue,
                }
            }
        };
        let gone = matches!(event, Event::Gone(..));
        if to.send(event).await.is_err() {
            return;
        }
        if gone && to.send(Event::Looked(key.clone())).await.is_err() {
            return;
        }
    }
}

/// The namespace is empty for objects that have none.
fn key(meta: &ObjectMeta) -> Key {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Key::new(text(&meta.namespace), text(&meta.name))
}

fn node(_: &Key, object: Node) -> Decoded {
    Decoded::Node(pod::locality(&object.about.labels))
}

fn workload(key: &Key, object: Pod) -> Decoded {
    let workload = pod::workload((&key.namespace, &key.name), object);
    Decoded::Pod(workload.map(Box::new))
}

fn manifest(watched: WatchedKind) -> impl Fn(&Key, Manifest) -> Decoded {
    move |_, manifest| {
        let WatchedKind::Manifest(kind) = watched else {
            return Decoded::Manifest {
                object: None,
                details: ClusterDetails::default(),
                status: None,
            };
        };
        let (object, left_out) = lenient::read(kind, manifest.node);
        let written = status::is_written(kind);
        Decoded::Manifest {
            object,
            details: ClusterDetails {
                generation: manifest.generation.filter(|_| written),
                left_out,
            },
            status: written.then(|| document::own_part(kind, &manifest.status)),
        }
    }
}

fn status_of(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    status_of(error).is_some_and(|status| status.code == NOT_FOUND)
}

fn advice(error: &watcher::Error) -> &'static str {
    match status_of(error) {
        Some(status) if status.code == FORBIDDEN => {
            "may not be read: let the control plane's service account get, list and watch it (an API server that has just started answers so until it has read its roles)"
        }
        // A resourceVersion that is too old: everything is listed again.
        Some(status) if status.code == GONE => "is listed again",
        _ => "cannot be watched now and is retried; its objects stay as they were last",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use bytes::Bytes;
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::Kind;

    const TIMEOUT: Duration = Duration::from_secs(20);
    const POLICIES: WatchedKind = WatchedKind::Manifest(Kind::MeshPolicy);
    const SOON: Waits = Waits {
        answer: Duration::from_millis(50),
        again: Duration::from_millis(5),
        absent: TIMEOUT,
        withdrawn: Duration::from_millis(400),
    };

    /// An API server: what it answers by path and query.
    fn api<F>(answer: impl Fn(String) -> F + Send + 'static) -> Client
    where
        F: Future<Output = (u16, Json)> + Send + 'static,
    {
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = answer(request.uri().to_string());
            async move {
                let (status, body) = answer.await;
                let mut response = http::Response::new(Full::new(Bytes::from(body.to_string())));
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    fn refused(code: u16, reason: &str) -> (u16, Json) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code,
        });
        (code, status)
    }

    /// An API server that has a MeshPolicy, until that is watched; then the kind is gone.
    /// `definition`: its answer then for the CustomResourceDefinition.
    fn withdrawing(definition: (u16, &'static str)) -> Client {
        let is_served = Arc::new(AtomicBool::new(true));
        api(move |path| {
            let served = is_served.load(Relaxed);
            let answer = match path {
                path if path.contains("customresourcedefinitions") => {
                    assert!(path.contains("/meshpolicies.mesh.anyam.dev"), "{path}");
                    refused(definition.0, definition.1)
                }
                _ if !served => refused(404, "NotFound"),
                path if path.contains("watch=true") => {
                    is_served.store(false, Relaxed);
                    refused(404, "NotFound")
                }
                path if path.contains("/meshpolicies") => {
                    let policy = json!({
                        "metadata": {"name": "p", "namespace": "n"},
                        "spec": {"mtls": {"mode": "Strict"}},
                    });
                    let metadata = json!({"resourceVersion": "1"});
                    (200, json!({"metadata": metadata, "items": [policy]}))
                }
                _ => {
                    let resource = json!({
                        "name": "meshpolicies", "singularName": "meshpolicy", "kind": "MeshPolicy",
                        "namespaced": true, "verbs": ["list", "watch"],
                    });
                    let group = "mesh.anyam.dev/v1alpha1";
                    (200, json!({"groupVersion": group, "resources": [resource]}))
                }
            };
            std::future::ready(answer)
        })
    }

    /// How long the objects of a kind are kept after the API server stopped serving it.
    async fn kept(client: Client, waits: Waits) -> Duration {
        let (to, mut events) = mpsc::channel(16);
        let following = tokio::spawn(follow_with(waits, client, POLICIES, to));
        let mut next = async || {
            loop {
                let event = timeout(TIMEOUT, events.recv()).await.unwrap().unwrap();
                if !matches!(event, Event::Missing(POLICIES)) {
                    return event;
                }
            }
        };
        assert!(matches!(next().await, Event::Listing(_)));
        assert!(matches!(next().await, Event::Set(..)));
        assert!(matches!(next().await, Event::Listed(_)));
        let begun = Instant::now();
        assert!(matches!(next().await, Event::Listing(_)));
        let kept = begun.elapsed();
        assert!(matches!(next().await, Event::Listed(_)));
        following.abort();
        kept
    }

    #[tokio::test]
    async fn a_kind_that_is_missing_for_a_moment_keeps_its_objects() {
        let kept = kept(withdrawing((403, "Forbidden")), SOON).await;
        assert!(kept >= SOON.withdrawn, "{kept:?}");
    }

    #[tokio::test]
    async fn a_deleted_definition_takes_its_objects_with_it() {
        let waits = Waits {
            withdrawn: Duration::from_secs(3600),
            ..SOON
        };
        kept(withdrawing((404, "NotFound")), waits).await;
    }

    #[tokio::test]
    async fn a_request_without_a_response_is_sent_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (again, mut seen) = mpsc::channel(16);
        let count = Arc::clone(&asked);
        let client = api(move |_| {
            if count.fetch_add(1, Relaxed) == 2 {
                let _ = again.try_send(());
            }
            std::future::pending()
        });
        let (to, _events) = mpsc::channel(16);
        let following = tokio::spawn(follow_with(SOON, client, POLICIES, to));
        assert!(timeout(TIMEOUT, seen.recv()).await.is_ok());
        following.abort();
    }
}
