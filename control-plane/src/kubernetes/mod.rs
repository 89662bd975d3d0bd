//! Objects that the control plane writes to its cluster, and calls of the API server. The source of
//! manifests is [`crate::source::kubernetes`].
//!
//! - [`root_secret`]: the mesh's root, made once; [`root_config_map`]: its certificate for pods;
//!   [`ca_bundle`]: the same for the API server, which calls the webhook and the aggregated API
//! - [`token_review`]: the pod that a token belongs to
//! - [`front_proxy`]: the user of a request that the API server forwards; [`access_review`]: what they may
//! - [`candidate`]: leader election by a Lease (no I/O); [`leadership`]: renews the Lease, starts and
//!   stops writers
//! - [`call`]: a call's deadline, right and failure
//!
//! All state is in the API server's objects: a new replica needs nothing of an earlier one.
//! docs/kubernetes.md lists the rights that each part uses, the chart (deploy/helm/anyam/templates/rbac.yaml) grants them.
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

pub mod access_review;
pub mod ca_bundle;
pub mod call;
pub mod candidate;
pub mod front_proxy;
pub mod leadership;
pub mod root_config_map;
pub mod root_secret;
pub mod token_review;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::ca_bundle::HasCaBundle;
use self::leadership::{Election, Leadership};
use self::root_config_map::RootPublication;
use self::root_secret::OpenedRoot;
use crate::ca::CaError;
use crate::metrics::Metrics;
use crate::supervise::{LongLivedTasks, TaskEnded};

/// What the API server records as the writer of fields.
const MANAGER: &str = "anyam-control";
/// The label of objects that we make.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A pod's own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where nothing says which.
const NAMESPACE: &str = "anyam-system";

/// Before work begins again that panicked.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// For the Lease to be released.
const STOP: Duration = Duration::from_secs(4);

fn from_now(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or(now)
}

/// What a replica keeps in the cluster.
#[derive(Clone, Debug)]
pub struct KeptObjects {
    /// The control plane's.
    pub namespace: String,
    /// The ConfigMap's name.
    pub config_map: String,
    /// Namespaces that have no pods of the mesh.
    pub excluded_namespaces: Vec<String>,
    /// The MutatingWebhookConfiguration; `None`: there is no webhook.
    pub webhook: Option<String>,
    /// The APIService; `None`: there is no aggregated API.
    pub api_service: Option<String>,
}

/// The namespace of the control plane, where the command line does not say: `$POD_NAMESPACE`, else that
/// of the pod's service account, else `anyam-system`.
pub fn namespace() -> String {
    let named = std::env::var("POD_NAMESPACE").ok();
    let named = named.or_else(|| std::fs::read_to_string(NAMESPACE_FILE).ok());
    let named = named.map(|text| text.trim().to_owned());
    named
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| NAMESPACE.to_owned())
}

/// The pod that this runs in; empty where the environment does not say.
pub fn pod_name() -> String {
    std::env::var("POD_NAME").unwrap_or_default()
}

/// Reconciles the objects that the control plane has in the cluster, while it runs.
pub struct Reconciler {
    leadership: Leadership,
    election: LongLivedTasks,
    tasks: LongLivedTasks,
    closing: watch::Sender<bool>,
}

/// # Errors
/// When there are no random bytes.
pub fn keep(
    client: Client,
    objects: KeptObjects,
    root: OpenedRoot,
    metrics: &Arc<Metrics>,
) -> Result<Reconciler, CaError> {
    let KeptObjects {
        namespace,
        config_map,
        excluded_namespaces,
        webhook,
        api_service,
    } = objects;
    let (leads, told) = watch::channel(false);
    let (closing, closed) = watch::channel(false);
    let leadership = Leadership::of(told);
    let identity = leadership::identity()?;
    let shown = metrics.leader.clone();
    let candidate = Election::new(client.clone(), &namespace, identity, leads, shown);
    let mut election = LongLivedTasks::default();
    election.spawn("keeping the Lease", candidate.run(closed));
    let mut tasks = LongLivedTasks::default();
    let root_pem = root.authority.root_pem().to_owned();
    let publication = RootPublication {
        name: config_map,
        root: root_pem.clone(),
        excluded: excluded_namespaces,
    };
    let of = client.clone();
    let published = led("root ConfigMap", &leadership, move || {
        root_config_map::publish(of.clone(), publication.clone())
    });
    tasks.spawn("publishing the root", published);
    let bundle = (client, root_pem);
    if let Some(webhook) = webhook {
        let kept = keep_bundle::<MutatingWebhookConfiguration>(&bundle, &leadership, webhook);
        tasks.spawn("keeping the webhook's caBundle", kept);
    }
    if let Some(api_service) = api_service {
        let kept = keep_bundle::<APIService>(&bundle, &leadership, api_service);
        tasks.spawn("keeping the APIService's caBundle", kept);
    }
    tasks.spawn(
        "following the root's Secret",
        root.follow(leadership.clone()),
    );
    Ok(Reconciler {
        leadership,
        election,
        tasks,
        closing,
    })
}

fn keep_bundle<K: HasCaBundle>(
    (client, root): &(Client, String),
    leadership: &Leadership,
    name: String,
) -> impl Future<Output = ()> + Send + 'static {
    let (client, root) = (client.clone(), root.clone());
    led(K::KEEPING, leadership, move || {
        ca_bundle::keep::<K>(client.clone(), name.clone(), root.clone())
    })
}

/// Work of a leader, begun again when it panics.
fn led<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    leadership: &Leadership,
    mut work: impl FnMut() -> F + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let begin = move || {
        let work = work();
        async move {
            // Dropped with this future, which ends the task.
            let mut task = JoinSet::new();
            task.spawn(work);
            if let Some(Err(error)) = task.join_next().await {
                tracing::error!(%error, "{name}: its task ended; it begins again");
                tokio::time::sleep(AFTER_PANIC).await;
            }
        }
    };
    leadership.clone().while_leading(begin)
}

impl Reconciler {
    /// For other writers: only the leader writes.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until something that it does ends by itself.
    pub async fn ended(&mut self) -> TaskEnded {
        tokio::select! {
            ended = self.election.ended() => ended,
            ended = self.tasks.ended() => ended,
        }
    }

    /// Ends what writes, then releases the Lease, so that another replica leads at once. Some seconds
    /// at most.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.closing.send_replace(true);
        if tokio::time::timeout(STOP, self.election.join())
            .await
            .is_err()
        {
            self.election.shutdown().await;
        }
    }
}
