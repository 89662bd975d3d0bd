//! `anyam install` as a process. That it prints what Helm renders is looked at in `tests/kube`.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::process::{Command, Output};

use serde_json::Value;

fn install(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyam"));
    command.arg("install").args(arguments).output().unwrap()
}

fn objects(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let documents = xds_proto::yaml::documents(text);
    documents
        .map(|document| document.unwrap().to_json())
        .collect()
}

fn kinds(objects: &[Value]) -> Vec<&str> {
    objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap())
        .collect()
}

#[test]
fn everything_that_is_needed_is_printed_in_order() {
    let all = objects(&install(&[]));
    let kinds = kinds(&all);
    assert_eq!(kinds[0], "Namespace");
    let definitions = kinds
        .iter()
        .filter(|kind| **kind == "CustomResourceDefinition");
    assert_eq!(definitions.count(), anyam_control::crd::all().len());
    for kind in [
        "Deployment",
        "Service",
        "MutatingWebhookConfiguration",
        "ClusterRole",
        "ConfigMap",
    ] {
        assert!(kinds.contains(&kind), "{kind}");
    }
    let without = objects(&install(&["--skip-crds"]));
    assert_eq!(without.len(), all.len() - anyam_control::crd::all().len());
}

#[test]
fn options_reach_every_place() {
    let options = [
        "--profile=production",
        "--namespace=mesh",
        "--registry=registry.example:5000/x",
        "--tag=v2",
        "--trust-domain=mesh.example",
        // Their descriptions name the namespace of policies for the whole mesh.
        "--skip-crds",
    ];
    let output = install(&options);
    let text = std::str::from_utf8(&output.stdout).unwrap();
    for gone in [
        "anyam-system",
        "docker.io",
        "anyam.local",
        "managed-by: Helm",
        "helm.sh/chart",
    ] {
        assert!(!text.contains(gone), "{gone}");
    }
    for image in ["control", "proxy"] {
        assert!(text.contains(&format!("registry.example:5000/x/anyam/{image}:v2")));
    }
    // Another mesh-wide setting, other pods.
    let checksum = |output: &Output| {
        let text = std::str::from_utf8(&output.stdout).unwrap().to_owned();
        let line = text
            .lines()
            .find(|line| line.contains("checksum/injection: "));
        line.unwrap().trim().to_owned()
    };
    assert_ne!(checksum(&output), checksum(&install(&[])));
}

#[test]
fn with_ipv6_ports_and_service_are_of_both_families() {
    let all = objects(&install(&["--ipv6"]));
    let of = |kind: &str| all.iter().find(|it| it["kind"] == kind).unwrap();
    let service = of("Service");
    assert_eq!(service["spec"]["ipFamilyPolicy"], "PreferDualStack");
    assert_eq!(service["spec"].get("ipFamilies"), None);
    let container = &of("Deployment")["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap().iter();
    let arguments: Vec<&str> = arguments.map(|it| it.as_str().unwrap()).collect();
    for (flag, port) in [("xds", 15012), ("webhook", 15017), ("metrics", 15014)] {
        let expected = format!("--{flag}-listen=[::]:{port}");
        assert!(arguments.contains(&&*expected), "{arguments:?}");
    }
}

#[test]
fn what_would_not_be_yaml_is_refused() {
    for wrong in [
        "--namespace=Mesh",
        "--namespace=a b",
        "--namespace=a: b",
        "--registry=x\"",
        "--registry=-x",
        "--tag=a/b",
        "--trust-domain=A",
        "--profile=large",
    ] {
        let output = install(&[wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}: {output:?}");
        assert!(output.stdout.is_empty());
    }
}
