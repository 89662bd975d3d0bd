//! Proxies as processes: started for a case, their CPU and memory read from /proc.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::hop::Hop;
use crate::{BenchError, Programs, bootstrap, config};

/// The proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    Anyam,
    Envoy,
    Haproxy,
    Nginx,
    /// Our C relay: read and write.
    ReadWrite,
    /// Our C relay: splice.
    Splice,
    /// No proxy: the load goes to the app.
    Direct,
}

/// A program's processes for one case; ended on drop.
pub struct Running {
    processes: Vec<Child>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Fails only if the process has ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Running {
    /// Starts a process for each hop and waits until all listen.
    ///
    /// # Errors
    /// When one cannot be started or does not listen.
    pub fn start(
        program: Program,
        hops: &[Hop],
        workers: usize,
        programs: &Programs,
    ) -> Result<Self, BenchError> {
        let mut running = Self {
            processes: Vec::new(),
        };
        if program == Program::Direct {
            return Ok(running);
        }
        for (number, hop) in hops.iter().enumerate() {
            let mut process = spawn(program, hop, number, workers, programs)?;
            let listens = wait_for_port(hop.listen, &mut process);
            running.processes.push(process);
            if !listens {
                let words = std::fs::read_to_string(log(program, hop, &programs.scratch));
                let words = words.unwrap_or_default();
                return Err(BenchError::NotReady(
                    format!("{program:?} {}", hop.name),
                    words,
                ));
            }
        }
        Ok(running)
    }

    /// The process of each hop, in the order of hops.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Child::id).collect()
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
                let nanos = text.split(' ').next().and_then(|n| n.parse().ok());
                total += Duration::from_nanos(nanos.unwrap_or(0));
            }
        }
        Ok(total)
    }

    /// Resident memory of all processes, KiB.
    pub fn resident(&self) -> f64 {
        let of = |process: &Child| {
            let path = format!("/proc/{}/status", process.id());
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
            kib.unwrap_or(0.0)
        };
        self.processes.iter().map(of).sum()
    }
}

fn log(program: Program, hop: &Hop, folder: &Path) -> PathBuf {
    folder.join(format!("{program:?}-{}.log", hop.name))
}

/// Starts one process, without waiting for it.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(
    program: Program,
    hop: &Hop,
    number: usize,
    workers: usize,
    programs: &Programs,
) -> Result<Child, BenchError> {
    let folder = &programs.scratch;
    let io = |error| BenchError::Io {
        what: format!("{program:?} {}", hop.name),
        error,
    };
    let file = folder.join(format!("{program:?}-{}.conf", hop.name));
    let write = |text: String| std::fs::write(&file, text).map_err(io);
    let mut command = match program {
        Program::Anyam | Program::Envoy => {
            let admin = 21_000 + u16::try_from(number).unwrap_or(0);
            write(bootstrap::bootstrap(hop, folder, admin))?;
            let path = match program {
                Program::Anyam => &programs.anyam,
                _ => &programs.envoy,
            };
            let mut command = Command::new(path);
            command.arg("-c").arg(&file).args(["-l", "error"]);
            command.arg("--concurrency").arg(workers.to_string());
            if program == Program::Envoy {
                // Two Envoys of a pair would otherwise bind the same socket.
                command.arg("--disable-hot-restart");
            }
            command
        }
        Program::Haproxy => {
            write(config::haproxy(hop, folder, programs.connections))?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(&file);
            command
        }
        Program::Nginx => {
            write(config::nginx(hop, folder))?;
            let mut command = Command::new("nginx");
            // In the foreground and without a master: one process, as the others.
            command.args(["-g", "master_process off;", "-c"]).arg(&file);
            command
        }
        Program::ReadWrite | Program::Splice => {
            let mut command = Command::new(&programs.relay);
            let mode = if program == Program::Splice {
                "splice"
            } else {
                "rw"
            };
            command
                .arg(mode)
                .arg(hop.listen.to_string())
                .arg(hop.to.to_string());
            command
        }
        Program::Direct => Command::new("true"),
    };
    let output = File::create(log(program, hop, folder)).map_err(io)?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(io)?)
        .stderr(output)
        .spawn()
        .map_err(io)
}

/// The longest a program takes to listen.
const TIMEOUT: Duration = Duration::from_secs(30);

fn wait_for_port(port: u16, process: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < TIMEOUT {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
