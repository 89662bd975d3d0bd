//! Starting the demo: network, control plane, then each program after its sidecar is ready.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::capture::Capture;
use super::context::Written;
use super::netns::{Namespace, Network};
use super::process::{API_PORT, Process, Site};
use super::workloads::{NAMESPACE, PROGRAMS, Program, write_manifests};
use super::{Arguments, Broken, DemoError, relay};
use crate::api::{Client, ControlPlane, Scope};

const CONTROL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Anything slower than this at start is broken.
const TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// One program with its sidecar, in a namespace of their own.
pub struct Pod {
    pub program: &'static Program,
    pub namespace: Namespace,
    pub sidecar: Process,
    /// The intruder only runs when a check starts it.
    pub app: Option<Process>,
}

/// The running demo. Fields are dropped in order: processes first, then the network, then files.
pub struct Stage {
    pub pods: BTreeMap<&'static str, Pod>,
    pub control: Process,
    pub capture: Capture,
    pub api: Client,
    pub dashboard: String,
    pub site: Site,
    _context: Option<Written>,
    _network: Network,
    _scratch: tempfile::TempDir,
}

impl Stage {
    /// Starts everything.
    ///
    /// # Errors
    /// The first thing that cannot be started or does not become ready.
    pub async fn build(arguments: &Arguments) -> Result<Self, DemoError> {
        let scratch = tempfile::Builder::new()
            .prefix("anyam-demo-")
            .tempdir()
            .map_err(|error| DemoError::File {
                path: std::env::temp_dir(),
                error,
            })?;
        let site = prepare(scratch.path().to_owned(), arguments.broken)?;
        println!("Making network namespaces…");
        let mut network = Network::create()?;
        let capture =
            Capture::start(network.bridge(), CONTROL_ADDRESS).map_err(DemoError::Capture)?;
        let control_namespace = network.add_host("control", CONTROL_ADDRESS)?;
        println!("Starting the control plane…");
        let mut control = site.start_control(&control_namespace)?;
        let target = SocketAddr::from(([127, 0, 0, 1], API_PORT));
        let address =
            relay::start(arguments.dashboard, control_namespace, target).map_err(|error| {
                DemoError::Dashboard {
                    address: arguments.dashboard,
                    error,
                }
            })?;
        let token_file = site.control_state().join("api-token");
        let api = wait_for_control(&mut control, address, &token_file).await?;
        let dashboard = api.dashboard_url();
        let context = Written::write(&api);
        let api = Client::from(api);

        println!("Starting {} sidecars and the shop…", PROGRAMS.len());
        let mut pods = BTreeMap::new();
        for program in &PROGRAMS {
            let namespace = network.add_host(program.name, program.address)?;
            site.redirect(&namespace)?;
            let sidecar = site.start_sidecar(program, &namespace)?;
            pods.insert(
                program.name,
                Pod {
                    program,
                    namespace,
                    sidecar,
                    app: None,
                },
            );
        }
        let mut stage = Self {
            pods,
            control,
            capture,
            api,
            dashboard,
            site,
            _context: context,
            _network: network,
            _scratch: scratch,
        };
        for program in &PROGRAMS {
            stage.wait_for_sidecar(program.name).await?;
            stage.start_app(program.name)?;
        }
        Ok(stage)
    }

    /// Waits until the control plane counts the sidecar as connected.
    ///
    /// # Errors
    /// When it ends or takes too long.
    pub async fn wait_for_sidecar(&mut self, name: &str) -> Result<(), DemoError> {
        let began = Instant::now();
        loop {
            let connected = self.api.proxies(&Scope::All).await.is_ok_and(|all| {
                all.proxies
                    .iter()
                    .any(|proxy| proxy.workload == name && proxy.namespace == NAMESPACE)
            });
            if connected {
                return Ok(());
            }
            if let Some(pod) = self.pods.get_mut(name) {
                alive(&mut pod.sidecar)?;
                late(&pod.sidecar, began)?;
            }
            alive(&mut self.control)?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a pod's program, unless it only runs on demand.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_app(&mut self, name: &str) -> Result<(), DemoError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        if !pod.program.arguments.is_empty() {
            let app =
                self.site
                    .start_program(pod.program, &pod.namespace, pod.program.arguments)?;
            pod.app = Some(app);
        }
        Ok(())
    }

