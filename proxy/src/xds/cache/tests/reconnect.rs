//! Streams that end and begin again.

use super::*;

#[test]
fn a_reconnect_says_what_is_held_and_keeps_it_in_force() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound c:c"], &[]);
    rig.delta_versioned("7", ResourceType::Cluster, &["c"], &[]);
    rig.changes();
    rig.deltas();
    rig.cache.disconnected(rig.now);
    rig.pass(3600);
    assert_eq!(rig.changes(), [""; 0]);
    rig.cache.connected(rig.now);
    let requests = rig.deltas();
    assert_eq!(
        summary(&requests),
        ["cluster +c - ", "listener +inbound - "]
    );
    let versions: Vec<_> = requests.iter().map(|r| &r.initial_versions[0].1).collect();
    assert_eq!(versions, ["7", "1"]);
    let validated = rig.validator.calls;
    rig.delta_versioned("7", ResourceType::Cluster, &["c"], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    assert_eq!(
        rig.validator.calls, validated,
        "the same version is not compiled again"
    );
    rig.delta_versioned("3", ResourceType::Cluster, &["c older"], &[]);
    assert_eq!(rig.changes(), ["+c older"], "versions have no order");
}

#[test]
fn a_stream_cut_before_the_first_answer_asks_again() {
    let mut rig = Rig::connected(named());
    let first = rig.deltas();
    rig.cache.disconnected(rig.now);
    assert_eq!(rig.requests(), []);
    rig.cache.connected(rig.now);
    assert_eq!(rig.deltas(), first);
}
