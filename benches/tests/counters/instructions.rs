//! Instructions in user space, over all proxies of a path, as callgrind counts them: the same
//! whatever else the machine does.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Sheet;
use crate::fixture::{Client, Fixture, optimised, paths};

const REQUESTS: u32 = 500;

#[test]
fn a_request_takes_few_instructions() {
    let fixture = Fixture::take();
    let program = under_callgrind(fixture.folder());
    let mut sheet = Sheet::of("instructions");
    for path in paths() {
        let running = fixture.start(&program, &path);
        let mut client = Client::connect(&path);
        client.ask(100);
        for pid in running.pids() {
            control("--zero", pid);
        }
        client.ask(REQUESTS);
        let mut all = 0.0;
        for pid in running.pids() {
            control("--dump", pid);
            all += total(&fixture.folder().join(format!("callgrind.{pid}.1")));
        }
        sheet.measured(path.name, all / f64::from(REQUESTS));
    }
    sheet.close();
}

/// A program that is the proxy in callgrind.
fn under_callgrind(folder: &Path) -> PathBuf {
    let file = folder.join("proxy-in-callgrind");
    let script = format!(
        "#!/bin/sh\nexec valgrind -q --tool=callgrind --callgrind-out-file={}/callgrind.%p {} \"$@\"\n",
        folder.display(),
        optimised().display(),
    );
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    file
}

fn control(what: &str, pid: u32) {
    let output = Command::new("callgrind_control")
        .args([what, &pid.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("callgrind: {error}. Run: apt-get install valgrind"));
    assert!(
        output.status.success(),
        "callgrind_control {what}: {output:?}"
    );
}

/// The sum that a dump ends with.
fn total(dump: &Path) -> f64 {
    let text = std::fs::read_to_string(dump).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let line = line.or_else(|| text.lines().find_map(|line| line.strip_prefix("summary: ")));
    line.unwrap().trim().parse().unwrap()
}
