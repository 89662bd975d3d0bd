//! The mesh, installed by the chart.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyam_tests_kube::Cluster;

const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
pub const NAMESPACE: &str = "anyam-system";

/// Installs it, once for all tests of this process, and waits until its pods are ready.
///
/// # Panics
/// When an image or the chart is refused, or pods are not ready within 2 minutes.
pub fn install(cluster: &Cluster) {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        for image in ["proxy", "control"] {
            cluster.load(&format!("{TREE}/target/images/{image}.tar"));
        }
        helm(&["upgrade", "--install", "anyam"]);
    });
}

fn helm(arguments: &[&str]) {
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.sh"))
        .args(["--where", "helm"])
        .output()
        .unwrap();
    let helm = Path::new(String::from_utf8(built.stdout).unwrap().trim()).join("helm");
    let chart = format!("{TREE}/deploy/helm/anyam");
    let output = Command::new(&helm)
        .args(arguments)
        .args([&*chart, "--namespace", NAMESPACE, "--create-namespace"])
        .args(["--set", "image.registry=localhost"])
        .args(["--wait", "--timeout", "120s"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
