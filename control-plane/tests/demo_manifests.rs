//! The demo's own manifests: every object accepted, and the resources that its proxies subscribe
//! to.

use std::path::Path;

use anyam_control::ads::resources::{Scope, View};
use anyam_control::declared;
use anyam_control::model::MeshOptions;
use xds_proto::type_url;

fn scope(workload: &str) -> Scope {
    Scope {
        namespace: "shop".into(),
        workload: workload.into(),
        service_account: workload.into(),
        trust_domain: "anyam.local".into(),
        anyam: true,
        ..Scope::default()
    }
}

#[test]
fn the_demo_is_accepted_and_has_all_resources() {
    let state_dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
    let (translator, _) =
        declared::open(&folder, state_dir.path(), MeshOptions::default()).unwrap();
    let state = translator.state();
    assert!(state.file_errors.is_empty(), "{:#?}", state.file_errors);
    for status in state.mesh.statuses.values() {
        assert!(status.conditions.iter().all(|c| c.status), "{status:#?}");
    }
    let web = scope("web");
    for kind in [
        type_url::LISTENER,
        type_url::CLUSTER,
        type_url::ENDPOINT,
        type_url::WORKLOAD,
        type_url::NAME,
        type_url::ROUTE,
    ] {
        for resource in state.list(kind, &web) {
            println!(
                "{} {} {} bytes",
                kind.rsplit('.').next().unwrap(),
                resource.name,
                resource.body.len()
            );
        }
    }
    assert!(state.get(type_url::LISTENER, "inbound", &web).is_some());
    assert!(
        state
            .get(type_url::LISTENER, "outbound/10.77.3.2:9090", &web)
            .is_some()
    );
    let cluster = "outbound|9090||catalogue.shop.svc.cluster.local";
    assert!(state.get(type_url::CLUSTER, cluster, &web).is_some());
    assert_eq!(
        state.service_account("shop", "catalogue-1").as_deref(),
        Some("catalogue")
    );
}
