//! Everything translation emits, the proxy's own compiler takes.

use std::path::Path;
use std::sync::Arc;

use anyam_control::ads::resources::{Scope, View};
use anyam_control::declared;
use anyam_control::model::Options;
use anyam_proxy::config::Snapshot;
use anyam_proxy::config::compile::Compiler;
use anyam_proxy::telemetry::{Registry, Sinks};
use xds_proto::type_url;

#[test]
fn the_proxy_takes_what_the_demo_translates_to() {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    let sinks = Arc::new(Sinks::new(dropped));
    let compiler = Compiler::new(&registry, sinks, Arc::default()).unwrap();
    let state_dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
    let (translator, _) = declared::open(&folder, state_dir.path(), Options::default()).unwrap();
    let state = translator.state();
    let mut taken = 0;
    let mut refused = Vec::new();
    for workload in ["web", "catalogue-1", "cart", "payments"] {
        let scope = Scope {
            namespace: "shop".into(),
            workload: workload.into(),
            service_account: workload.trim_end_matches("-1").into(),
            trust_domain: "anyam.local".into(),
            anyam: true,
            tls_files: None,
        };
        for kind in [
            type_url::CLUSTER,
            type_url::ENDPOINT,
            type_url::LISTENER,
            type_url::ROUTE,
            type_url::WORKLOAD,
        ] {
            for resource in state.list(kind, &scope) {
                match compiler.compile(kind, &resource.body, &Snapshot::default()) {
                    Ok(_) => taken += 1,
                    Err(error) => refused.push(format!("{kind} {}: {error}", resource.name)),
                }
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(taken > 20, "{taken}");
}
