//! The proxy's process: requests to it, what is measured of it, and its end.
//!
//! Calls here block: the test's own thread makes them, peers have the runtime's others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::bootstrap::{ADMIN, Places};
use crate::running::{Running, TIMEOUT};

/// A loopback address by the process's number, unlike those of tests that run beside it.
pub fn own_address() -> Ipv4Addr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, 1)
}

/// A running proxy; ends when dropped.
pub struct Process {
    running: Running,
    address: Ipv4Addr,
}

/// What is back at its level once peers have gone.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    pub connections: f64,
    pub descriptors: usize,
    pub resident_kib: usize,
}

impl Process {
    /// Starts it, and waits until it is ready.
    pub fn start(places: &Places<'_>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
        command
            .args(["--config-yaml", &places.bootstrap().to_string()])
            .args(["-l", "warn", "--log-path"])
            .arg(places.folder.join("own"))
            .args(["--concurrency", "3", "--drain-time-s", "5"])
            .stdin(Stdio::null());
        let process = Self {
            running: Running::start(&mut command),
            address: places.address,
        };
        process.until("ready", || {
            let answer = process.get("/ready").ok()?;
            answer.starts_with("HTTP/1.1 200 ").then_some(())
        });
        process
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    fn of_proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.running.pid()).into()
    }

    /// Waits, bounded, for a condition in that process.
    pub fn until<T>(&self, what: &str, found: impl FnMut() -> Option<T>) -> T {
        self.running.until(what, found)
    }

    /// Sends `request` on a connection of its own; everything that comes back.
    pub fn ask(&self, port: u16, request: &str) -> std::io::Result<String> {
        let mut tcp = TcpStream::connect(self.at(port))?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.write_all(request.as_bytes())?;
        let mut all = Vec::new();
        tcp.read_to_end(&mut all)?;
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.ask(ADMIN, &request)
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.until("metrics", || self.get("/stats/prometheus").ok());
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next())?
        });
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    pub fn level(&self) -> Level {
        let status = std::fs::read_to_string(self.of_proc("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().trim().trim_end_matches(" kB");
        Level {
            connections: self.metric("anyam_listener_connections_active"),
            descriptors: std::fs::read_dir(self.of_proc("fd")).unwrap().count(),
            resident_kib: resident.parse().unwrap(),
        }
    }

    /// Time that its threads have run for.
    pub fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(self.of_proc("task")).unwrap();
        let times = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    /// Ends it in order.
    pub fn end(mut self) {
        self.running.signal(Signal::TERM);
        let status = self.running.ended();
        assert!(status.success(), "{status}");
    }
}
