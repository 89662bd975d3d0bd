//! `anyam-proxy redirect`: rules in real network namespaces, and real connections through them.
//!
//! - `pod`: two namespaces, the pod's and the node's, with listeners that answer with their names
//! - `table`: options, and which connections they capture
//! - `changes`: installing twice, removing, comparing, conflicts, refusals

mod changes;
mod pod;
mod table;

use std::process::Command;

/// Runs another test of this file in a network namespace of its own, which ends with it.
fn in_a_namespace(test: &str) {
    let status = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}

#[test]
fn options_and_the_connections_that_they_capture() {
    in_a_namespace("redirect::table::every_option");
}

#[test]
fn rules_are_replaced_compared_and_removed() {
    in_a_namespace("redirect::changes::replaced_compared_removed");
}

#[test]
fn other_tables_stay_as_they_are() {
    in_a_namespace("redirect::changes::beside_other_tables");
}

#[test]
fn a_refused_installation_changes_nothing() {
    in_a_namespace("redirect::changes::refused");
}
