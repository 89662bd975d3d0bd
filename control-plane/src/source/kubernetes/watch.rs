//! The objects of one kind: listed in pages, then watched from that version on with bookmarks, for
//! as long as the control plane runs. Failures are logged and retried with a back-off and jitter;
//! meanwhile the objects stay as they were last reported.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::decode::{Manifest, Node, Pod};
use super::kinds::WatchedKind;
use super::{lenient, pod};
use crate::model::manifest::object::{FieldError, Key};
use crate::model::manifest::read::Object;
use crate::model::manifest::workload::{Locality, Workload};

/// Seconds after which a watch ends and resumes at its last version: a server that sends nothing
/// for longer is unreachable.
const WATCH: u32 = 60;
/// Everything is listed again this often, so that events that were missed are made up for.
const RESYNC: Duration = Duration::from_secs(3600);
/// How often a custom resource is looked for whose definition is missing.
const ABSENT: Duration = Duration::from_secs(5);
/// Pause before a kind is looked for again after a failed request, or a 404.
const AGAIN: Duration = Duration::from_secs(2);

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
        left_out: Vec<FieldError>,
    },
}

/// Ends when the receiver is gone.
pub async fn follow(client: Client, watched: WatchedKind, to: mpsc::Sender<Event>) {
    let mut was_there = false;
    loop {
        let resource = match served(&client, watched).await {
            Ok(resource) => resource,
            Err(error) => {
                tracing::warn!(kind = %watched, %error, "the API server cannot be asked whether it has the kind; trying again");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(resource) = resource else {
            // An API server that is starting may not serve the kind yet, so its objects are removed
            // only after a second look.
            if std::mem::take(&mut was_there) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            for event in [Event::Listing(watched), Event::Listed(watched)] {
                if to.send(event).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(ABSENT).await;
            continue;
        };
        was_there = true;
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
        tokio::time::sleep(AGAIN).await;
    }
}

/// The resource of a kind in the version that the API server has. `None`: it has none, because the
/// CustomResourceDefinition is missing.
async fn served(client: &Client, watched: WatchedKind) -> Result<Option<ApiResource>, kube::Error> {
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
                left_out: Vec::new(),
            };
        };
        let (object, left_out) = lenient::read(kind, manifest.node);
        Decoded::Manifest { object, left_out }
    }
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn is_not_found(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| status.code == NOT_FOUND)
}

fn advice(error: &watcher::Error) -> &'static str {
    match status(error) {
        Some(status) if status.code == FORBIDDEN => {
            "may not be read: let the control plane's service account get, list and watch it"
        }
        // A resourceVersion that is too old: everything is listed again.
        Some(status) if status.code == GONE => "is listed again",
        _ => "cannot be watched now and is retried; its objects stay as they were last",
    }
}
