//! A resource that several others refer to.

use super::*;

/// An assignment is subscribed to once, for all clusters that name it, and as long as one does.
#[test]
fn endpoints_stay_subscribed_to_while_any_cluster_names_them() {
    let mut rig = Rig::connected(Config::default());
    rig.deltas();
    rig.delta(ResourceType::Cluster, &["a e:shop"], &[]);
    assert_eq!(summary(&rig.deltas())[1..], ["endpoints +shop - "]);
    rig.delta(ResourceType::Endpoint, &["shop"], &[]);
    assert_eq!(rig.changes(), ["+shop", "+a e:shop"]);
    rig.deltas();
    // It is here, so a cluster that comes later waits for nothing and asks for nothing.
    rig.delta_versioned("2", ResourceType::Cluster, &["b e:shop"], &[]);
    assert_eq!(rig.changes(), ["+b e:shop"]);
    assert_eq!(rig.deltas().len(), 1, "the ACK");
    rig.delta_versioned("3", ResourceType::Cluster, &[], &["a"]);
    assert_eq!(rig.changes(), ["-a"]);
    assert_eq!(rig.deltas().len(), 1, "the ACK");
    rig.delta_versioned("4", ResourceType::Cluster, &[], &["b"]);
    assert_eq!(rig.changes(), ["-b", "-shop"]);
    assert_eq!(summary(&rig.deltas())[1..], ["endpoints + -shop "]);
}

/// The same where each response lists all clusters: the one that goes and the one that takes its
/// place in one response share the assignment.
#[test]
fn a_cluster_in_place_of_another_keeps_its_endpoints() {
    let mut rig = Rig::connected(sotw());
    rig.sotws();
    rig.sotw("1", ResourceType::Cluster, &["a e:shop"]);
    rig.sotw("1", ResourceType::Endpoint, &["shop"]);
    assert_eq!(rig.changes(), ["+shop", "+a e:shop"]);
    rig.sotws();
    rig.sotw("2", ResourceType::Cluster, &["b e:shop"]);
    let mut changes = rig.changes();
    changes.sort();
    assert_eq!(changes, ["+b e:shop", "-a"]);
    let endpoints = |request: &SotwRequest| request.kind == ResourceType::Endpoint;
    assert!(
        !rig.sotws().iter().any(endpoints),
        "no change of subscription"
    );
}
