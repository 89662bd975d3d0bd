//! Injection through its public surface.
//!
//! - `golden`: manifests and the result of injecting them
//! - `rules`: which pods are injected, which are refused and how the refusal reads
//! - `classic`: containers beside the app's
//! - `warnings`: what is injected and will not work as expected
//! - `properties`: a second injection changes nothing; everything else in the pod stays
//! - `settings`: of the mesh, in each pod
//! - `documented`: docs/kubernetes.md has every annotation
//! - `webhook`: AdmissionReviews over TLS; `peers`: idle and slow peers

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod classic;
mod documented;
mod golden;
mod peers;
mod properties;
mod rules;
mod settings;
mod warnings;
mod webhook;

use anyam_control::inject::hook_token::{HookToken, HookTokens};
use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::{InjectError, Injection, NamespaceFacts, inject};
use serde_json::Value;

const ENABLED: NamespaceFacts<'_> = NamespaceFacts {
    name: "shop",
    enabled: true,
};

/// The same in each run.
fn tokens() -> HookTokens {
    HookTokens::derived(b"a secret of the tests").unwrap()
}

fn token() -> HookToken {
    tokens().token("Pod shop/web").unwrap()
}

/// One YAML document.
fn yaml(text: &str) -> Value {
    xds_proto::yaml::to_json(text).unwrap()
}

/// Injects with the default settings, into an enabled namespace.
fn injected(pod: &Value) -> (Value, Vec<String>) {
    match inject(pod, ENABLED, &MeshSettings::default(), &token()).unwrap() {
        Injection::Injected { pod, warnings } => (pod, warnings),
        Injection::Skipped(skip) => panic!("skipped: {skip}"),
    }
}

fn refused(pod: &Value) -> InjectError {
    inject(pod, ENABLED, &MeshSettings::default(), &token()).unwrap_err()
}

/// The value at a JSON pointer.
fn at<'a>(pod: &'a Value, pointer: &str) -> &'a Value {
    pod.pointer(pointer)
        .unwrap_or_else(|| panic!("nothing at {pointer} in {pod:#}"))
}

/// The element of a list with this name.
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut list = list.as_array().unwrap().iter();
    list.find(|element| element["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// The value of a variable of the sidecar.
fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let lists = ["/spec/initContainers", "/spec/containers"];
    let lists = lists
        .into_iter()
        .filter_map(|list| pod.pointer(list)?.as_array());
    let mut containers = lists.flatten();
    let sidecar = containers.find(|container| container["name"] == "anyam-proxy")?;
    let mut variables = sidecar["env"].as_array()?.iter();
    variables.find(|variable| variable["name"] == name)?["value"].as_str()
}
