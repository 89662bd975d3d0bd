//! `anyam inject` as a process.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(file: &str) -> PathBuf {
    let folder = "../control-plane/tests/inject/golden";
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(file)
}

fn inject(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_anyam"))
        .arg("inject")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused its arguments already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the library makes of it with the same settings, from its own tests.
fn expected(case: &str) -> String {
    let text = std::fs::read_to_string(golden(&format!("{case}.out.yaml"))).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn files_and_standard_input_give_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.yaml");
    std::fs::write(
        &settings,
        "proxy: {image: 'registry.example/anyam/proxy:1'}\n",
    )
    .unwrap();
    let settings = settings.to_str().unwrap();
    let key = folder.path().join("hook.key");
    std::fs::write(&key, "a secret of the tests").unwrap();
    let key = key.to_str().unwrap();
    for case in ["deployment", "jobs", "stateful", "settings", "untouched"] {
        let file = golden(&format!("{case}.in.yaml"));
        let options = ["--settings", settings, "--hook-key", key];
        let inject_file = |file: &str, input: &str| {
            let arguments = [&["-f", file], &options[..]].concat();
            inject(&arguments, input)
        };
        let output = inject_file(file.to_str().unwrap(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), expected(case), "{case}");

        let input = std::fs::read_to_string(&file).unwrap();
        let again = inject_file("-", &input);
        assert_eq!(text(&again.stdout), expected(case), "{case}");
        // Injecting what was injected changes nothing, also without the key.
        let again = inject(&["-f", "-", "--settings", settings], text(&output.stdout));
        assert_eq!(text(&again.stdout), expected(case), "{case}");
    }
}

#[test]
fn each_workloads_outcome_is_printed() {
    let file = golden("untouched.in.yaml");
    let output = inject(&["-f", file.to_str().unwrap()], "");
    let said = text(&output.stderr);
    for part in [
        "DaemonSet shop/agent: no sidecar: it uses the host's network",
        "Deployment shop/legacy: no sidecar: its annotation mesh.anyam.dev/inject is disabled",
        "Deployment kube-system/coredns: no sidecar",
        "Pod shop/iis: no sidecar: it runs on Windows",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = inject(&["-f", golden("deployment.in.yaml").to_str().unwrap()], "");
    let said = text(&output.stderr);
    assert!(said.contains("Deployment shop/web: injected\n"), "{said}");
    assert!(said.contains("warning: probe helper/readyz"), "{said}");
}

#[test]
fn a_refusal_prints_no_manifest_and_names_place_and_cause() {
    let good = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a}]}}";
    let bad = "{apiVersion: v1, kind: Pod, metadata: {name: b, annotations: \
               {mesh.anyam.dev/drain-seconds: soon}}, spec: {containers: [{name: a}]}}";
    let output = inject(&["-f", "-"], &format!("{good}\n---\n{bad}\n"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    for part in [
        "standard input",
        "Pod default/b",
        "mesh.anyam.dev/drain-seconds",
        "\"soon\"",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = inject(&["-f", "-"], "a: 1\na: 2\n");
    assert!(
        text(&output.stderr).contains("line 2"),
        "{}",
        text(&output.stderr)
    );
    let output = inject(&["-f", "/no/such/file"], "");
    assert!(text(&output.stderr).contains("/no/such/file"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn settings_that_are_not_allowed_are_refused_with_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.yaml");
    for (settings, part) in [
        ("proxy: {images: a}", "proxy.images"),
        ("proxy: {image: 'a b'}", "proxy.image"),
        ("controlPlane: nowhere", "controlPlane"),
        ("tokenSeconds: 60", "600"),
        ("meshCidrs: [10.0.0.0/99]", "10.0.0.0/99"),
        (
            "proxy: {redirect: {excludeInboundPorts: [80, 99999]}}",
            "99999",
        ),
        (
            "proxy: {resources: {limits: {cpu: lots}}}",
            "proxy.resources.limits.cpu",
        ),
        ("proxy: {sidecar: both}", "proxy.sidecar"),
    ] {
        std::fs::write(&path, settings).unwrap();
        let output = inject(&["-f", "-", "--settings", path.to_str().unwrap()], "");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{settings}");
        assert!(
            said.contains(part) && said.contains("settings.yaml"),
            "{settings}: {said}"
        );
    }
}

#[test]
fn a_hook_key_must_be_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hook.key");
    let key = path.to_str().unwrap();
    for (content, part) in [(None, "No such file"), (Some("short"), "16 bytes")] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let output = inject(&["-f", "-", "--hook-key", key], "");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part) && said.contains(key), "{said}");
    }
}
