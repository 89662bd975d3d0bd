//! `anyam-proxy redirect`: rules in real network namespaces, and real connections through them.
//!
//! - `pod`: two namespaces, the pod's and the node's, with listeners that answer with their names
//! - `table`: options, and which connections they capture
//! - `changes`: installing twice, removing, comparing, conflicts, refusals

mod changes;
mod pod;
mod table;

use crate::namespace::run_in_namespace;

#[test]
fn options_and_the_connections_that_they_capture() {
    run_in_namespace("redirect::table::every_option");
}

#[test]
fn rules_are_replaced_compared_and_removed() {
    run_in_namespace("redirect::changes::replaced_compared_removed");
}

#[test]
fn other_tables_stay_as_they_are() {
    run_in_namespace("redirect::changes::beside_other_tables");
}

#[test]
fn a_refused_installation_changes_nothing() {
    run_in_namespace("redirect::changes::refused");
}
