//! How long what waits does so, also when what it waits for waits for it.

use super::*;

#[test]
fn a_resource_may_say_itself_how_long_it_waits() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r wait:2"], &[]);
    rig.pass(1);
    assert_eq!(rig.changes(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.changes(), ["+inbound r:r wait:2"]);
}

#[test]
fn the_first_configuration_is_not_waited_for_for_ever() {
    let rig = Rig::new(named());
    assert!(!rig.cache.is_initialised(rig.now));
    let at = |instant| Now { instant, ..rig.now };
    assert!(rig.cache.is_initialised(at(rig.cache.initial_deadline())));
}

#[test]
fn resources_that_refer_to_each_other_come_into_force_and_can_be_let_go() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound c:a"], &[]);
    rig.delta(ResourceType::Cluster, &["a c:b", "b c:a"], &[]);
    rig.delta(ResourceType::Route, &["self r:self"], &[]);
    assert_eq!(rig.changes(), [""; 0]);
    rig.pass(15);
    let mut changes = rig.changes();
    changes.sort();
    assert_eq!(changes, ["+a c:b", "+b c:a", "+inbound c:a"]);
    // Out of the circle, what nothing refers to any more goes, and the rest stays in force.
    rig.delta_versioned("2", ResourceType::Cluster, &["a", "b c:a"], &[]);
    assert_eq!(rig.changes(), ["+a", "-b"]);
    rig.delta_versioned("3", ResourceType::Listener, &["inbound"], &[]);
    assert_eq!(rig.changes(), ["+inbound", "-a"]);
}
