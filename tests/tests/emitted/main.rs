//! Everything that translate emits, compile accepts: of all manifests we have, of manifests made up at
//! random (`manifests`), and of ours mutated (`mutated`).

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod manifests;
mod mutated;
#[path = "../../../proxy/tests/shared/rounds.rs"]
mod rounds;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyam_control::ads::resources::{Scope, TlsFiles, View};
use anyam_control::declared;
use anyam_control::model::MeshOptions;
use anyam_control::translate::view::State;
use anyam_proxy::config::compile::Compiler;
use anyam_proxy::log_sink::Sinks;
use anyam_proxy::metrics::registry::Registry;
use anyam_proxy::snapshot::Snapshot;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use xds_proto::type_url;

const KINDS: [&str; 5] = [
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::WORKLOAD,
];
/// Meshes made up; some seconds.
const CASES: u32 = 64;

fn compiler() -> Compiler {
    let registry = Registry::new().unwrap();
    let dropped = registry.counter("dropped", "Lost.").unwrap();
    Compiler::new(
        &registry,
        Arc::new(Sinks::new(dropped, 16 << 10)),
        Arc::default(),
    )
    .unwrap()
}

/// How many resources the sidecars of all workloads are sent, and which of them they refuse.
fn sent(compiler: &Compiler, state: &State) -> (usize, Vec<String>) {
    let mut refused = Vec::new();
    let mut count = 0;
    for key in state.mesh.workloads.keys() {
        let scope = Scope {
            namespace: key.namespace.clone(),
            workload: key.name.clone(),
            trust_domain: "anyam.local".into(),
            anyam: true,
            ..Scope::default()
        };
        for kind in KINDS {
            for resource in state.list(kind, &scope) {
                count += 1;
                if let Err(error) = compiler.compile(kind, &resource.body, &Snapshot::default()) {
                    refused.push(format!("{}: {error}", resource.name));
                }
            }
        }
    }
    refused.sort();
    refused.dedup();
    (count, refused)
}

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
    let compiler = compiler();
    let mut all = 0;
    for folder in folders() {
        let state_dir = tempfile::tempdir().unwrap();
        let (translator, _) =
            declared::open(&folder, state_dir.path(), MeshOptions::default()).unwrap();
        let (count, refused) = sent(&compiler, &translator.state());
        assert!(refused.is_empty(), "{}: {refused:#?}", folder.display());
        all += count;
    }
    assert!(all > 500, "{all}");
}

/// The seed is always the same one, so that a failure is found again.
#[test]
fn the_proxy_takes_every_resource_of_any_mesh() {
    let compiler = compiler();
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 256,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let done = runner.run(&manifests::any_mesh(), |objects| {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = tempfile::tempdir().unwrap();
        let text: Vec<_> = objects.iter().map(ToString::to_string).collect();
        fs::write(folder.path().join("mesh.yaml"), text.join("\n---\n")).unwrap();
        let (translator, _) =
            declared::open(folder.path(), state_dir.path(), MeshOptions::default()).unwrap();
        let state = translator.state();
        // What the model refuses does not test the compiler.
        let fail = |what: &str, errors: String| {
            TestCaseError::fail(format!("{what}: {errors}\n{}", text.join("\n")))
        };
        if !state.file_errors.is_empty() {
            return Err(fail("not read", format!("{:#?}", state.file_errors)));
        }
        let (count, refused) = sent(&compiler, &state);
        match refused.is_empty() && count > 0 {
            true => Ok(()),
            false => Err(fail("refused", refused.join("\n"))),
        }
    });
    done.unwrap_or_else(|error| panic!("{error}"));
}

/// Stock Envoy gets no protocol chosen by ALPN, which it refuses beside plaintext, and its
/// certificates as files.
#[test]
fn a_stock_envoy_gets_what_it_can_take() {
    let state_dir = tempfile::tempdir().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo");
    let (translator, _) =
        declared::open(&folder, state_dir.path(), MeshOptions::default()).unwrap();
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
