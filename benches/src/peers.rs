//! Proxies as processes: started from the same bootstrap, their CPU read from schedstat.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::cases::Case;

pub struct Peer {
    pub name: &'static str,
    program: PathBuf,
    /// Arguments that this peer needs beside the common ones.
    extra: &'static [&'static str],
}

impl Peer {
    pub fn new(name: &'static str, program: &Path, extra: &'static [&'static str]) -> Self {
        Self {
            name,
            program: program.to_owned(),
            extra,
        }
    }
}

/// A peer's processes for one case; ended on drop.
pub struct Running {
    processes: Vec<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Already gone is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Running {
    /// Starts the case's processes with one worker each and waits until all listen.
    ///
    /// # Errors
    /// When one cannot be started or does not listen.
    pub fn start(peer: &Peer, case: Case, scratch: &Path) -> Result<Self, BenchError> {
        let mut running = Self {
            processes: Vec::new(),
        };
        for (number, (name, bootstrap)) in case.bootstraps().iter().enumerate() {
            let io = |error| BenchError::Io {
                what: format!("{} {name}", peer.name),
                error,
            };
            let admin = 21_000 + number;
            let text = bootstrap
                .replace("@ADMIN@", &admin.to_string())
                .replace("@CERTS@", &scratch.display().to_string());
            let file = scratch.join(format!("{}-{name}.yaml", peer.name));
            std::fs::write(&file, text).map_err(io)?;
            let log = scratch.join(format!("{}-{name}.log", peer.name));
            let output = File::create(&log).map_err(io)?;
            let process = Command::new(&peer.program)
                .arg("-c")
                .arg(&file)
                .args(["--concurrency", "1", "-l", "error"])
                .args(peer.extra)
                .stdin(Stdio::null())
                .stdout(output.try_clone().map_err(io)?)
                .stderr(output)
                .spawn()
                .map_err(io)?;
            running.processes.push(process);
            let port = if *name == "mtls-server" {
                20_002
            } else {
                20_001
            };
            wait_for_port(port).map_err(|()| {
                let words = std::fs::read_to_string(&log).unwrap_or_default();
                BenchError::NotReady(format!("{} {name}", peer.name), words)
            })?;
        }
        Ok(running)
    }

    /// CPU time used so far, all threads of all processes.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn cpu(&self) -> Result<Duration, BenchError> {
        let mut total = Duration::ZERO;
        for process in &self.processes {
            let folder = format!("/proc/{}/task", process.id());
            let io = |error| BenchError::Io {
                what: folder.clone(),
                error,
            };
            for task in std::fs::read_dir(&folder).map_err(io)? {
                let path = task.map_err(io)?.path().join("schedstat");
                // A thread may end between the listing and the reading.
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let nanos = text
                    .split(' ')
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0);
                total += Duration::from_nanos(nanos);
            }
        }
        Ok(total)
    }
}

fn wait_for_port(port: u16) -> Result<(), ()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(())
}
