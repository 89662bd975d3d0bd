//! The demo is its own test (`make test` runs it whole). Here: each check fails when its feature
//! is switched off, and nothing stays behind whichever way the demo ends.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyam_tests::{Run, program};

/// Building programs in parallel is fine; nine sidecars twice on two cores is not.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const TIMEOUT: Duration = Duration::from_secs(150);

fn demo(arguments: &[&str]) -> Run {
    Run::start(
        Command::new(program("anyam"))
            .args(["demo", "--dashboard", "127.0.0.1:0"])
            .args(arguments),
    )
}

/// Namespaces, processes and folders that belong to the demo with this pid.
fn left_behind(pid: u32) -> Vec<String> {
    let mut left = Vec::new();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let prefix = format!("anyam-demo-{pid}-");
    let text = String::from_utf8_lossy(&namespaces.stdout).into_owned();
    left.extend(
        text.lines()
            .filter(|line| line.starts_with(&prefix))
            .map(str::to_owned),
    );
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("/anyam-demo-") {
            left.push(command);
        }
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("anyam-demo-") {
            left.push(name);
        }
    }
    left
}

/// Runs the demo with `feature` switched off: the check named `check` must fail, and only that.
fn fails_without(feature: &str, check: &str) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut run = demo(&["--for", "1s", "--break", feature]);
    let pid = run.pid();
    let status = run.finish(TIMEOUT);
    assert_eq!(status.code(), Some(1), "{:#?}", run.seen);
    let failed: Vec<_> = run
        .seen
        .iter()
        .filter(|line| line.starts_with('\u{2718}'))
        .collect();
    assert_eq!(failed.len(), 1, "{:#?}", run.seen);
    assert!(failed[0].contains(check), "{:#?}", run.seen);
    assert_eq!(left_behind(pid), Vec::<String>::new());
}

#[test]
fn without_mtls_the_wire_is_readable() {
    fails_without("mtls", "mTLS on the wire");
}

#[test]
fn without_the_policy_the_intruder_is_answered() {
    fails_without("authorization", "unauthorised call");
}

#[test]
fn without_the_route_the_canary_gets_another_share() {
    fails_without("split", "canary 10 %");
}

#[test]
fn without_retries_callers_see_a_dead_replica() {
    fails_without("resilience", "killed");
}

#[test]
fn without_short_lives_no_certificate_rotates() {
    fails_without("rotation", "certificate rotated");
}

#[test]
fn without_the_change_traffic_stays_as_it_was() {
    fails_without("route-change", "route changed");
}

#[test]
fn nothing_stays_behind_after_an_interrupt() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let home = tempfile::tempdir().unwrap();
    let contexts = home.path().join("contexts");
    for signal in ["INT", "TERM"] {
        let mut run = Run::start(
            Command::new(program("anyam"))
                .args(["demo", "--dashboard", "127.0.0.1:0"])
                .env("ANYAM_CONFIG_DIR", home.path())
                .env_remove("SUDO_UID"),
        );
        let pid = run.pid();
        run.wait_for("traffic", TIMEOUT);
        // In another terminal, without flags.
        let asked = Command::new(program("anyam"))
            .arg("edges")
            .env("ANYAM_CONFIG_DIR", home.path())
            .output()
            .unwrap();
        assert!(asked.status.success(), "{asked:?}");
        assert_eq!(std::fs::read_dir(&contexts).unwrap().count(), 1);
        run.signal(signal);
        run.finish(Duration::from_secs(20));
        assert_eq!(left_behind(pid), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(&contexts).unwrap().count(), 0);
    }
}

#[test]
fn a_demo_that_cannot_start_says_so_and_leaves_nothing() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut run =
        Run::start(Command::new(program("anyam")).args(["demo", "--dashboard", &address]));
    let pid = run.pid();
    assert_eq!(run.finish(TIMEOUT).code(), Some(2));
    assert_eq!(left_behind(pid), Vec::<String>::new());
}
