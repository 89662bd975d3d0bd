//! The composition root: builds everything in order, runs it, ends it. No globals.
//!
//! - this file: the order; `build`: registry, compiler; `statics`: the first snapshot; `workers`:
//!   their threads; `end`: signals, drain, exit
//!
//! The calling thread is the control thread: configuration, certificates, admin, signals. It is
//! the only writer of snapshots. Connections live on the workers.

mod build;
mod end;
mod logging;
pub mod maintenance;
mod statics;
mod workers;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::build::Core;
pub use self::logging::{Logs, init as init_logging};
use self::workers::Workers;
use crate::admin::server::{Surface, bind, serve};
use crate::admin::{Admin, wire_node};
use crate::args::{Mode, Process};
use crate::bootstrap::{Bootstrap, concurrency};
use crate::config::compile::values::FETCH;
use crate::config::demand::{OnDemandClient, OnDemandRequest};
use crate::drain::Drain;
use crate::identity::agent::AgentError;
use crate::identity::{self, agent::Agent};
use crate::inspect;
use crate::memory;
use crate::metrics::edge::Peer;
use crate::metrics::registry::RegistryError;
use crate::telemetry::Telemetry;
use crate::xds::apply::{Applier, Egress};
use crate::xds::cache::{Config, Mode as Subscribe};
use crate::xds::channel::Target;
use crate::xds::client::{Client, Handle};
use crate::xds::resource_type::{Key, ResourceType};

/// Start is over then: the configuration is there, and the first connections are.
const START: Duration = Duration::from_secs(2);
/// What is logged last gets this long to be written, where someone reads it.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Wants in the queue to the control thread.
const WANTS: usize = 4096;
/// Listeners every sidecar of ours has.
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
}

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(bootstrap: Bootstrap, process: &Process, logs: Logs) -> Result<(), AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control")
        .build()?;
    // ~50 ms of CPU for entropy at first use: not while somebody waits for a handshake.
    std::thread::Builder::new()
        .name("warm-up".to_owned())
        .spawn(crate::tls::warm_up)?;
    let sinks = logs.sinks.clone();
    let ended = runtime.block_on(serve_until_told(bootstrap, process, logs));
    // What was said last, also of why it did not start.
    sinks.flush(LAST_LINES);
    ended
}

async fn serve_until_told(
    bootstrap: Bootstrap,
    process: &Process,
    logs: Logs,
) -> Result<(), AppError> {
    for (flag, why) in process.envoy.without_effect() {
        tracing::warn!("{flag} has no effect: {why}");
    }
    if process.envoy.enable_core_dump {
        let dumpable = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(dumpable).map_err(std::io::Error::from)?;
    }
    let started = (SystemTime::now(), Instant::now());
    let drain = Arc::new(Drain::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(end::heed_signals(logs.sinks.clone()));
    let core = Core::new(&bootstrap, &logs, &process.envoy.stats_tag)?;
    tasks.spawn(crate::app::maintenance::run(core.store.clone()));
    let identity = start_identity(&bootstrap, &core, &mut tasks)?;
    let (demand, wants) = demand(&bootstrap);
    let store = core.store.clone();
    let registry = core.registry.clone();
    let telemetry = core.telemetry.clone();
    let statics = core.statics(&bootstrap);
    let xds = start_xds(&bootstrap, core, wants, identity.clone(), &mut tasks)?;
    let (mut workers, listening) = Workers::start(
        workers_of(process),
        &store,
        &telemetry,
        demand.clone(),
        &drain,
        process.logs.flush_interval(),
    )?;
    let admin = Arc::new(Admin {
        store: store.clone(),
        registry,
        drain: drain.clone(),
        logging: logs.levels,
        sinks: logs.sinks,
        xds,
        identity,
        bootstrap: bootstrap.message.encode_to_vec().into(),
        statics,
        node: wire_node(&bootstrap.node),
        options: options(process),
        listening,
        started: started.0,
        since: started.1,
    });
    start_inspect(&bootstrap, &admin, &telemetry, demand.clone(), &mut tasks)?;
    open_ports(&bootstrap, &admin, &telemetry.local, demand, &mut tasks).await?;
    if let (Some(path), Some(address)) = (&process.envoy.admin_address_path, bootstrap.admin) {
        std::fs::write(path, address.to_string()).map_err(AppError::AdminAddress)?;
    }
    workers.bound().await?;
    tracing::info!(
        listeners = store.load().listeners.len(),
        clusters = store.load().clusters.len(),
        "started in {:?}",
        started.1.elapsed()
    );
    if process.mode == Mode::InitOnly {
        drain.close();
        workers.join();
        return Ok(());
    }
    tasks.spawn(async {
        tokio::time::sleep(START).await;
        memory::forget_start();
    });
    end::wait(&drain, || workers.open_connections(), process.drain_time()).await;
    workers.join();
    Ok(())
}

fn demand(
    bootstrap: &Bootstrap,
) -> (
    Option<OnDemandClient>,
    Option<mpsc::Receiver<OnDemandRequest>>,
) {
    match (&bootstrap.extensions.on_demand, &bootstrap.ads) {
        (Some(on_demand), Some(_)) => {
            let (demand, wants) = OnDemandClient::new(WANTS, on_demand.wait);
            (Some(demand), Some(wants))
        }
        _ => (None, None),
    }
}

fn start_identity(
    bootstrap: &Bootstrap,
    core: &Core,
    tasks: &mut JoinSet<()>,
) -> Result<Option<watch::Receiver<identity::Status>>, AppError> {
    let Some(identity) = &bootstrap.extensions.identity else {
        return Ok(None);
    };
    let target = core.target(&identity.cluster)?;
    let slots = identity::Slots {
        identity: core.secrets.identity("default"),
        trust: core.secrets.bundle("ROOTCA"),
    };
    let (agent, status) = Agent::new(identity.settings.clone(), target, slots, &core.registry)?;
    tasks.spawn(agent.run());
    tasks.spawn(rejudge_after_changes(status.clone(), core.store.clone()));
    Ok(Some(status))
}

/// Another trust bundle: every worker judges its connections again.
async fn rejudge_after_changes(
    mut status: watch::Receiver<identity::Status>,
    store: Arc<crate::snapshot::Store>,
) {
    let mut roots = status.borrow().roots.clone();
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().roots.clone();
        if now != roots {
            roots = now;
            store.nudge();
        }
    }
}

