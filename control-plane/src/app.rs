//! Composition: source → model → translation → servers, and the commands that print or write.
//!
//! - [`serve`]: reads the folder, or lists the cluster, once before anything is served, so that a
//!   start never removes from a proxy what is declared; then follows changes until a signal to stop, or
//!   until one of its tasks ends by itself.
//! - `cluster`: a control plane of a cluster, and what it keeps there; `temporary`: its state folder.
//! - `commands`: [`token`] and [`certificate`]; `error`: why one fails.

mod cluster;
mod commands;
mod error;
mod temporary;

pub use self::cluster::ClusterOptions;
pub use self::commands::{certificate, token};
pub use self::error::AppError;

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::aggregated::RunningAggregatedApi;
use crate::args::{InjectionArgs, ServeArgs};
use crate::ca::authority::Lifetimes;
use crate::ca::private;
use crate::context::{self, Context, Contexts};
use crate::declared;
use crate::inject::settings::MeshSettings;
use crate::inject::start::{self as injection, RunningWebhook};
use crate::kubernetes::Reconciler;
use crate::metrics::Metrics;
use crate::model;
use crate::replicas::RunningReplicas;
use crate::server::{self, Issuing, Options, Running, StartError};
use crate::source::Source;
use crate::source::kubernetes::status::Statuses;
use crate::source::watch::Watched;
use crate::supervise::{LongLivedTasks, TaskEnded};
use crate::translate::Translator;

/// A control plane that follows a source.
pub struct App {
    pub running: Running,
    pub translator: Arc<Translator>,
    /// Of a cluster.
    pub keeper: Option<Reconciler>,
    /// Likewise.
    pub aggregated: Option<RunningAggregatedApi>,
    /// Likewise.
    pub replicas: Option<RunningReplicas>,
    /// What follows the source, and what writes to it.
    tasks: LongLivedTasks,
}

