//! A sidecar as in a pod, without a control plane: its status port works nevertheless.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::ports::free_port;
use crate::proxy::own_address;
use crate::running::{Running, TIMEOUT};

pub struct Sidecar {
    process: Running,
    status: SocketAddr,
    _state: tempfile::TempDir,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Sidecar {
    /// Starts it with the app's probes and metrics in the form that injection writes.
    pub fn start(probes: &Value, metrics: Option<&Value>) -> Self {
        let state = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
        command
            .args(["sidecar", "--concurrency", "1", "-l", "warn"])
            .env("ANYAM_WORKLOAD", "web")
            .env("ANYAM_ADDRESS", "127.0.0.1")
            .env("ANYAM_CONTROL_PLANE", format!("{}:9", own_address()))
            .env("ANYAM_STATE_DIR", state.path().join("identity"))
            .env("ANYAM_STATUS_PORT", port.to_string())
            .env("ANYAM_APP_PROBES", probes.to_string())
            .envs(metrics.map(|metrics| ("ANYAM_APP_METRICS", metrics.to_string())))
            .envs(["ADMIN", "METRICS", "HEALTH", "DNS"].map(|p| (format!("ANYAM_{p}_PORT"), "0")))
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let sidecar = Sidecar {
            process: Running::start(&mut command),
            status: ([127, 0, 0, 1], port).into(),
            _state: state,
        };
        sidecar.process.until("the status port opens", || {
            TcpStream::connect(sidecar.status).is_ok().then_some(())
        });
        sidecar
    }

    /// Its status port, on loopback.
    pub fn port(&self) -> u16 {
        self.status.port()
    }

    /// With one probe.
    pub fn probing(handler: (&str, Value), timeout: u32) -> Self {
        let (kind, handler) = handler;
        let probe = json!({"name": "web/livez", kind: handler, "timeoutSeconds": timeout});
        Self::start(&json!([probe]), None)
    }

    pub fn probe(&self) -> Answer {
        self.get("/app-health/web/livez", "")
    }

    pub fn get(&self, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.status).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        ask(&mut stream, path, headers);
        Answer::read(stream)
    }

    /// Asks from this address of loopback.
    pub fn ask_from(&self, source: [u8; 4], path: &str) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&self.status.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(2 * TIMEOUT)).unwrap();
        ask(&mut stream, path, "");
        stream
    }

    /// Waits for a condition.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        self.process.until(what, || done().then_some(()));
    }

    /// Its resident memory, bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.unwrap().parse::<u64>().unwrap() << 10
    }
}

fn ask(stream: &mut TcpStream, path: &str, headers: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: 10.0.0.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
}

impl Answer {
    /// Reads a response to its end.
    pub fn read(mut stream: TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}
