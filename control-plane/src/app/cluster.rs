//! A control plane of a cluster. Its root, what admits its pods, and who leads are objects of the cluster;
//! so are the addresses of Services. On disk is the API's token only, for `anyam` beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::temporary::TemporaryDir;
use super::{App, AppError, mesh_options, same};
use crate::aggregated::{self, AggregatedOptions};
use crate::args::ServeArgs;
use crate::ca::private;
use crate::ca::service::FirstCredential;
use crate::declared;
use crate::inject::settings::MeshSettings;
use crate::kubernetes::root_secret::RootSecret;
use crate::kubernetes::token_review::TokenReviews;
use crate::kubernetes::{self, KeptObjects};
use crate::metrics::Metrics;
use crate::model::manifest::values::Cidr;
use crate::model::{MeshOptions, ObjectId};
use crate::replicas::{self, ReplicasOptions, addresses};
use crate::server::{Issuing, Options, StartError};
use crate::source::kubernetes::Cluster;
use crate::source::kubernetes::connect::{self, Access};
use crate::source::kubernetes::status::writer::StatusWriter;

/// Which cluster, and what is kept in it.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub access: Access,
    /// Of tokens of pods.
    pub token_audience: String,
    pub objects: KeptObjects,
    /// Addresses that Workloads may have.
    pub machine_ranges: Vec<Cidr>,
    /// `None`: there is no aggregated API.
    pub aggregated: Option<AggregatedOptions>,
    /// `None`: other replicas are not asked, and cannot ask.
    pub replicas: Option<ReplicasOptions>,
}

impl ClusterOptions {
    /// `injection`: the webhook's settings, if there is one.
    pub(super) fn new(
        args: &ServeArgs,
        injection: Option<&MeshSettings>,
    ) -> Result<Self, AppError> {
        let names = args.names.clone();
        let args = &args.cluster;
        let namespace = args.namespace.clone();
        let namespace = namespace.unwrap_or_else(kubernetes::namespace);
        let aggregated = args.aggregated_listen.map(|listen| AggregatedOptions {
            listen,
            names,
            pod: kubernetes::pod_name(),
            namespace: namespace.clone(),
        });
        let audience = &args.token_audience;
        if let Some(settings) = injection {
            let here = ("--token-audience", &**audience);
            same("tokenAudience", &settings.token_audience, here)?;
        }
        let settings = injection.cloned().unwrap_or_default();
        Ok(ClusterOptions {
            access: Access {
                kubeconfig: args.kubeconfig.clone(),
                context: args.kube_context.clone(),
            },
            token_audience: audience.clone(),
            machine_ranges: args.workload_cidrs.clone(),
            objects: KeptObjects {
                namespace,
                config_map: settings.ca_config_map,
                excluded_namespaces: settings.excluded_namespaces,
                webhook: injection.is_some().then(|| args.webhook_name.clone()),
                api_service: aggregated
                    .as_ref()
                    .map(|_| aggregated::API_SERVICE.to_owned()),
            },
            aggregated,
            replicas: args
                .replicas_listen
                .map(|listen| ReplicasOptions { listen }),
        })
    }
}

impl App {
    /// Waits until the root can be read or made, and everything in the cluster is listed, however long
    /// that takes.
    ///
    /// # Errors
    /// When nothing says where the cluster is, the root's Secret has something else, or a socket can't
    /// be opened.
    pub async fn start_in_cluster(
        cluster: ClusterOptions,
        options: Options,
    ) -> Result<Self, AppError> {
        let ClusterOptions {
            access,
            token_audience,
            objects,
            machine_ranges,
            aggregated,
            replicas,
        } = cluster;
        let namespace = objects.namespace.clone();
        private::directory(&options.state_dir)?;
        if options.state_dir.join("ca").exists() {
            tracing::warn!(
                "the root in {} is not used: a cluster's is in its Secret {}",
                options.state_dir.join("ca").display(),
                kubernetes::root_secret::NAME
            );
        }
        let client = connect::client(&access).await?;
        let root = RootSecret::new(client.clone(), &objects.namespace);
        let root = root.open(&options.trust_domain, options.lifetimes).await?;
        let source = Cluster::new(client.clone(), "Kubernetes").machines_in(machine_ranges);
        let statuses = source.statuses();
        let model = MeshOptions {
            root_namespace: objects.namespace.clone(),
            ..mesh_options(&options)
        };
        let (translator, source) = declared::list(source, model).await?;
        let metrics = Arc::new(Metrics::new().map_err(StartError::from)?);
        let reviews = TokenReviews::new(client.clone(), token_audience, Arc::clone(&metrics));
        let issuing = Issuing {
            authority: Arc::clone(&root.authority),
            first: FirstCredential::pod_token(Arc::new(reviews)),
        };
        let options = (options, Some(issuing));
        let source = (source, Some(statuses.clone()));
        let mut app = Self::follow(translator, source, options, Arc::clone(&metrics)).await?;
        let keeper = kubernetes::keep(client.clone(), objects, root, &metrics)?;
        let translator = Arc::clone(&app.translator);
        let lookup = move |id: &ObjectId| translator.state().mesh.statuses.get(id).cloned();
        if let Some(options) = replicas {
            let (found, addresses) = watch::channel(Vec::new());
            let own = kubernetes::pod_name();
            let following = addresses::follow(client.clone(), namespace, own, found);
            app.tasks.spawn("following the other replicas", following);
            let shown = Arc::clone(&app.running.shown);
            app.replicas = Some(replicas::start(options, shown, addresses).await?);
        }
        if let Some(options) = aggregated {
            let (shown, dashboard) = (Arc::clone(&app.running.shown), app.running.api);
            let client = client.clone();
            app.aggregated = Some(aggregated::start(options, client, shown, dashboard).await?);
        }
        let writer = StatusWriter::new(client, statuses, Box::new(lookup));
        let writing = writer.run(keeper.leadership().watched());
        app.tasks.spawn("writing statuses", writing);
        app.keeper = Some(keeper);
        Ok(app)
    }
}

/// The folder that is named, else, in a cluster, a temporary one.
pub(super) fn state_dir(
    named: Option<&Path>,
    in_cluster: bool,
) -> Result<(PathBuf, Option<TemporaryDir>), AppError> {
    match named {
        Some(path) => Ok((path.to_owned(), None)),
        None if in_cluster => {
            let made = TemporaryDir::new().map_err(AppError::Temporary)?;
            Ok((made.path.clone(), Some(made)))
        }
        None => Err(AppError::Missing("--state-dir")),
    }
}
