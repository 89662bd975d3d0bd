//! Composition: source → model → translation → servers, and the commands that print or write.
//!
//! - [`serve`]: reads the folder, or lists the cluster, once before anything is served, so that a
//!   start never removes from a proxy what is declared; then follows changes until a signal to stop.
//! - [`token`], [`certificate`]: the other commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::args::{CertificateArgs, InjectionArgs, ServeArgs, TokenArgs, WorkloadArgs};
use crate::ca::authority::Lifetimes;
use crate::ca::service::unix_now;
use crate::ca::token::Tokens;
use crate::ca::{Authority, CaError, private};
use crate::context::{self, Context, Contexts};
use crate::declared::{self, OpenError};
use crate::identity::Identity;
use crate::incumbents::IncumbentsError;
use crate::inject::settings::{MeshSettings, SettingsError};
use crate::inject::start::{self as injection, WebhookError};
use crate::model::{self, Key};
use crate::server::{self, Options, Running, StartError};
use crate::source::kubernetes::Cluster;
use crate::source::kubernetes::connect::{self, Access, ConnectError};
use crate::source::watch::Watched;
use crate::source::{Source, SourceError, Sourced};
use crate::translate::Translator;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Incumbents(#[from] IncumbentsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(
        "{path} can't be read as a folder: {source}; name the folder of manifests with --config-dir",
        path = path.display()
    )]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{0}` is no namespace/name; write --workload shop/web-0")]
    Workload(String),
    #[error(
        "{folder} declares no Workload {workload}; add its manifest, or give --service-account",
        folder = folder.display()
    )]
    Undeclared { folder: PathBuf, workload: String },
    #[error("`{0}` can't be an identity: names have a-z A-Z 0-9 . - _ only")]
    Identity(String),
    #[error("signals can't be listened to: {0}")]
    Signals(std::io::Error),
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
    #[error("the Kubernetes API can't be used: {0}")]
    Connect(#[from] ConnectError),
    #[error("the cluster can't be read: {0}")]
    Source(#[from] SourceError),
    #[error("{0} is missing on the command line")]
    Missing(&'static str),
}

/// A control plane that follows a source.
pub struct App {
    pub running: Running,
    pub translator: Arc<Translator>,
    following: JoinHandle<()>,
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
        let (translator, folder) = declared::open(folder, &options.state_dir, model)?;
        Self::follow(translator, Watched::new(folder), options).await
    }

    /// Waits until everything in the cluster is listed, however long that takes.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_in_cluster(cluster: Cluster, options: Options) -> Result<Self, AppError> {
        private::directory(&options.state_dir)?;
        let (translator, cluster) = declared::list(cluster, mesh_options(&options)).await?;
        Self::follow(translator, cluster, options).await
    }

    async fn follow(
        translator: Arc<Translator>,
        source: impl Source,
        options: Options,
    ) -> Result<Self, AppError> {
        let (resources, shown) = (Arc::clone(&translator), Arc::clone(&translator));
        let running = server::start(options, resources, shown).await?;
        let following = tokio::spawn(declared::follow(Arc::clone(&translator), source));
        Ok(App {
            running,
            translator,
            following,
        })
    }

    /// Ends streams and closes sockets; some seconds at most.
    pub async fn stop(self) {
        self.following.abort();
        self.running.stop().await;
    }
}

fn mesh_options(options: &Options) -> model::MeshOptions {
    model::MeshOptions {
        trust_domain: options.trust_domain.clone(),
        ..model::MeshOptions::default()
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it can't start.
pub async fn serve(args: ServeArgs) -> Result<(), AppError> {
    let access = args.kubernetes.then_some(Access {
        kubeconfig: args.kubeconfig,
        context: args.kube_context,
    });
    let folder = args.config_dir;
    let options = Options {
        state_dir: args.state_dir.ok_or(AppError::Missing("--state-dir"))?,
        trust_domain: args.mesh.trust_domain,
        xds_listen: args.xds_listen,
        api_listen: args.api_listen,
        metrics_listen: args.metrics_listen,
        insecure_ads_listen: args.insecure_ads_listen,
        names: args.names,
        api_hosts: args.api_hosts,
        lifetimes: Lifetimes {
            default: args.certificate_ttl,
            max: args.max_certificate_ttl,
        },
        max_streams: args.max_streams,
        max_connections_per_address: args.max_connections_per_address,
        max_connection_age: args.max_connection_age,
    };
    let webhook = webhook_options(args.injection, &options.names)?;
    let context = args.context;
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Signals)?;
    let start = async {
        match (access, folder) {
            (Some(access), _) => {
                let client = connect::client(&access).await?;
                App::start_in_cluster(Cluster::new(client, "Kubernetes"), options).await
            }
            (None, Some(folder)) => App::start(&folder, options).await,
            (None, None) => Err(AppError::Missing("--config-dir")),
        }
    };
    // A start may wait for the API server.
    let app = tokio::select! {
        app = start => app?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tracing::info!(
        xds = %app.running.xds,
        api = %app.running.api,
        token = %app.running.token_file.display(),
        "serving"
    );
    let webhook = match webhook {
        None => None,
        Some(webhook) => {
            let (authority, metrics) = (&app.running.authority, &app.running.metrics);
            Some(injection::start(webhook, Arc::clone(authority), Arc::clone(metrics)).await?)
        }
    };
    let context = write_context(&context, &app.running);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    if let Some((contexts, name)) = context {
        // What is left behind does not answer, and the next start replaces it.
        let _ = contexts.remove(&name);
    }
    if let Some(webhook) = webhook {
        webhook.stop().await;
    }
    app.stop().await;
    Ok(())
}

fn webhook_options(
    args: InjectionArgs,
    names: &[String],
) -> Result<Option<injection::WebhookOptions>, AppError> {
    let Some(listen) = args.webhook_listen else {
        return Ok(None);
    };
    let settings = match &args.injection_settings {
        Some(path) => MeshSettings::read(path)?,
        None => MeshSettings::default(),
    };
    Ok(Some(injection::WebhookOptions {
        listen,
        names: names.to_vec(),
        settings,
    }))
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

/// A workload of the command line, with the identity that it runs as.
fn named(of: &WorkloadArgs) -> Result<(String, Identity), AppError> {
    let split = of.workload.split_once('/');
    let (namespace, name) = split.ok_or_else(|| AppError::Workload(of.workload.clone()))?;
    let account = match (&of.service_account, &of.config_dir) {
        (Some(account), _) => account.clone(),
        (None, Some(folder)) => declared_account((folder, &of.state_dir), namespace, name)?,
        (None, None) => return Err(AppError::Missing("--config-dir")),
    };
    let identity = Identity {
        trust_domain: of.mesh.trust_domain.clone(),
        namespace: namespace.to_owned(),
        service_account: account,
    };
    if name.is_empty() || !identity.is_valid() {
        return Err(AppError::Identity(identity.to_string()));
    }
    Ok((name.to_owned(), identity))
}

/// As the control plane of the state folder finds it.
fn declared_account(
    (folder, state): (&Path, &Path),
    namespace: &str,
    name: &str,
) -> Result<String, AppError> {
    std::fs::read_dir(folder).map_err(|source| AppError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let key = Key::new(namespace, name);
    let account = |sourced: Sourced| match sourced.object {
        model::Object::Workload(workload) if workload.meta.key() == key => {
            Some(workload.service_account.clone())
        }
        _ => None,
    };
    let found = declared::folder(folder, state)?
        .scan(Instant::now())
        .objects
        .into_iter()
        .find_map(account);
    found.ok_or_else(|| AppError::Undeclared {
        folder: folder.to_owned(),
        workload: key.to_string(),
    })
}

fn open(of: &WorkloadArgs, lifetime: Duration) -> Result<Authority, CaError> {
    private::directory(&of.state_dir)?;
    let lifetimes = Lifetimes {
        default: lifetime,
        max: lifetime,
    };
    Authority::open(&of.state_dir.join("ca"), &of.mesh.trust_domain, lifetimes)
}

/// A join token.
///
/// # Errors
/// When the workload is not declared, or the state directory is not as it must be.
pub fn token(args: &TokenArgs) -> Result<String, AppError> {
    let (name, identity) = named(&args.of)?;
    let authority = open(&args.of, args.ttl)?;
    let domain = &args.of.mesh.trust_domain;
    let tokens = Tokens::open(&args.of.state_dir, domain, &authority.root_hash())?;
    let workload = (&*identity.namespace, &*name);
    Ok(tokens.mint(workload, &identity.service_account, unix_now(), args.ttl)?)
}

/// Writes `cert.pem` (leaf and root), `key.pem` and `root.pem`.
///
/// # Errors
/// When the workload is not declared, or a folder is not as it must be.
pub fn certificate(args: &CertificateArgs) -> Result<(), AppError> {
    let (name, identity) = named(&args.of)?;
    let authority = open(&args.of, args.ttl)?;
    let (key, issued) = authority.issue_pair(&identity, &name, args.ttl)?;
    private::directory(&args.out)?;
    private::write(&args.out.join("key.pem"), key.serialize_pem().as_bytes())?;
    private::write(&args.out.join("cert.pem"), issued.chain.concat().as_bytes())?;
    private::write(&args.out.join("root.pem"), authority.root_pem().as_bytes())?;
    Ok(())
}