fn start_xds(
    bootstrap: &Bootstrap,
    core: Core,
    wants: Option<mpsc::Receiver<OnDemandRequest>>,
    identity: Option<watch::Receiver<identity::Status>>,
    tasks: &mut JoinSet<()>,
) -> Result<Option<Handle>, AppError> {
    let Some(ads) = &bootstrap.ads else {
        return Ok(None);
    };
    let target = core.target(&ads.cluster)?;
    let on_demand = bootstrap.extensions.on_demand.as_ref();
    let mode = |wanted: bool| match (wanted, on_demand) {
        (false, _) => Subscribe::Off,
        (true, Some(_)) => Subscribe::Named,
        (true, None) => Subscribe::Wildcard,
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
        init_timeout: ads.init_timeout.max(core.patience).unwrap_or(FETCH),
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
    let applier = Applier::new(core.compiler, core.store, statics, core.held, egress);
    let (client, handle) = Client::new(config, applier, target, bootstrap.node.clone(), wants);
    tasks.spawn(async move {
        certified(identity).await;
        client.run().await;
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
        agent.run().await;
    });
    Ok(())
}

/// Waits for the first certificate: without one the control plane would only turn us away.
async fn certified(identity: Option<watch::Receiver<identity::Status>>) {
    if let Some(mut status) = identity {
        let certified = status.wait_for(|status| !status.serial.is_empty()).await;
        drop(certified);
    }
}

/// Admin, metrics, health and DNS.
async fn open_ports(
    bootstrap: &Bootstrap,
    admin: &Arc<Admin>,
    local: &Peer,
    demand: Option<OnDemandClient>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AppError> {
    let probes = bootstrap.extensions.probes.as_ref();
    let ports = [
        ("admin", bootstrap.admin, Surface::Admin),
        ("metrics", probes.and_then(|p| p.metrics), Surface::Metrics),
        ("health", probes.and_then(|p| p.health), Surface::Health),
    ];
    for (what, address, surface) in ports {
        let Some(address) = address else { continue };
        let listener = bind(address).await.map_err(|error| AppError::Listen {
            what,
            address,
            error,
        })?;
        tasks.spawn(serve(listener, surface, admin.clone()));
    }
    if let Some(dns) = &bootstrap.extensions.dns {
        let settings = crate::dns::Settings::new(
            dns.listen,
            dns.upstream.clone(),
            &local.namespace,
            &dns.search,
        );
        let address = settings.listen;
        let server = crate::dns::server::Server::bind(settings, demand).await;
        let server = server.map_err(|error| AppError::Listen {
            what: "dns",
            address,
            error,
        })?;
        tasks.spawn(server.run());
    }
    Ok(())
}

fn workers_of(process: &Process) -> usize {
    concurrency::workers(process.concurrency, process.envoy.cpuset_threads)
}

fn options(process: &Process) -> serde_json::Value {
    serde_json::json!({
        "concurrency": workers_of(process),
        "log_level": process.log_level.as_filter(),
        "drain_time": format!("{}s", process.drain_time_s),
        "mode": format!("{:?}", process.mode),
    })
}

/// Where a static cluster leads.
fn target(store: &crate::snapshot::Store, cluster: &str) -> Result<Target, AppError> {
    let snapshot = store.load();
    match snapshot.clusters.get(cluster) {
        Some(cluster) => Ok(Target::from_cluster(cluster)),
        None => Err(AppError::NoCluster(cluster.to_owned())),
    }
}
