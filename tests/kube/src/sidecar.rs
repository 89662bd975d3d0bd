//! Sidecars of pods, as processes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::command::program;
use crate::control_plane::{Bench, openssl};
use crate::wait::until;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Ports of loopback that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A sidecar that was not started.
pub struct SidecarPlan {
    folder: PathBuf,
    arguments: Vec<String>,
}

impl SidecarPlan {
    pub fn new(
        bench: &Bench,
        (pod, account): (&str, &str),
        (address, control): (&str, SocketAddr),
        more: &[&str],
    ) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = bench.path(&format!("sidecar-{number}"));
        std::fs::create_dir(&folder).unwrap();
        let control = control.to_string();
        let arguments = [
            ["--workload", pod],
            ["--namespace", "shop"],
            ["--service-account", account],
            ["--address", address],
            ["--control-plane", &control],
        ];
        let mut arguments: Vec<String> =
            arguments.concat().into_iter().map(str::to_owned).collect();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        SidecarPlan { folder, arguments }
    }

    /// With a token and the roots that a pod's volume has.
    pub fn start(self, token: &str, root: &str) -> Sidecar {
        let SidecarPlan { folder, arguments } = self;
        let path = |name: &str| folder.join(name);
        std::fs::write(path("token"), token).unwrap();
        std::fs::write(path("ca.crt"), root).unwrap();
        let [outbound, inbound, health] = free_ports();
        let port = |flag: &str, port: u16| [flag.to_owned(), port.to_string()];
        let child = Command::new(program("anyam-proxy"))
            .arg("sidecar")
            .args(arguments)
            .arg("--token-file")
            .arg(path("token"))
            .arg("--ca-file")
            .arg(path("ca.crt"))
            .arg("--state-dir")
            .arg(path("state"))
            .args(port("--outbound-port", outbound))
            .args(port("--inbound-port", inbound))
            .args(port("--health-port", health))
            .args([
                "--admin-port=0",
                "--metrics-port=0",
                "--dns-port=0",
                "--concurrency=1",
            ])
            .stdin(Stdio::null())
            .stdout(File::create(path("out.log")).unwrap())
            .stderr(File::create(path("err.log")).unwrap())
            .spawn()
            .unwrap();
        Sidecar {
            child,
            folder,
            health,
        }
    }
}

/// A pod's sidecar; ended on drop.
pub struct Sidecar {
    child: Child,
    folder: PathBuf,
    health: u16,
}

impl Sidecar {
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        format!("{}{}", read("out.log"), read("err.log"))
    }

    /// As the kubelet replaces it: by a rename.
    pub fn set_token(&self, token: &str) {
        let new = self.folder.join("token.new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, self.folder.join("token")).unwrap();
    }

    /// Key, certificates and root, once there are any.
    pub fn identity(&self) -> Option<Value> {
        let text = std::fs::read(self.folder.join("state/identity.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Waits for a certificate, and returns the output of `openssl x509`.
    pub async fn certificate(&self) -> String {
        let identity = until("a certificate", TIMEOUT, async || {
            self.identity().ok_or_else(|| self.log())
        })
        .await;
        let chain = identity["certificate_chain"].as_str().unwrap();
        let show = [
            "x509",
            "-noout",
            "-subject",
            "-serial",
            "-ext",
            "subjectAltName",
        ];
        openssl(&show, chain)
    }

    /// Waits until it has its configuration.
    pub async fn ready(&self) {
        until("the sidecar to be ready", TIMEOUT, async || {
            let answer = self.ask("/healthz/ready").unwrap_or_default();
            match answer.starts_with("HTTP/1.1 200") {
                true => Ok(()),
                false => Err(format!("{answer}\n{}", self.log())),
            }
        })
        .await;
    }

    fn ask(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until the CA has refused it for this reason; it has no certificate then.
    pub async fn refused(&self, why: &str) {
        until(&format!("a refusal because {why:?}"), TIMEOUT, async || {
            let log = self.log();
            if log.contains(why) { Ok(()) } else { Err(log) }
        })
        .await;
        assert!(self.identity().is_none());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
