//! The composition root: builds everything in order, runs it, ends it. No globals.
//!
//! - this file: the order of construction; `flags`: what the command line asks of the process; `build`:
//!   registry, compiler; `certificates`: the proxy's own; `checks`: active health checks; `statics`: the
//!   first snapshot; `workers`: their threads; `end`: signals, drain, exit; `listening`: whether the app
//!   beside the proxy still listens
//! - `logging`: diagnostics, their level changed at run time; `maintenance`: periodic work for
//!   clusters; `supervisor`: tasks of the control thread, restarted after a panic
//!
//! The calling thread is the control thread: configuration, certificates, admin, signals. It is
//! the only writer of snapshots. Connections live on the workers.

mod build;
mod certificates;
mod checks;
mod end;
mod flags;
mod listening;
mod logging;
pub mod maintenance;
mod statics;
mod supervisor;
mod workers;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::build::Core;
use self::certificates::{certified, start_identity};
pub use self::logging::{Logs, init as init_logging};
use self::supervisor::Supervisor;
use self::workers::Workers;
use crate::admin::server::{bind, serve};
use crate::admin::surface::Surface;
use crate::admin::{Admin, ScrapePages, wire_node};
use crate::args::{Process, RunMode};
use crate::bootstrap::{Bootstrap, capacity, concurrency};
use crate::bug;
use crate::config::compile::values::FETCH;
use crate::config::demand::{OnDemandClient, OnDemandRequest};
use crate::drain::Drain;
use crate::health::FirstResults;
use crate::identity;
use crate::identity::agent::AgentError;
use crate::inspect;
use crate::jwks;
use crate::metrics::edge::Peer;
use crate::metrics::registry::RegistryError;
use crate::snapshot::Store;
use crate::telemetry::Telemetry;
use crate::xds::apply::{Applier, Egress};
use crate::xds::cache::{Config, Mode};
use crate::xds::channel::ManagementServer;
use crate::xds::client::{Client, Handle};
use crate::xds::resource_type::{Key, ResourceType};

/// How long the process waits at exit for the last log lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Capacity of the queue of on-demand requests to the control thread.
const ON_DEMAND_QUEUE: usize = 4096;
/// The listeners that every sidecar has.
const ROOT_LISTENERS: [&str; 2] = ["inbound", "outbound"];

