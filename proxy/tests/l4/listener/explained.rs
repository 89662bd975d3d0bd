//! `explain` gives the outcome that an opaque connection then has, by the caller's address and by the
//! identity that its certificate proves.

use std::net::SocketAddr;

use anyam_proxy::inspect::explain::explain;
use anyam_proxy::stream::Stream;
use anyam_proxy::tls::{ClientContext, Dial};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xds_proto::anyam::inspect::v1::decision::Outcome;
use xds_proto::anyam::inspect::v1::{Decision, Explain};

use super::rig::{Rig, connect, echo_server, rbac, static_cluster, tcp_proxy};
use super::updates::permissive;
use crate::support::pki::{Ca, client, uri};
use crate::support::run;

const CASES: usize = 96;
const FRONT: &str = "spiffe://mesh.local/ns/shop/sa/front";
const OTHER: &str = "spiffe://mesh.local/ns/shop/sa/other";

/// Network RBAC filters with one policy each: action, permission, principal.
type Policies = Vec<(&'static str, Value, Value)>;

/// Of a listener on `port`.
fn policies(port: u16) -> impl Strategy<Value = Policies> {
    let action = prop::sample::select(vec!["ALLOW", "DENY"]);
    let range = |prefix: &str, bits: u8| json!({"address_prefix": prefix, "prefix_len": bits});
    let permission = prop::sample::select(vec![
        json!({"any": true}),
        json!({"destination_port": port}),
        json!({"destination_port": 1}),
        json!({"destination_ip": range("127.0.0.0", 8)}),
        json!({"not_rule": {"destination_ip": range("127.0.0.0", 8)}}),
    ]);
    let named = |name: &str| json!({"authenticated": {"principal_name": {"exact": name}}});
    let principal = prop::sample::select(vec![
        json!({"any": true}),
        json!({"authenticated": {}}),
        named(FRONT),
        named(OTHER),
        json!({"not_id": named(FRONT)}),
        json!({"direct_remote_ip": range("127.0.0.0", 8)}),
        json!({"remote_ip": range("10.0.0.0", 8)}),
    ]);
    prop::collection::vec((action, permission, principal), 0..3)
}

/// Takes mTLS and plaintext, both under the policies.
fn under(port: u16, policies: &Policies) -> Value {
    let mut listener = permissive(port, tcp_proxy("echo"), true, false);
    listener["traffic_direction"] = "INBOUND".into();
    for chain in listener["filter_chains"].as_array_mut().unwrap() {
        let filters = chain["filters"].as_array_mut().unwrap();
        for (at, (action, permission, principal)) in policies.iter().enumerate() {
            let mut filter = rbac(action, "");
            let policy = &mut filter["typed_config"]["rules"]["policies"]["one"];
            *policy = json!({"permissions": [permission], "principals": [principal]});
            filters.insert(at, filter);
        }
    }
    listener
}

/// Whether the decisions come to a connection that is served.
fn promises(decisions: &[Decision]) -> bool {
    for one in decisions {
        match one.outcome() {
            Outcome::Denied => return false,
            Outcome::Chosen if one.stage == "endpoint" => return true,
            _ => {}
        }
    }
    panic!("nothing is decided: {decisions:#?}")
}

/// Whether a byte is echoed.
async fn is_served(rig: &Rig, port: u16, context: Option<&ClientContext>) -> bool {
    let tcp = connect(port).await;
    let mut stream: Stream = match context {
        None => tcp.into(),
        Some(context) => {
            let dial = Dial::default();
            let connecting = rig.worker.tls.connect(tcp, context, &dial);
            connecting.await.unwrap().into()
        }
    };
    // A refused connection may be reset before this is written.
    let _ = stream.write_all(b"x").await;
    let _ = stream.flush().await;
    stream.read_exact(&mut [0]).await.is_ok()
}

fn context(ca: &Ca, name: &str) -> ClientContext {
    let identity = ca.issue(vec![uri(name)]).identity();
    ClientContext::new(client(Some(identity), ca.bundle()))
}

#[test]
fn an_opaque_connection_gets_what_was_explained() {
    run(async {
        let (mut rig, port, ca) = Rig::of_cart();
        let cluster = static_cluster("echo", echo_server().await);
        rig.apply(&[cluster], &[]);
        let (front, other) = (context(&ca, FRONT), context(&ca, OTHER));
        let callers = [("", None), (FRONT, Some(&front)), (OTHER, Some(&other))];
        let destination = SocketAddr::from(([127, 0, 0, 1], port));
        let mut runner = TestRunner::default();
        let cases = (policies(port), prop::sample::select(vec![0, 1, 2]));
        for _ in 0..CASES {
            let (policies, caller) = cases.new_tree(&mut runner).unwrap().current();
            let (identity, context) = callers[caller];
            rig.apply(&[], &[under(port, &policies)]);
            let question = Explain {
                inbound: true,
                address: destination.ip().to_string(),
                port: port.into(),
                peer_identity: identity.to_owned(),
                ..Explain::default()
            };
            let decisions = explain(&rig.store.load(), &question, None).unwrap();
            let served = is_served(&rig, port, context).await;
            let what = || format!("{policies:?} {identity:?}\n{decisions:#?}");
            assert_eq!(promises(&decisions), served, "{}", what());
        }
    });
}
