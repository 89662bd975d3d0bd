//! The control plane under an ADS client that shares no code with it (`tests/peers/ads_client.py`):
//! gRPC's own Python and Envoy's own messages, over real TLS.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyam_tests::{Run, program};

const TIMEOUT: Duration = Duration::from_secs(120);

/// Of the private environment, which has the client's packages.
fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv/bin/python");
    assert!(
        path.exists(),
        "{} is missing: run tests/prerequisites.sh root test",
        path.display()
    );
    path
}

/// A loopback address that no other test uses.
fn own_address() -> Ipv4Addr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, 1)
}

#[test]
fn a_client_of_another_making_is_served_by_the_protocol() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let (config, state, out) = (path("config"), path("state"), path("certificates"));
    std::fs::create_dir(&config).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/ads_client.py");
    let address = own_address();
    let xds = format!("{address}:15012");
    // It reports on stderr.
    let mut control = Run::start(
        Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(program("anyam-control"))
            .args(["--config-dir", &config, "--state-dir", &state])
            .args(["--xds-listen", &xds])
            .args(["--api-listen", &format!("{address}:15080")]),
    );
    control.wait_for("serving", TIMEOUT);
    std::fs::write(
        scratch.path().join("config/envoy.yaml"),
        "apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: { name: envoy, namespace: shop }
spec: { addresses: [10.77.1.2], serviceAccount: envoy }
",
    )
    .unwrap();
    let certificate = Command::new(program("anyam-control"))
        .args(["certificate", "--workload", "shop/envoy", "--out", &out])
        .args(["--config-dir", &config, "--state-dir", &state])
        .output()
        .unwrap();
    assert!(certificate.status.success(), "{certificate:?}");
    let client = Command::new(python())
        .arg(script)
        .args([&xds, &out, &config])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&client.stdout);
    let complaint = String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success(), "after {said:?}: {complaint}");
    assert_eq!(said, "delta\nstate of the world\n");
}
