//! The order in which changes are published, and what happens to changes that cannot be.

use super::*;

#[test]
fn an_old_cluster_is_removed_only_after_the_route_to_the_new_one_is_published() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r"], &[]);
    rig.delta(ResourceType::Route, &["r c:old"], &[]);
    rig.delta(ResourceType::Cluster, &["old"], &[]);
    rig.changes();
    rig.deltas();
    rig.delta_versioned("2", ResourceType::Route, &["r c:new"], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    assert_eq!(
        summary(&rig.deltas()),
        ["route configuration + - n2", "cluster +new - "]
    );
    rig.delta(ResourceType::Cluster, &["new"], &[]);
    assert_eq!(rig.changes(), ["+new", "+r c:new", "-old"]);
    let after = summary(&rig.deltas());
    assert_eq!(after, ["cluster + - n1", "cluster + -old "]);
}

#[test]
fn a_version_that_cannot_be_published_leaves_the_one_before_with_its_references() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound c:old"], &[]);
    rig.delta(ResourceType::Cluster, &["old"], &[]);
    assert_eq!(rig.changes(), ["+old", "+inbound c:old"]);
    rig.deltas();
    let body = "inbound c:new unpublishable";
    rig.delta_versioned("2", ResourceType::Listener, &[body], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    // Acknowledged, and waiting for its cluster.
    assert_eq!(
        summary(&rig.deltas()),
        ["listener + - n2", "cluster +new - "]
    );
    rig.delta_versioned("3", ResourceType::Cluster, &["new"], &[]);
    assert_eq!(rig.changes(), ["+new", "-new"], "`old` stays");
    let requests = rig.deltas();
    let nack = requests.iter().find(|request| request.error.is_some());
    let nack = nack.unwrap();
    assert_eq!((nack.kind, &*nack.nonce), (ResourceType::Listener, "n2"));
    let subscriptions: Vec<_> = requests.iter().flat_map(|r| &r.unsubscribe).collect();
    assert_eq!(subscriptions, ["new"]);
    assert!(rig.cache.rejected().unwrap().contains("panicked"));

    // The same version is tried and refused again; a valid one is published.
    rig.delta(ResourceType::Listener, &["inbound unpublishable"], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    assert!(rig.deltas()[0].error.is_some());
    rig.delta(ResourceType::Listener, &["inbound c:old better"], &[]);
    assert_eq!(rig.changes(), ["+inbound c:old better"]);
    assert_eq!(rig.cache.rejected(), None);
}

#[test]
fn a_queued_acknowledgement_becomes_a_nack_with_each_refused_resource_and_the_version_before() {
    let mut rig = Rig::connected(sotw());
    rig.sotw("1", ResourceType::Cluster, &["a", "b"]);
    rig.changes();
    rig.sotws();
    let bodies = ["a", "b", "c unpublishable", "d unpublishable", "e e:e"];
    rig.sotw("2", ResourceType::Cluster, &bodies);
    assert_eq!(rig.changes(), [""; 0]);
    let requests = rig.sotws();
    let error = requests[0].error.as_ref().unwrap();
    assert!(
        error.contains("\"c\"") && error.contains("\"d\""),
        "{error}"
    );
    let clusters = requests.iter().filter(|r| r.kind == ResourceType::Cluster);
    assert!(clusters.clone().all(|request| request.version == "1"));
    assert_eq!(rig.cache.type_version(ResourceType::Cluster), "1");
    rig.sotw("3", ResourceType::Cluster, &["a", "b", "c"]);
    assert_eq!(rig.changes(), ["+c"]);
    let ack = rig.sotws().remove(0);
    assert_eq!((&*ack.version, ack.error), ("3", None));
}

#[test]
fn a_resource_that_cannot_be_published_is_answered_as_absent() {
    let mut rig = Rig::connected(named());
    assert_eq!(rig.want(ResourceType::Listener, "x"), None);
    rig.delta(ResourceType::Listener, &["x unpublishable"], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    assert_eq!(rig.answers(), [("x".to_owned(), DemandResult::Absent)]);
    let known = rig.want(ResourceType::Listener, "x");
    assert_eq!(known, Some(DemandResult::Absent));
}

#[test]
fn what_only_a_refused_resource_refers_to_is_not_removed_when_it_is_refused_too() {
    let mut rig = Rig::connected(named());
    let listener = "inbound c:d unpublishable";
    rig.delta(ResourceType::Listener, &[listener], &[]);
    rig.delta(ResourceType::Cluster, &["d e:x unpublishable"], &[]);
    // The cluster does without its endpoints from then on, and the listener has its cluster.
    rig.pass(15);
    assert_eq!(rig.changes(), [""; 0], "neither was in force");
}
