//! What the data path asks for, bounds, and state-of-the-world servers.

use super::tests::{Rig, named, sotw, summary};
use super::*;

#[test]
fn the_data_path_gets_what_it_wants_once_all_of_it_is_there() {
    let mut rig = Rig::connected(named());
    rig.deltas();
    assert_eq!(rig.want(ResourceType::Listener, "out"), None);
    assert_eq!(summary(&rig.deltas()), ["listener +out - "]);
    assert_eq!(rig.want(ResourceType::Listener, "out"), None);
    assert_eq!(rig.deltas(), [], "asked once");
    rig.delta(ResourceType::Listener, &["out c:c"], &[]);
    assert_eq!(rig.answers(), []);
    rig.delta(ResourceType::Cluster, &["c"], &[]);
    assert_eq!(rig.changes(), ["+c", "+out c:c"]);
    assert_eq!(rig.answers(), [("out".into(), DemandResult::Found)]);
    assert_eq!(
        rig.want(ResourceType::Listener, "out"),
        Some(DemandResult::Found)
    );
}

#[test]
fn a_miss_is_remembered_for_a_while_and_corrected_at_once() {
    let mut rig = Rig::connected(named());
    rig.want(ResourceType::Listener, "none");
    rig.delta(ResourceType::Listener, &[], &["none"]);
    assert_eq!(rig.answers(), [("none".into(), DemandResult::Absent)]);
    rig.deltas();
    assert_eq!(
        rig.want(ResourceType::Listener, "none"),
        Some(DemandResult::Absent)
    );
    assert_eq!(rig.deltas(), []);
    rig.delta(ResourceType::Listener, &["none"], &[]);
    assert_eq!(
        rig.want(ResourceType::Listener, "none"),
        Some(DemandResult::Found)
    );
    rig.delta(ResourceType::Listener, &[], &["none"]);
    assert_eq!(rig.changes(), ["+none", "-none"]);
    rig.deltas();
    rig.pass(10);
    assert_eq!(summary(&rig.deltas()), ["listener + -none "]);
    assert_eq!(rig.want(ResourceType::Listener, "none"), None);
    assert_eq!(summary(&rig.deltas()), ["listener +none - "]);
}

#[test]
fn without_a_server_requests_time_out_unless_the_resource_is_cached() {
    let mut rig = Rig::connected(named());
    rig.want(ResourceType::Listener, "out");
    rig.delta(ResourceType::Listener, &["out"], &[]);
    rig.answers();
    rig.cache.disconnected(rig.now);
    assert_eq!(rig.want(ResourceType::Listener, "new"), None);
    rig.pass(3);
    assert_eq!(rig.answers(), [("new".into(), DemandResult::Unavailable)]);
    assert_eq!(
        rig.want(ResourceType::Listener, "newer"),
        Some(DemandResult::Unavailable)
    );
    assert_eq!(
        rig.want(ResourceType::Listener, "out"),
        Some(DemandResult::Found)
    );
    rig.cache.connected(rig.now);
    assert_eq!(rig.want(ResourceType::Listener, "newer"), None);
}

#[test]
fn wants_are_bounded_and_the_oldest_go_first() {
    let config = Config {
        max_on_demand: 4,
        ..named()
    };
    let mut rig = Rig::connected(config);
    for name in ["a", "b", "c", "d"] {
        rig.want(ResourceType::Listener, name);
        rig.delta(ResourceType::Listener, &[name], &[]);
        rig.pass(1);
    }
    rig.want(ResourceType::Listener, "a");
    rig.changes();
    rig.deltas();
    rig.want(ResourceType::Listener, "e");
    assert_eq!(rig.changes(), ["-b"]);
    assert_eq!(summary(&rig.deltas()), ["listener +e -b "]);
}

