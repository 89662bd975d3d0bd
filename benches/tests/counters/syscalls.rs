//! System calls, over all threads of all proxies of a path.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Sheet;
use crate::fixture::{Client, Fixture, optimised, paths};

const REQUESTS: u32 = 1000;

#[test]
fn a_request_makes_few_system_calls() {
    let fixture = Fixture::take();
    let mut sheet = Sheet::of("syscalls");
    for path in paths() {
        let running = fixture.start(&optimised(), &path);
        let mut client = Client::connect(&path);
        client.ask(100);
        let mut traced = Vec::new();
        for pid in running.pids() {
            traced.push(Trace::begin(pid, fixture.folder()));
        }
        client.ask(REQUESTS);
        let mut calls = BTreeMap::new();
        for trace in traced {
            trace.end(&mut calls);
        }
        let all: u32 = calls.values().sum();
        println!("{}: {calls:?}", path.name);
        sheet.measured(path.name, f64::from(all) / f64::from(REQUESTS));
    }
    sheet.close();
}

/// strace on one process.
struct Trace {
    strace: Child,
    file: std::path::PathBuf,
}

impl Trace {
    fn begin(pid: u32, folder: &Path) -> Self {
        let file = folder.join(format!("{pid}.trace"));
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "signal=none", "-o"])
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("strace: {error}. Run: apt-get install strace"));
        let began = Instant::now();
        while !all_traced(pid) {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "strace did not attach"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { strace, file }
    }

    /// Adds the calls that were made, by name.
    fn end(mut self, calls: &mut BTreeMap<String, u32>) {
        let pid = self.strace.id().to_string();
        let told = Command::new("kill").args(["-INT", &pid]).status();
        assert!(told.unwrap().success());
        self.strace.wait().unwrap();
        let text = std::fs::read_to_string(&self.file).unwrap();
        for line in text.lines() {
            // The thread's number, then the call; a resumed one was counted when it began.
            let call = line
                .split_once(' ')
                .map_or("", |(_, call)| call.trim_start());
            if let Some((name, _)) = call.split_once('(')
                && !call.starts_with("<...")
            {
                *calls.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
}

/// Whether every thread of a process has a tracer.
fn all_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.map(Result::unwrap).all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}