/// Why the proxy does not start (or had to stop).
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("the configuration cannot be used:\n  {}", .0.join("\n  "))]
    Configuration(Vec<String>),
    #[error("{0}")]
    Bind(String),
    #[error("{what} cannot listen on {address}: {error}")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        error: std::io::Error,
    },
    #[error("cluster {0:?} is used for the control plane and is not in static_resources.clusters")]
    NoCluster(String),
    #[error("--admin-address-path cannot be written: {0}")]
    AdminAddress(std::io::Error),
    #[error(transparent)]
    Identity(#[from] AgentError),
    #[error(transparent)]
    Metrics(#[from] RegistryError),
    #[error("no thread or runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("a worker's thread panicked; its log line has the place")]
    Panicked,
}

/// Runs the proxy until a signal or /quitquitquit stops it.
///
/// # Errors
/// When it cannot start.
pub fn run(bootstrap: Bootstrap, process: &Process, logs: Logs) -> Result<(), AppError> {
    bug::count_panics();
    capacity::raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control")
        .build_local(LocalOptions::default())?;
    // Collecting entropy takes ~50 ms of CPU at first use: done here, so that no handshake waits
    // for it.
    std::thread::Builder::new()
        .name("warm-up".to_owned())
        .spawn(crate::tls::warm_up)?;
    let sinks = logs.sinks.clone();
    let ended = runtime.block_on(serve_until_shutdown(bootstrap, process, logs));
    // Writes the last lines, among them why the process did not start.
    sinks.flush(LAST_LINES);
    ended
}

async fn serve_until_shutdown(
    bootstrap: Bootstrap,
    process: &Process,
    logs: Logs,
) -> Result<(), AppError> {
    flags::apply(process)?;
    let started = (SystemTime::now(), Instant::now());
    let drain = Arc::new(Drain::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(end::handle_signals(logs.sinks.clone()));
    let core = Core::new(
        &bootstrap,
        &logs,
        &process.envoy.stats_tag,
        &drain,
        process.drain_time(),
    )?;
    let identity = start_identity(&bootstrap, &core, &mut tasks)?;
    let (demand, wants) = demand(&bootstrap);
    let store = core.store.clone();
    let registry = core.registry.clone();
    let telemetry = core.telemetry.clone();
    let resolver = core.resolver.clone();
    let checks = checks::start(&store, &mut tasks)?;
    let statics = core.statics(&bootstrap);
    let remote_keys = core.compiler.remote_keys.clone();
    let wants = (wants, checks.clone());
    let xds = start_xds(&bootstrap, core, wants, identity.clone(), &mut tasks)?;
    let (listening, watched) = watch::channel(false);
    let prober = build::prober(&bootstrap, &registry)?;
    let admin = Arc::new(Admin {
        store: store.clone(),
        registry,
        drain: drain.clone(),
        logging: logs.levels,
        sinks: logs.sinks,
        xds,
        identity,
        prober,
        scrapes: ScrapePages::default(),
        bootstrap: bootstrap.message.encode_to_vec().into(),
        statics,
        node: wire_node(&bootstrap.node),
        options: flags::options(process),
        listening: watched,
        started: started.0,
        since: started.1,
    });
    start_inspect(&bootstrap, &admin, &telemetry, demand.clone(), &mut tasks)?;
    let local = &telemetry.local;
    open_ports(&bootstrap, &admin, local, demand.clone(), &mut tasks).await?;
    flags::write_admin_address(process, &bootstrap)?;
    maintenance::warm(&store, &resolver).await;
    tasks.spawn(jwks::run(remote_keys, store.clone()));
    tasks.spawn(maintenance::keep_running(store.clone(), resolver));
    checks::warm(&checks).await;
    let mut workers = Workers::start(
        workers_of(process),
        &store,
        &telemetry,
        demand,
        &drain,
        (process.logs.flush_interval(), watched_memory(&bootstrap)),
        listening,
    )?;
    workers.bound().await?;
    tracing::info!(
        listeners = store.load().listeners.len(),
        clusters = store.load().clusters.len(),
        "started in {:?}",
        started.1.elapsed()
    );
    if process.mode == RunMode::InitOnly {
        drain.close();
        return workers.join();
    }
    let open = || workers.open_connections();
    end::wait(&drain, open, process.wait_for_app, process.drain_time()).await;
    workers.join()
}

/// The memory near which idle connections are closed; `None` where the bootstrap sets no limits of
/// connections.
fn watched_memory(bootstrap: &Bootstrap) -> Option<u64> {
    bootstrap.extensions.connections.as_ref()?;
    capacity::memory()
}

fn demand(
    bootstrap: &Bootstrap,
) -> (
    Option<OnDemandClient>,
    Option<mpsc::Receiver<OnDemandRequest>>,
) {
    match (&bootstrap.extensions.on_demand, &bootstrap.ads) {
        (Some(on_demand), Some(_)) => {
            let (demand, wants) = OnDemandClient::new(ON_DEMAND_QUEUE, on_demand.wait);
            (Some(demand), Some(wants))
        }
        _ => (None, None),
    }
}

fn start_xds(
    bootstrap: &Bootstrap,
    core: Core,
    (wants, checks): (Option<mpsc::Receiver<OnDemandRequest>>, FirstResults),
    identity: Option<watch::Receiver<identity::CertificateStatus>>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Handle>, AppError> {
    let Some(ads) = &bootstrap.ads else {
        return Ok(None);
    };
    let target = core.target(&ads.cluster)?;
    let on_demand = bootstrap.extensions.on_demand.as_ref();
    let mode = |wanted: bool| match (wanted, on_demand) {
        (false, _) => Mode::Off,
        (true, Some(_)) => Mode::Named,
        (true, None) => Mode::Wildcard,
    };
    let mut roots = core.references.clone();
    if on_demand.is_some() {
        roots.extend(ROOT_LISTENERS.map(|name| Key::new(ResourceType::Listener, name)));
    }
    let config = Config {
        protocol: ads.protocol,
        clusters: mode(ads.clusters),
        listeners: mode(ads.listeners),
        roots,
        // What static resources wait for has time-outs of its own.
        init_timeout: ads
            .init_timeout
            .max(core.initial_fetch_timeout)
            .unwrap_or(FETCH),
        miss_ttl: on_demand.map_or(Config::default().miss_ttl, |d| d.miss_ttl),
        ..Config::default()
    };
    let egress = match on_demand {
        Some(on_demand) => Egress {
            passthrough: on_demand.unknown == crate::bootstrap::extensions::Unknown::Passthrough,
            mesh: on_demand.mesh.clone(),
        },
        None => Egress::default(),
    };
    let statics: HashSet<Key> = core
        .statics(bootstrap)
        .into_iter()
        .map(|(kind, name, _)| Key::new(kind, name))
        .collect();
    let applier = Applier::new(
        core.compiler,
        core.store,
        statics,
        core.held,
        egress,
        core.resolver,
    )
    .after_checks(checks);
    let (mut client, handle) = Client::new(config, applier, target, bootstrap.node.clone(), wants);
    tasks.spawn(async move {
        certified(identity).await;
        let mut supervisor = Supervisor::new("xds");
        while supervisor.panicked(client.run()).await {
            client.restart();
        }
    });
    Ok(Some(handle))
}

fn start_inspect(
    bootstrap: &Bootstrap,
    admin: &Arc<Admin>,
    telemetry: &Arc<Telemetry>,
    demand: Option<OnDemandClient>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AppError> {
    let Some(inspect) = &bootstrap.extensions.inspect else {
        return Ok(());
    };
    let agent = inspect::agent::Agent {
        target: target(&admin.store, &inspect.cluster)?,
        admin: admin.clone(),
        telemetry: telemetry.clone(),
        demand,
        node_id: bootstrap.node.id.clone(),
        interval: inspect.report_interval,
    };
    let identity = admin.identity.clone();
    tasks.spawn(async move {
        certified(identity).await;
        let mut supervisor = Supervisor::new("inspect");
        while supervisor.panicked(agent.run()).await {}
    });
    Ok(())
}

/// Admin, metrics, health, status and DNS.
async fn open_ports(
    bootstrap: &Bootstrap,
    admin: &Arc<Admin>,
    local: &Peer,
    demand: Option<OnDemandClient>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AppError> {
    let probes = bootstrap.extensions.probes.as_ref();
    let status = bootstrap.extensions.status.as_ref();
    let ports = [
        ("status", status.map(|s| s.listen), Surface::Status),
        ("admin", bootstrap.admin, Surface::Admin),
        ("metrics", probes.and_then(|p| p.metrics), Surface::Metrics),
        ("health", probes.and_then(|p| p.health), Surface::Health),
    ];
    for (what, address, surface) in ports {
        let Some(address) = address else { continue };
        let port = bind(address).await.map_err(|error| AppError::Listen {
            what,
            address,
            error,
        })?;
        let admin = admin.clone();
        tasks.spawn(async move {
            let mut supervisor = Supervisor::new(what);
            while supervisor.panicked(serve(&port, surface, &admin)).await {}
        });
    }
    if let Some(dns) = &bootstrap.extensions.dns {
        let settings = crate::dns::DnsSettings::new(
            dns.listen,
            dns.upstream.clone(),
            (&local.namespace, &dns.cluster_domain),
            &dns.search,
        );
        let address = settings.listen;
        let server = crate::dns::server::DnsServer::bind(settings, demand).await;
        let server = server.map_err(|error| AppError::Listen {
            what: "dns",
            address,
            error,
        })?;
        tasks.spawn(async move {
            let mut supervisor = Supervisor::new("dns");
            while supervisor.panicked(server.run()).await {}
        });
    }
    Ok(())
}

fn workers_of(process: &Process) -> usize {
    concurrency::workers(process.concurrency, process.envoy.cpuset_threads)
}

/// Where a static cluster leads.
fn target(store: &Store, cluster: &str) -> Result<ManagementServer, AppError> {
    let snapshot = store.load();
    match snapshot.clusters.get(cluster) {
        Some(cluster) => Ok(ManagementServer::from_cluster(cluster)),
        None => Err(AppError::NoCluster(cluster.to_owned())),
    }
}
