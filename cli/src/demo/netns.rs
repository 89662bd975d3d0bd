//! Network namespaces of the demo's own, and processes inside them.
//!
//! - [`Network`]: one bridge namespace and a namespace for each host, joined by veth pairs; the
//!   machine's own network is not touched
//! - [`Command::spawn`]: a process in a namespace, with its own view of `/etc/resolv.conf`, ended
//!   with the demo
//!
//! Everything is undone on drop. What a killed demo left behind is removed by the next one.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::DemoError;

/// Names of all namespaces begin with this, then the demo's pid.
const PREFIX: &str = "anyam-demo-";

/// The demo's network: 10.77.0.0/16.
pub struct Network {
    /// Prefix, pid, and a number that distinguishes networks of one process.
    name: String,
    hosts: Vec<String>,
}

impl Network {
    /// Makes the bridge namespace, after removing those of killed demos.
    ///
    /// # Errors
    /// When `ip` is missing or the kernel refuses a namespace.
    pub fn create() -> Result<Self, DemoError> {
        remove_stale()?;
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut network = Self {
            name,
            hosts: Vec::new(),
        };
        let bridge = network.add_namespace("bridge")?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        Ok(network)
    }

    /// Adds a host at `address` and gives back its namespace.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn add_host(&mut self, name: &str, address: Ipv4Addr) -> Result<Namespace, DemoError> {
        let bridge = self.namespace_name("bridge");
        let host = self.add_namespace(name)?;
        let port = format!("p{}", self.hosts.len());
        ip(&[
            "-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &host,
        ])?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
        ip(&[
            "-n",
            &host,
            "address",
            "add",
            &format!("{address}/16"),
            "dev",
            "eth0",
        ])?;
        ip(&["-n", &host, "link", "set", "eth0", "up"])?;
        // VIPs and names outside lie nowhere: a default route makes the app's packets leave the
        // socket, so that netfilter sees them.
        ip(&["-n", &host, "route", "add", "default", "via", "10.77.0.1"])?;
        Ok(Namespace {
            path: run_path(&host),
        })
    }

    /// The namespace that every packet between hosts crosses.
    pub fn bridge(&self) -> Namespace {
        Namespace {
            path: run_path(&self.namespace_name("bridge")),
        }
    }

    fn namespace_name(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    fn add_namespace(&mut self, host: &str) -> Result<String, DemoError> {
        let name = self.namespace_name(host);
        ip(&["netns", "add", &name])?;
        self.hosts.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.hosts {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("anyam demo: namespace {name} could not be removed: {error}");
            }
        }
    }
}

fn remove_stale() -> Result<(), DemoError> {
    for name in ip(&["netns", "list"])?
        .lines()
        .filter_map(|l| l.split_whitespace().next())
    {
        let Some(pid) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            ip(&["netns", "delete", name])?;
        }
    }
    Ok(())
}

fn run_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn ip(arguments: &[&str]) -> Result<String, DemoError> {
    let output = std::process::Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| DemoError::Missing {
            command: "ip",
            package: "iproute2",
            error,
        })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(DemoError::Network {
        command: format!("ip {}", arguments.join(" ")),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// A network namespace by its path under `/run/netns`.
#[derive(Clone, Debug)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Moves the calling thread into the namespace, for good: give it a thread of its own.
    ///
    /// # Errors
    /// When the namespace is gone or rights are missing.
    pub fn enter(&self) -> io::Result<()> {
        enter(&File::open(&self.path)?)
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which `namespace` keeps open, and a flag.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A process to run in a namespace.
pub struct Command<'a> {
    pub namespace: &'a Namespace,
    pub program: &'a Path,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub uid: u32,
    /// Seen as `/etc/resolv.conf` by this process alone.
    pub resolv_conf: Option<&'a Path>,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl Command<'_> {
    /// Starts it. The kernel kills it when the demo ends, in whatever way.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program cannot be run.
    pub fn spawn(self) -> io::Result<Child> {
        use std::os::unix::process::CommandExt;
        let namespace = File::open(&self.namespace.path)?;
        let resolv_conf = self
            .resolv_conf
            .map(|path| CString::new(path.as_os_str().as_encoded_bytes()))
            .transpose()?;
        let uid = self.uid;
        let mut command = std::process::Command::new(self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(self.stdout)
            .stderr(self.stderr);
        // SAFETY: the closure runs between fork and exec and makes system calls only; what it
        // needs was allocated before.
        unsafe {
            command.pre_exec(move || {
                enter(&namespace)?;
                if let Some(path) = &resolv_conf {
                    bind_resolv_conf(path)?;
                }
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setgid(uid))?;
                check(libc::setuid(uid))?;
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
            });
        }
        command.spawn()
    }
}

/// Puts `path` over `/etc/resolv.conf` in a mount namespace of the process's own.
fn bind_resolv_conf(path: &CString) -> io::Result<()> {
    // SAFETY: every pointer is a C string that lives through the call, or null where mount(2)
    // allows it.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        ))?;
        check(libc::mount(
            path.as_ptr(),
            c"/etc/resolv.conf".as_ptr(),
            std::ptr::null(),
            libc::MS_BIND,
            std::ptr::null(),
        ))
    }
}

/// Whether this process may make namespaces.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}