    /// Starts a pod's sidecar anew, after it was killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_sidecar(&mut self, name: &str) -> Result<(), DemoError> {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.sidecar = self.site.start_sidecar(pod.program, &pod.namespace)?;
        }
        Ok(())
    }

    /// Whether everything that should run does.
    ///
    /// # Errors
    /// Names what ended by itself.
    pub fn all_alive(&mut self) -> Result<(), DemoError> {
        alive(&mut self.control)?;
        for pod in self.pods.values_mut() {
            alive(&mut pod.sidecar)?;
            if let Some(app) = &mut pod.app {
                alive(app)?;
            }
        }
        Ok(())
    }
}

fn alive(process: &mut Process) -> Result<(), DemoError> {
    match process.ended() {
        None => Ok(()),
        Some(_) => Err(DemoError::Ended {
            name: process.name.clone(),
            last_errors: process.last_errors(),
        }),
    }
}

fn late(process: &Process, began: Instant) -> Result<(), DemoError> {
    if began.elapsed() < TIMEOUT {
        return Ok(());
    }
    Err(DemoError::NotReady {
        what: process.name.clone(),
        waited: TIMEOUT,
        last_errors: process.last_errors(),
    })
}

/// Folders, manifests, the resolver's file, and the programs beside this one.
fn prepare(folder: PathBuf, broken: Option<Broken>) -> Result<Site, DemoError> {
    let own = std::env::current_exe().map_err(|error| DemoError::Start {
        name: "anyam".into(),
        error,
    })?;
    let site = Site {
        proxy: copy_program(&own.with_file_name("anyam-proxy"), &folder)?,
        shop: copy_program(&own.with_file_name("anyam-shop"), &folder)?,
        control: own.with_file_name("anyam-control"),
        control_address: CONTROL_ADDRESS,
        folder,
        broken,
    };
    let unwritable = |path: &PathBuf| {
        let path = path.clone();
        move |error| DemoError::File { path, error }
    };
    for part in ["config", "control", "sidecar", "logs"] {
        let path = site.folder.join(part);
        std::fs::create_dir_all(&path).map_err(unwritable(&path))?;
    }
    // Other users walk through it; what is secret inside has modes of its own.
    let mode = |path: &PathBuf, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(unwritable(path))
    };
    mode(&site.folder, 0o711)?;
    mode(&site.control_state(), 0o700)?;
    let resolver = site.folder.join("resolv.conf");
    // Any address will do: netfilter brings the queries to the sidecar.
    let text = format!(
        "nameserver 10.77.0.1\nsearch {NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    );
    std::fs::write(&resolver, text).map_err(unwritable(&resolver))?;
    mode(&resolver, 0o644)?;
    write_manifests(&site.config(), broken)?;
    Ok(site)
}

/// Users other than root may not reach the build folder: they get their program where they can.
fn copy_program(program: &PathBuf, folder: &std::path::Path) -> Result<PathBuf, DemoError> {
    let name = program.file_name().unwrap_or_default();
    let copy = folder.join(name);
    std::fs::hard_link(program, &copy)
        .or_else(|_| std::fs::copy(program, &copy).map(|_| ()))
        .map_err(|error| DemoError::Start {
            name: name.to_string_lossy().into_owned(),
            error,
        })?;
    Ok(copy)
}

async fn wait_for_control(
    control: &mut Process,
    address: SocketAddr,
    token_file: &std::path::Path,
) -> Result<ControlPlane, DemoError> {
    let began = Instant::now();
    loop {
        if let Ok(found) = ControlPlane::from_token_file(address, token_file) {
            let client = Client::from(found.clone());
            if client.proxies(&Scope::All).await.is_ok() {
                return Ok(found);
            }
        }
        alive(control)?;
        late(control, began)?;
        tokio::time::sleep(POLL).await;
    }
}
