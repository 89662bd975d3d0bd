//! Pods in network namespaces of their own, with sidecars that all of their traffic goes through. The
//! API server and the control planes are in another one, on the same bridge.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyam_cli::demo::netns::{Command, Namespace, Network};

use crate::command::program;
use crate::control_plane::Bench;
use crate::http;
use crate::wait::until;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Of the sidecar; its own connections are not redirected.
const PROXY_UID: u32 = 1337;
const ADMIN: &str = "127.0.0.1:15000";
const HEALTH: &str = "127.0.0.1:15021";

/// See the module. Needs root.
pub struct PodNetwork {
    network: Network,
    /// Programs and files of the pods.
    folder: tempfile::TempDir,
}

impl PodNetwork {
    /// The address of the API server's and the control planes' namespace.
    pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

    /// Makes the network, and moves the calling thread into the namespace of the control planes: what
    /// it starts from now on is there.
    ///
    /// # Panics
    /// When the kernel refuses a namespace.
    pub fn enter() -> Self {
        let mut network = Network::create().unwrap();
        let control = network.add_host("control", Self::CONTROL).unwrap();
        control.enter().unwrap();
        let folder = tempfile::Builder::new()
            .prefix("anyam-pods-")
            .tempdir()
            .unwrap();
        // Sidecars of another user walk through it; what is secret inside has modes of its own.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let proxy = program("anyam-proxy");
        let copy = folder.path().join("anyam-proxy");
        fs::hard_link(&proxy, &copy)
            .or_else(|_| fs::copy(&proxy, &copy).map(drop))
            .unwrap();
        PodNetwork { network, folder }
    }

    /// A pod of namespace `shop` with its sidecar, once that is ready. `root`: of the CA.
    ///
    /// # Panics
    /// When it is not ready within a minute.
    pub async fn pod(
        &mut self,
        bench: &Bench,
        (name, account): (&str, &str),
        address: Ipv4Addr,
        (control, root): (SocketAddr, &str),
        more: &[&str],
    ) -> PodHost {
        bench.pod_at(name, account, address);
        let host = self.network.add_host(name, address).unwrap();
        let proxy = self.folder.path().join("anyam-proxy");
        let redirect = command(&host, &proxy, &["redirect"]).spawn().unwrap();
        let redirected = redirect.wait_with_output().unwrap();
        assert!(redirected.status.success(), "{redirected:?}");

        let state = self.folder.path().join(name);
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        fs::write(state.join("ca.crt"), root).unwrap();
        fs::write(state.join("token"), bench.token(name, account, "anyam-ca")).unwrap();
        for path in [&state, &state.join("ca.crt"), &state.join("token")] {
            chown(path, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        }
        let path = |name: &str| state.join(name).display().to_string();
        let (address, control) = (address.to_string(), control.to_string());
        let (token, ca, state_dir) = (path("token"), path("ca.crt"), path("state"));
        let arguments = [
            &["sidecar", "--workload", name, "--namespace", "shop"][..],
            &["--service-account", account, "--address", &address],
            &["--control-plane", &control, "--token-file", &token],
            &["--ca-file", &ca, "--state-dir", &state_dir],
            more,
        ];
        let mut command = command(&host, &proxy, &arguments.concat());
        command.uid = PROXY_UID;
        let log = self.folder.path().join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        command.stdout = open().unwrap().into();
        command.stderr = open().unwrap().into();
        let pod = PodHost {
            sidecar: command.spawn().unwrap(),
            host,
            state,
            log,
        };
        until(&format!("{name} to be ready"), TIMEOUT, async || {
            let answer = pod.get(HEALTH.parse().unwrap(), "/healthz/ready");
            match &answer {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}\n{}", pod.log())),
            }
        })
        .await;
        pod
    }
}

