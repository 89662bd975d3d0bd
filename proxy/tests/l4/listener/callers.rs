//! Callers of inbound connections, whose labels are looked up by address.

use std::time::Duration;

use anyam_proxy::bug;
use anyam_proxy::config::demand::OnDemandClient;
use serde_json::json;

use super::rig::{Rig, connect, echo_server, listener, static_cluster};
use crate::support::run;

/// A panic in the look-up costs the caller's labels, not the counts of its connection.
#[test]
fn a_look_up_that_panics_leaves_the_caller_unknown() {
    run(async {
        let (demand, _asked) = OnDemandClient::new(16, Duration::from_secs(3600));
        let mut rig = Rig::with(Some(demand));
        let port = rig.free_port();
        let mut inbound = listener("in", port, json!({}), "echo");
        inbound["traffic_direction"] = "INBOUND".into();
        let cluster = static_cluster("echo", echo_server().await);
        rig.apply(&[cluster], &[inbound]);
        bug::panic_at(std::thread::current().id(), "caller");
        let client = connect(port).await;
        rig.until(|| rig.metric("istio_tcp_connections_opened_total{"))
            .await;
        assert!(rig.metric("source_workload=\"unknown\""));
        drop(client);
        rig.until(|| rig.metric("istio_tcp_connections_closed_total{"))
            .await;
    });
}
