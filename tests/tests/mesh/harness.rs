//! A mesh to test: [`Mesh`] starts its processes in namespaces and ends them on drop.

use std::fs::{File, Permissions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyam_cli::demo::netns::{Command, Namespace, Network};
use anyam_tests::program;

use crate::process::Process;

pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PROXY_UID: u32 = 1337;
const APP_UID: u32 = 65_534;
/// What takes longer than this is broken.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Building programs in parallel is fine; whole meshes side by side on two cores are not.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Control plane, network and files. Processes started in it are to be dropped before it, which
/// declaring them after it does.
pub struct Mesh {
    pub control: Process,
    pub control_host: Namespace,
    pub network: Network,
    pub folder: PathBuf,
    /// Of the control plane.
    arguments: Vec<&'static str>,
    _scratch: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Mesh {
    /// Starts a control plane that reads `manifests`, and waits until its API answers.
    pub fn start(manifests: &str) -> Self {
        Self::start_with(manifests, &[])
    }

    /// As [`Mesh::start`], with further arguments for the control plane.
    pub fn start_with(manifests: &str, arguments: &[&'static str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = tempfile::Builder::new()
            .prefix("anyam-mesh-")
            .tempdir()
            .unwrap();
        let folder = scratch.path().to_owned();
        // Proxies of other users walk through it; what is secret inside has modes of its own.
        std::fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
        for part in ["config", "logs"] {
            std::fs::create_dir(folder.join(part)).unwrap();
        }
        for name in ["anyam-proxy", "anyam-shop"] {
            copy_program(&program(name), &folder.join(name));
        }
        std::fs::write(folder.join("config/mesh.yaml"), manifests).unwrap();
        let mut network = Network::create().unwrap();
        let control_host = network.add_host("control", CONTROL).unwrap();
        let control = start_control(&folder, &control_host, arguments);
        let mesh = Self {
            control,
            arguments: arguments.to_vec(),
            control_host,
            network,
            folder,
            _scratch: scratch,
            _turn: turn,
        };
        mesh.wait("the control plane's API", || {
            mesh.proxies().status.success()
        });
        mesh
    }

    /// Starts the control plane anew after [`Process::kill`].
    pub fn restart_control(&mut self) {
        self.control = start_control(&self.folder, &self.control_host, &self.arguments);
    }

    /// Adds or replaces a file of manifests, in one step.
    pub fn configure(&self, name: &str, text: &str) {
        let part = self.folder.join("config").join(format!("{name}.part"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.folder.join("config").join(name)).unwrap();
    }

    /// A namespace with the redirect rules of a workload.
    pub fn host(&mut self, name: &str, address: Ipv4Addr) -> Namespace {
        self.host_with(name, address, &[])
    }

    /// As [`Mesh::host`], with further arguments for `redirect`.
    pub fn host_with(&mut self, name: &str, address: Ipv4Addr, more: &[&str]) -> Namespace {
        let host = self.network.add_host(name, address).unwrap();
        let proxy = self.folder.join("anyam-proxy");
        run(&host, &proxy, &[&["redirect"], more].concat());
        host
    }

    /// A host with an IPv6 address too, and a default route for it.
    pub fn host_of_both(&mut self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Namespace {
        let host = self.host(name, v4);
        add_ipv6(&host, v6);
        host
    }

    /// A workload's sidecar, connected.
    pub fn sidecar(&self, name: &str, address: impl Into<IpAddr>, host: &Namespace) -> Process {
        self.sidecar_with(name, address.into(), host, &[])
    }

    /// As [`Mesh::sidecar`], with further arguments.
    pub fn sidecar_with(
        &self,
        name: &str,
        address: IpAddr,
        host: &Namespace,
        more: &[&str],
    ) -> Process {
        let state = self.private(name);
        let token = self.control_command(&["token", "--workload", &format!("shop/{name}")]);
        let token_file = state.join("token");
        std::fs::write(&token_file, token.trim()).unwrap();
        chown(&token_file, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        let (address, token_file) = (address.to_string(), token_file.display().to_string());
        let (control, state) = (format!("{CONTROL}:15012"), state.display().to_string());
        let arguments = [
            &["sidecar", "--workload", name, "--namespace", "shop"][..],
            &["--service-account", name, "--trust-domain", "anyam.local"],
            &["--address", &address, "--control-plane", &control],
            &["--token-file", &token_file, "--state-dir", &state],
            more,
        ]
        .concat();
        let program = self.folder.join("anyam-proxy");
        let sidecar = self.spawn(name, host, &program, &arguments, PROXY_UID);
        self.wait_synced(name);
        sidecar
    }

    /// The shop's cart, which answers every request with `version`.
    pub fn cart(&self, version: &str, address: impl Into<IpAddr>, host: &Namespace) -> Process {
        self.cart_at(version, SocketAddr::new(address.into(), 8080), host)
    }

    /// As [`Mesh::cart`], on any port.
    pub fn cart_at(&self, version: &str, listen: SocketAddr, host: &Namespace) -> Process {
        let listen = listen.to_string();
        let arguments = ["cart", "--listen", &listen, "--version", version];
        let program = self.folder.join("anyam-shop");
        let name = format!("cart-{version}");
        self.spawn(&name, host, &program, &arguments, APP_UID)
    }

    /// A program in a namespace, its complaints in a file of its own.
    pub fn spawn(
        &self,
        name: &str,
        host: &Namespace,
        program: &Path,
        arguments: &[&str],
        uid: u32,
    ) -> Process {
        let mut command = command(host, program, arguments);
        command.uid = uid;
        command.stdout = log(&self.folder, &format!("{name}.out"));
        command.stderr = log(&self.folder, &format!("{name}.err"));
        Process::new(command.spawn().unwrap())
    }

    /// Runs a program in a namespace to its end.
    pub fn output(&self, host: &Namespace, program: &Path, arguments: &[&str]) -> Output {
        let child = command(host, program, arguments).spawn().unwrap();
        child.wait_with_output().unwrap()
    }

    /// A new folder that only proxies may enter.
    pub fn private(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        chown(&path, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        path
    }

    /// What a command of `anyam-control` on this mesh's folders prints.
    pub fn control_command(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new(program("anyam-control"))
            .args(arguments)
            .arg("--state-dir")
            .arg(self.folder.join("control"))
            .arg("--config-dir")
            .arg(self.folder.join("config"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `anyam proxies -o json`.
    fn proxies(&self) -> Output {
        self.ask(&["proxies", "-o", "json"])
    }

    /// What `anyam` prints, whatever its exit code.
    pub fn cli(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.ask(arguments).stdout).unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let token = self.folder.join("control/api-token").display().to_string();
        let arguments = [arguments, &["--token-file", &token]].concat();
        let command = command(&self.control_host, &program("anyam"), &arguments)
            .spawn()
            .unwrap();
        command.wait_with_output().unwrap()
    }

    /// Waits until `anyam proxies` shows the workload's proxy as synced.
    pub fn wait_synced(&self, workload: &str) {
        self.wait(&format!("{workload} synced"), || {
            let Ok(all) = serde_json::from_slice::<serde_json::Value>(&self.proxies().stdout)
            else {
                return false;
            };
            let proxies = all["proxies"].as_array().cloned().unwrap_or_default();
            proxies
                .iter()
                .any(|proxy| proxy["workload"] == workload && proxy["synced"] == true)
        });
    }

    /// Waits, within [`TIMEOUT`], until `done`, a condition in other processes: it is looked at
    /// after each [`POLL`]. A control plane that ends meanwhile ends the wait too. The logs
    /// of all processes are part of the failure.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            let why = match self.control.ends_within(POLL) {
                true => "the control plane has ended".to_owned(),
                false if began.elapsed() > TIMEOUT => format!("not within {TIMEOUT:?}"),
                false => continue,
            };
            panic!("{what}: {why}\n{}", self.logs());
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(self.folder.join("logs")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            all += &format!("== {}\n", path.display());
            all += &lines[lines.len().saturating_sub(12)..].join("\n");
            all += "\n";
        }
        all
    }
}

/// Gives a host of [`Network`] an IPv6 address, and a route to everywhere.
pub fn add_ipv6(host: &Namespace, address: Ipv6Addr) {
    ip(host, &format!("-6 address add {address}/64 dev eth0 nodad"));
    ip(host, "-6 route add default dev eth0");
}

/// Runs `ip` in the namespace.
pub fn ip(host: &Namespace, arguments: &str) {
    let arguments: Vec<_> = arguments.split(' ').collect();
    run(host, Path::new("ip"), &arguments);
}

/// Runs a command as root to its end, which has to be a good one.
fn run(host: &Namespace, program: &Path, arguments: &[&str]) {
    let child = command(host, program, arguments).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Users other than root may not reach the build folder.
fn copy_program(program: &Path, copy: &Path) {
    std::fs::hard_link(program, copy)
        .or_else(|_| std::fs::copy(program, copy).map(|_| ()))
        .unwrap();
}

fn start_control(folder: &Path, host: &Namespace, more: &[&str]) -> Process {
    let path = |part: &str| folder.join(part).display().to_string();
    let (config, state) = (path("config"), path("control"));
    let listen = format!("{CONTROL}:15012");
    let arguments = [
        &["--config-dir", &config, "--state-dir", &state][..],
        &["--xds-listen", &listen, "--api-listen", "127.0.0.1:15080"],
        more,
    ]
    .concat();
    let program = program("anyam-control");
    let mut command = command(host, &program, &arguments);
    command.stdout = log(folder, "control.out");
    command.stderr = log(folder, "control.err");
    Process::new(command.spawn().unwrap())
}

fn log(folder: &Path, name: &str) -> Stdio {
    let path = folder.join("logs").join(name);
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
        .into()
}

/// A command as root, with its output for the caller.
fn command<'a>(namespace: &'a Namespace, program: &'a Path, arguments: &[&str]) -> Command<'a> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Command {
        namespace,
        program,
        arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
        environment: vec![("PATH", path.into()), ("RUST_BACKTRACE", "1".into())],
        uid: 0,
        resolv_conf: None,
        stdout: Stdio::piped(),
        stderr: Stdio::piped(),
    }
}
