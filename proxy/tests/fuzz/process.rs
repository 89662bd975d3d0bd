//! The proxy's process: what is measured of it, and its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bootstrap::{ADMIN, Places};

/// What takes longer than this is broken.
const SOON: Duration = Duration::from_secs(60);
/// A condition is looked at this often.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// A loopback address that no other test process uses.
pub fn own_address() -> Ipv4Addr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, 1)
}

/// A running proxy; ends when dropped.
pub struct Process {
    child: Child,
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
    pub async fn start(places: &Places<'_>) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
            .args(["--config-yaml", &places.bootstrap().to_string()])
            .args(["-l", "warn", "--log-path"])
            .arg(places.folder.join("own"))
            .args(["--concurrency", "3", "--drain-time-s", "5"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self {
            child,
            address: places.address,
        };
        process
            .until("ready", async |process| {
                let answer = process.get("/ready").await;
                let ready = answer.is_some_and(|text| text.starts_with("HTTP/1.1 200 "));
                ready.then_some(()).ok_or_else(String::new)
            })
            .await;
        process
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    fn of_proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    /// Fails when the process has ended.
    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the proxy ended: {ended:?}");
    }

    /// Waits, bounded, for a condition in that process.
    pub async fn until(&mut self, what: &str, done: impl AsyncFn(&Self) -> Result<(), String>) {
        let began = Instant::now();
        while let Err(how) = done(self).await {
            self.assert_alive();
            assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}: {how}");
            // Between two looks at the condition.
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let asking = async {
            let mut tcp = TcpStream::connect(self.at(ADMIN)).await.ok()?;
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            tcp.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(SOON, asking).await.ok()?
    }

    /// The sum of a metric's series.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/stats/prometheus").await.unwrap();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next())?
        });
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    pub async fn level(&self) -> Level {
        let status = std::fs::read_to_string(self.of_proc("status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().trim().trim_end_matches(" kB");
        Level {
            connections: self.metric("anyam_listener_connections_active").await,
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
    pub async fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < SOON, "still running");
            // Between two looks at the condition.
            tokio::time::sleep(ASK_AGAIN).await;
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