impl App {
    /// # Errors
    /// When the folder can't be read, the state directory is not as it must be, or a socket can't
    /// be opened. Manifests with errors are no reason: what is good in them is served.
    pub async fn start(folder: &Path, options: Options) -> Result<Self, AppError> {
        std::fs::read_dir(folder).map_err(|source| AppError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        private::directory(&options.state_dir)?;
        let model = mesh_options(&options);
        let opened = declared::open_filled(folder, &options.state_dir, model).await;
        let (translator, folder) = opened?;
        let metrics = Metrics::new().map_err(StartError::from)?;
        let (options, metrics) = ((options, None), Arc::new(metrics));
        Self::follow(translator, (Watched::new(folder), None), options, metrics).await
    }

    async fn follow(
        translator: Arc<Translator>,
        (source, statuses): (impl Source, Option<Statuses>),
        (options, issuing): (Options, Option<Issuing>),
        metrics: Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let (resources, shown) = (Arc::clone(&translator), Arc::clone(&translator));
        let running = server::start_with(options, issuing, metrics, (resources, shown)).await?;
        let following = declared::follow(Arc::clone(&translator), source, statuses);
        let mut tasks = LongLivedTasks::default();
        tasks.spawn("following changes of the configuration", following);
        Ok(App {
            running,
            translator,
            keeper: None,
            aggregated: None,
            replicas: None,
            tasks,
        })
    }

    /// Waits until something that it does ends by itself. What is left must be stopped then: it would
    /// serve what is outdated.
    pub async fn ended(&mut self) -> TaskEnded {
        let App {
            running,
            tasks,
            keeper,
            aggregated,
            replicas,
            ..
        } = self;
        let keeping = async {
            match keeper {
                Some(keeper) => keeper.ended().await,
                None => pending().await,
            }
        };
        let aggregating = async {
            match aggregated {
                Some(aggregated) => aggregated.ended().await,
                None => pending().await,
            }
        };
        let answering = async {
            match replicas {
                Some(replicas) => replicas.ended().await,
                None => pending().await,
            }
        };
        tokio::select! {
            ended = tasks.ended() => ended,
            ended = running.ended() => ended,
            ended = keeping => ended,
            ended = aggregating => ended,
            ended = answering => ended,
        }
    }

    /// Gives up leadership, ends streams and closes sockets; some seconds at most.
    pub async fn stop(self) {
        let App {
            running,
            translator: _,
            keeper,
            aggregated,
            replicas,
            mut tasks,
        } = self;
        tasks.shutdown().await;
        let closed = async {
            if let Some(aggregated) = aggregated {
                aggregated.stop().await;
            }
        };
        let kept = async {
            if let Some(keeper) = keeper {
                keeper.stop().await;
            }
        };
        let left = async {
            if let Some(replicas) = replicas {
                replicas.stop().await;
            }
        };
        tokio::join!(kept, closed, left, running.stop());
    }
}

fn mesh_options(options: &Options) -> model::MeshOptions {
    model::MeshOptions {
        trust_domain: options.trust_domain.clone(),
        cluster_domain: options.cluster_domain.clone(),
        ..model::MeshOptions::default()
    }
}

/// The signals to stop.
struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ProcessSignals {
    fn new() -> Result<Self, AppError> {
        let listen = |kind| signal(kind).map_err(AppError::Signals);
        Ok(ProcessSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start, or one of its tasks ends by itself; then everything else was stopped, too.
pub async fn serve(args: ServeArgs) -> Result<(), AppError> {
    let webhook = webhook_options(&args)?;
    let settings = webhook.as_ref().map(|webhook| &webhook.settings);
    let cluster = match args.cluster.kubernetes {
        true => Some(ClusterOptions::new(&args, settings)?),
        false => None,
    };
    let (state_dir, temporary) = cluster::state_dir(args.state_dir.as_deref(), cluster.is_some())?;
    let options = server_options(&args, state_dir);
    let folder = args.config_dir;
    let context = args.context;
    let mut signals = ProcessSignals::new()?;
    let start = async {
        match (cluster, folder) {
            (Some(cluster), _) => App::start_in_cluster(cluster, options).await,
            (None, Some(folder)) => App::start(&folder, options).await,
            (None, None) => Err(AppError::Missing("--config-dir")),
        }
    };
    // A start may wait for the API server.
    let mut app = tokio::select! {
        app = start => app?,
        () = signals.received() => return Ok(()),
    };
    tracing::info!(
        xds = %app.running.xds,
        api = %app.running.api,
        token = %app.running.token_file.display(),
        "serving"
    );
    let mut webhook = match webhook {
        None => None,
        Some(webhook) => {
            let (authority, metrics) = (&app.running.authority, &app.running.metrics);
            Some(injection::start(webhook, Arc::clone(authority), Arc::clone(metrics)).await?)
        }
    };
    let context = write_context(&context, &app.running);
    let stopped = tokio::select! {
        () = signals.received() => Ok(()),
        ended = app.ended() => Err(ended),
        ended = webhook_ended(&mut webhook) => Err(ended),
    };
    match &stopped {
        Ok(()) => tracing::info!("stopping"),
        Err(ended) => tracing::error!(%ended, "stopping"),
    }
    if let Some((contexts, name)) = context {
        // A context that stays behind leads to a closed port, and the next start replaces it.
        let _ = contexts.remove(&name);
    }
    if let Some(webhook) = webhook {
        webhook.stop().await;
    }
    app.stop().await;
    drop(temporary);
    stopped.map_err(AppError::from)
}

async fn webhook_ended(webhook: &mut Option<RunningWebhook>) -> TaskEnded {
    match webhook {
        Some(webhook) => webhook.ended().await,
        None => pending().await,
    }
}

fn server_options(args: &ServeArgs, state_dir: PathBuf) -> Options {
    Options {
        state_dir,
        trust_domain: args.mesh.trust_domain.clone(),
        cluster_domain: args.cluster_domain.clone(),
        xds_listen: args.xds_listen,
        api_listen: args.api_listen,
        metrics_listen: args.metrics_listen,
        insecure_ads_listen: args.insecure_ads_listen,
        names: args.names.clone(),
        api_hosts: args.api_hosts.clone(),
        lifetimes: Lifetimes {
            default: args.certificate_ttl,
            max: args.max_certificate_ttl,
        },
        max_streams: args.max_streams,
        max_connections_per_address: args.max_connections_per_address,
        max_connection_age: args.max_connection_age,
    }
}

fn webhook_options(args: &ServeArgs) -> Result<Option<injection::WebhookOptions>, AppError> {
    let InjectionArgs {
        webhook_listen,
        injection_settings,
    } = &args.injection;
    let Some(listen) = *webhook_listen else {
        return Ok(None);
    };
    let settings = match injection_settings {
        Some(path) => MeshSettings::read(path)?,
        None => MeshSettings {
            trust_domain: args.mesh.trust_domain.clone(),
            cluster_domain: args.cluster_domain.clone(),
            token_audience: args.cluster.token_audience.clone(),
            ..MeshSettings::default()
        },
    };
    same(
        "trustDomain",
        &settings.trust_domain,
        ("--trust-domain", &args.mesh.trust_domain),
    )?;
    same(
        "clusterDomain",
        &settings.cluster_domain,
        ("--cluster-domain", &args.cluster_domain),
    )?;
    Ok(Some(injection::WebhookOptions {
        listen,
        names: args.names.clone(),
        settings,
    }))
}

/// What injection tells sidecars must be what the control plane goes by.
fn same(
    field: &'static str,
    there: &str,
    (flag, here): (&'static str, &str),
) -> Result<(), AppError> {
    match there == here {
        true => Ok(()),
        false => Err(AppError::Disagree {
            field,
            there: there.to_owned(),
            flag,
            here: here.to_owned(),
        }),
    }
}

/// For `anyam` of the same user, while this runs. A service account without a home has none.
fn write_context(name: &str, running: &Running) -> Option<(Contexts, String)> {
    if name.is_empty() {
        return None;
    }
    let mut api = running.api;
    if api.ip().is_unspecified() {
        api.set_ip(match api.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let attempt = || {
        let contexts = Contexts::of_user()?;
        let path =
            std::path::absolute(&running.token_file).unwrap_or_else(|_| running.token_file.clone());
        let context = Context {
            api,
            token: context::Token::File(path),
        };
        contexts.add(name, &context, false)?;
        Ok::<_, context::ContextError>(contexts)
    };
    match attempt() {
        Ok(contexts) => Some((contexts, name.to_owned())),
        Err(error) => {
            tracing::info!(%error, "no context was written; `anyam` needs --api and --token-file");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MeshOptions;
    use crate::model::mesh::builder::Builder;
    use crate::model::mesh::vip::Vips;
    use crate::source::{Observed, SourceError};
    use crate::tests::bench;

    /// A source that panics, or has no further report.
    struct Broken {
        panics: bool,
    }

    impl Source for Broken {
        async fn next(&mut self) -> Result<Observed, SourceError> {
            assert!(!self.panics, "on purpose");
            Err(SourceError::Panicked)
        }

        fn name(&self) -> String {
            "broken".to_owned()
        }
    }

    #[tokio::test]
    async fn a_source_that_is_not_followed_any_more_is_reported_as_an_end() {
        let following = "following changes of the configuration";
        for panics in [true, false] {
            let state = tempfile::tempdir().unwrap();
            let builder = Builder::new(MeshOptions::default(), Vips::new());
            let translator = Arc::new(Translator::new(builder));
            let metrics = Arc::new(Metrics::new().unwrap());
            let options = (bench::options(state.path()), None);
            let source = (Broken { panics }, None);
            let app = App::follow(translator, source, options, metrics).await;
            let mut app = app.unwrap();
            let expected = match panics {
                true => TaskEnded::Panicked {
                    task: following,
                    message: "on purpose".to_owned(),
                },
                false => TaskEnded::Returned(following),
            };
            assert_eq!(app.ended().await, expected);
            app.stop().await;
        }
    }
}
