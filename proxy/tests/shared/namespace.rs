//! Tests that change the network run in a network namespace of their own.

use std::process::Command;

/// Runs an ignored test of this program in a new network namespace, which ends with it.
pub fn run_in_namespace(test: &str) {
    let status = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .status()
        .expect("unshare is installed (util-linux)");
    assert!(
        status.success(),
        "{test}: {status} (a network namespace needs root)"
    );
}