#[test]
fn an_evicted_listener_takes_along_what_only_it_needed() {
    let mut rig = Rig::connected(named());
    rig.want(ResourceType::Listener, "x");
    rig.delta(
        ResourceType::Listener,
        &["x c:shared c:own", "inbound c:shared"],
        &[],
    );
    rig.delta(ResourceType::Cluster, &["own", "shared"], &[]);
    rig.changes();
    rig.deltas();
    rig.pass(100);
    let idle = rig
        .cache
        .idle_on_demand(ResourceType::Listener, rig.now.instant);
    assert_eq!(idle, [Key::new(ResourceType::Listener, "x")]);
    rig.cache.evict(&idle[0], rig.now);
    rig.cache
        .evict(&Key::new(ResourceType::Listener, "inbound"), rig.now);
    assert_eq!(rig.changes(), ["-x", "-own"]);
    assert_eq!(
        summary(&rig.deltas()),
        ["cluster + -own ", "listener + -x "]
    );
}

#[test]
fn resources_are_bounded_in_number() {
    let config = Config {
        max_resources: 2,
        ..Config::default()
    };
    let mut rig = Rig::connected(config);
    rig.delta(ResourceType::Cluster, &["a", "b", "c"], &[]);
    assert_eq!(rig.changes(), ["+a", "+b"]);
    rig.deltas().pop().unwrap();
    rig.delta(ResourceType::Cluster, &["d"], &["a"]);
    rig.delta(ResourceType::Cluster, &["d"], &[]);
    assert_eq!(rig.changes(), ["-a", "+d"]);
}

#[test]
fn state_of_the_world_lists_names_versions_and_nonces() {
    let mut rig = Rig::connected(sotw());
    let first = rig.sotws();
    assert_eq!(first.len(), 2);
    assert!(
        first
            .iter()
            .all(|r| r.names.is_empty() && r.version.is_empty())
    );
    rig.sotw("1", ResourceType::Cluster, &["a e:a", "b e:b"]);
    let requests = rig.sotws();
    assert_eq!(
        (requests[0].version.as_str(), requests[0].nonce.as_str()),
        ("1", "n1")
    );
    assert_eq!(requests[1].kind, ResourceType::Endpoint);
    assert_eq!(requests[1].names, ["a", "b"]);
    rig.sotw("1", ResourceType::Endpoint, &["a", "b"]);
    rig.changes();
    rig.sotws();
    rig.sotw("2", ResourceType::Cluster, &["a e:a", "b bad"]);
    let nack = rig.sotws().remove(0);
    assert_eq!((nack.version.as_str(), nack.nonce.as_str()), ("1", "n2"));
    assert!(nack.error.is_some());
    assert_eq!(rig.changes(), [""; 0]);
    rig.sotw("3", ResourceType::Cluster, &["a e:a"]);
    assert_eq!(rig.changes(), ["-b", "-b"], "cluster and endpoints");
    let requests = rig.sotws();
    assert_eq!(requests[0].version, "3");
    assert_eq!(requests[1].names, ["a"]);
    rig.cache.disconnected(rig.now);
    rig.cache.connected(rig.now);
    let again = rig.sotws();
    assert_eq!(
        (again[0].version.as_str(), again[0].nonce.as_str()),
        ("3", "")
    );
}

#[test]
fn state_of_the_world_by_name_answers_absence_by_time() {
    let mut rig = Rig::connected(Config {
        protocol: ProtocolVariant::Sotw,
        ..named()
    });
    rig.sotw("1", ResourceType::Listener, &["inbound"]);
    rig.sotws();
    rig.want(ResourceType::Listener, "x");
    assert_eq!(rig.sotws()[0].names, ["inbound", "x"]);
    rig.sotw("1", ResourceType::Listener, &["inbound"]);
    assert_eq!(
        rig.answers(),
        [],
        "that may have been sent before it read our request"
    );
    rig.sotw("2", ResourceType::Listener, &["inbound", "x"]);
    assert_eq!(rig.answers(), [("x".into(), DemandResult::Found)]);
    rig.sotw("3", ResourceType::Listener, &["inbound"]);
    assert_eq!(rig.changes(), ["+inbound", "+x", "-x"]);
}
