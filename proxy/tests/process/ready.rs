//! `anyam-proxy wait`, which a classic sidecar has as its `postStart` hook.

use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::ports::free_port;
use crate::probes::Sidecar;
use crate::proxy::{Proxy, Settings, mirror, tcp_proxy, upstream};
use crate::running::Running;

fn wait(port: u16, seconds: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
    command
        .args(["wait", "--timeout-s", seconds])
        .env("ANYAM_HEALTH_PORT", port.to_string())
        .stdin(Stdio::null());
    command
}

fn refused(port: u16) -> String {
    let Output { status, stderr, .. } = wait(port, "1").output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

#[test]
fn it_ends_once_the_proxy_is_ready() {
    let port = free_port();
    // It begins before there is a proxy.
    let mut waiting = Running::start(&mut wait(port, "600"));
    let probes = format!(
        r#"bootstrap_extensions: [{{ name: probes, typed_config: {{
            "@type": type.googleapis.com/anyam.bootstrap.v1.Probes,
            listen_address: 127.0.0.1, health_port: {port} }} }}]"#
    );
    let settings = Settings {
        filters: &tcp_proxy(""),
        bootstrap: &probes,
        ..Settings::default()
    };
    let _proxy = Proxy::start(upstream(mirror), &settings);
    assert_eq!(waiting.ended().code(), Some(0));
}

#[test]
fn without_readiness_it_reports_why() {
    let port = free_port();
    let said = refused(port);
    assert!(
        said.contains("refused") && said.contains(&port.to_string()),
        "{said}"
    );
    // A sidecar without its control plane: its status port has its readiness, too.
    let sidecar = Sidecar::start(&json!([]), None);
    let said = refused(sidecar.port());
    assert!(said.contains("waiting for certificate"), "{said}");
}