/// As root, with its output for the caller.
fn command<'a>(namespace: &'a Namespace, program: &'a Path, arguments: &[&str]) -> Command<'a> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Command {
        namespace,
        program,
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        environment: vec![("PATH", path.into())],
        uid: 0,
        resolv_conf: None,
        stdout: Stdio::piped(),
        stderr: Stdio::piped(),
    }
}

/// A pod's network namespace, and its sidecar, which is ended on drop.
pub struct PodHost {
    host: Namespace,
    sidecar: Child,
    state: PathBuf,
    log: PathBuf,
}

impl PodHost {
    /// A request as the pod's app would send it; the response's status and body.
    ///
    /// # Errors
    /// When no whole response comes.
    pub fn get(&self, to: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
        within(&self.host, || http::get(to, path, &[]))
    }

    /// Connects to all of these addresses, so that the sidecar subscribes to what is there.
    ///
    /// # Panics
    /// When the sidecar does not accept a connection.
    pub fn use_all(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let addresses: Vec<_> = addresses.collect();
        within(&self.host, || {
            for address in addresses {
                TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
            }
        });
    }

    /// A page of the sidecar's admin port.
    ///
    /// # Panics
    /// When it does not answer 200.
    pub fn admin(&self, path: &str) -> String {
        let (status, body) = self.get(ADMIN.parse().unwrap(), path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// An app that answers every request with 200 and, as body, the `x-forwarded-client-cert` header
    /// of the request, until the process ends.
    ///
    /// # Panics
    /// When the port is in use.
    pub fn serve(&self, port: u16) {
        let listener = within(&self.host, || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap()
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The caller sees what fails here.
                let _ = answer(stream);
            }
        });
    }

    /// Certificate chain of the sidecar, as PEM.
    ///
    /// # Panics
    /// When it has none.
    pub fn certificate_chain(&self) -> String {
        let text = fs::read(self.state.join("state/identity.json")).unwrap();
        let identity: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let chain = identity["certificate_chain"].as_str().unwrap();
        chain.replace('\r', "")
    }

    pub fn pid(&self) -> u32 {
        self.sidecar.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Requests, one after the other, until it is dropped.
    pub fn load(&self, to: SocketAddr) -> Load {
        let (answered, failures) = (Arc::default(), Arc::default());
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Load {
            answered,
            failures,
            stop,
            thread: None,
        };
        let (answered, failures) = (load.answered.clone(), load.failures.clone());
        let (stop, host) = (load.stop.clone(), self.host.clone());
        load.thread = Some(std::thread::spawn(move || {
            host.enter().unwrap();
            while !stop.load(Ordering::Relaxed) {
                match http::get(to, "/", &[]) {
                    Ok((200, body)) if body.contains("URI=spiffe://") => {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failures.lock().unwrap().push(format!("{other:?}")),
                }
            }
        }));
        load
    }
}

impl Drop for PodHost {
    fn drop(&mut self) {
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
        if std::thread::panicking() {
            eprintln!("== {}\n{}", self.log.display(), self.log());
        }
    }
}

/// Runs `what` in the namespace, on a thread of its own.
fn within<T: Send>(host: &Namespace, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            host.enter().unwrap();
            what()
        });
        thread.join().unwrap()
    })
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let caller = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("x-forwarded-client-cert");
        is_it.then(|| value.trim())
    });
    let body = caller.unwrap_or("none");
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Requests whose callers were authenticated by mTLS, one after the other, until it is dropped.
pub struct Load {
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Waits for further requests to be answered, and asserts that none failed.
    ///
    /// # Panics
    /// When one failed, or not so many are answered in a minute.
    pub async fn goes_on(&self, requests: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        until("requests to be answered", TIMEOUT, async || {
            let failures = self.failures.lock().unwrap().clone();
            assert!(failures.is_empty(), "{failures:?}");
            let answered = self.answered.load(Ordering::Relaxed) - before;
            match answered >= requests {
                true => Ok(()),
                false => Err(format!("{answered} of {requests}")),
            }
        })
        .await;
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the load was seen as too few answers.
            let _ = thread.join();
        }
    }
}
