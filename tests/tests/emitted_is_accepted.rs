//! Everything that translate emits, compile accepts.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyam_control::ads::resources::{Scope, TlsFiles, View};
use anyam_control::declared;
use anyam_control::model::Options;
use anyam_proxy::config::compile::Compiler;
use anyam_proxy::telemetry::access_log::Sinks;
use anyam_proxy::telemetry::registry::Registry;
use prost::Message;
use xds_proto::type_url;

/// The demo's manifests and those of the golden cases.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = fs::read_dir(root.join("control-plane/tests/golden")).unwrap();
    let golden = golden
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    golden.chain([root.join("deploy/demo")]).collect()
}

#[test]
fn the_proxy_takes_every_resource_of_every_manifest_we_have() {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    let compiler = Compiler::new(&registry, Arc::new(Sinks::new(dropped)), Arc::default()).unwrap();
    let mut refused = Vec::new();
    let mut count = 0;
    for folder in folders() {
        let state_dir = tempfile::tempdir().unwrap();
        let options = Options::default();
        let (translator, _) = declared::open(&folder, state_dir.path(), options).unwrap();
        let state = translator.state();
        for key in state.mesh.workloads.keys() {
            let scope = Scope {
                namespace: key.namespace.clone(),
                workload: key.name.clone(),
                trust_domain: "anyam.local".into(),
                anyam: true,
                ..Scope::default()
            };
            for kind in [
                type_url::LISTENER,
                type_url::ROUTE,
                type_url::CLUSTER,
                type_url::ENDPOINT,
            ] {
                for resource in state.list(kind, &scope) {
                    count += 1;
                    if let Err(error) = accept(&compiler, kind, &resource.body) {
                        refused.push(format!("{} {}: {error}", folder.display(), resource.name));
                    }
                }
            }
        }
    }
    assert!(count > 500, "{count}");
    refused.sort();
    refused.dedup();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

fn accept(compiler: &Compiler, kind: &str, body: &[u8]) -> Result<(), String> {
    let done = match kind {
        type_url::LISTENER => compiler
            .listener(&Message::decode(body).unwrap(), None)
            .map(drop),
        type_url::ROUTE => compiler
            .route_config(&Message::decode(body).unwrap())
            .map(drop),
        type_url::CLUSTER => compiler
            .cluster(&Message::decode(body).unwrap(), None)
            .map(drop),
        _ => compiler
            .endpoints(&Message::decode(body).unwrap())
            .map(drop),
    };
    done.map_err(|error| error.to_string())
}

/// Stock Envoy gets no protocol chosen by ALPN, which it refuses beside plaintext, and its
/// certificates as files.
#[test]
fn a_stock_envoy_gets_what_it_can_take() {
    let state_dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
    let (translator, _) = declared::open(&folder, state_dir.path(), Options::default()).unwrap();
    let state = translator.state();
    let scope = Scope {
        namespace: "shop".into(),
        workload: "web".into(),
        trust_domain: "anyam.local".into(),
        tls_files: Some(TlsFiles {
            certificate_chain: "cert.pem".into(),
            private_key: "key.pem".into(),
            root_certificate: "root.pem".into(),
        }),
        ..Scope::default()
    };
    for resource in state.list(type_url::CLUSTER, &scope) {
        let json = xds_proto::json::to_json("envoy.config.cluster.v3.Cluster", &resource.body);
        let text = json.unwrap().to_string();
        assert!(!text.contains("auto_config"), "{}", resource.name);
        assert!(!text.contains("\"ROOTCA\""), "{}", resource.name);
    }
}
