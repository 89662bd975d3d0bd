//! Which identities a service's callers accept while its members change.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::path::Path;

use anyam_control::ads::resources::{Scope, Touched, View};
use anyam_control::model::MeshOptions;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::vip::Vips;
use anyam_control::source::files::Folder;
use anyam_control::translate::Translator;
use xds_proto::type_url;

/// The workload named `member` is the service's only one.
fn write(folder: &Path, member: &str) {
    let mut text = "apiVersion: v1
kind: Service
metadata: { name: pool, namespace: shop }
spec: { clusterIP: 240.240.9.1, selector: { member: \"yes\" }, ports: [{ port: 80 }] }
"
    .to_owned();
    for (name, address) in [("blue", "10.77.2.2"), ("green", "10.77.3.2")] {
        let is_member = if name == member { "yes" } else { "no" };
        text += &format!(
            "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ member: \"{is_member}\" }} }}
spec: {{ addresses: [{address}], serviceAccount: {name} }}
"
        );
    }
    std::fs::write(folder.join("mesh.yaml"), text).unwrap();
}

/// Accounts that a caller's cluster of the service accepts.
fn accepted_accounts(translator: &Translator) -> Vec<&'static str> {
    let state = translator.state();
    let cluster = "outbound|80||pool.shop.svc.cluster.local";
    let resource = state.get(type_url::CLUSTER, cluster, &Scope::default());
    let bytes = resource.unwrap().body.to_vec();
    let text = String::from_utf8_lossy(&bytes);
    let accounts = ["blue", "green"].into_iter();
    accounts
        .filter(|name| text.contains(&format!("spiffe://cluster.local/ns/shop/sa/{name}")))
        .collect()
}

#[test]
fn an_identity_that_left_is_accepted_until_proxies_have_the_change() {
    let folder = tempfile::tempdir().unwrap();
    let vips = Vips::load(&folder.path().join("vips.json")).unwrap();
    let options = MeshOptions {
        trust_domain: "cluster.local".into(),
        ..MeshOptions::default()
    };
    let translator = Translator::new(Builder::new(options, vips));
    let mut source = Folder::new(folder.path());
    let mut apply = |member: &str| {
        write(folder.path(), member);
        translator.apply(source.changes());
    };
    apply("blue");
    assert_eq!(accepted_accounts(&translator), ["blue"]);
    // There is no identity to remove, so nothing is published.
    let generation = translator.state().generation;
    translator.settle();
    assert_eq!(translator.state().generation, generation);

    // Endpoints change at once; a proxy may have the new cluster with the old endpoints.
    apply("green");
    assert_eq!(accepted_accounts(&translator), ["blue", "green"]);
    translator.settle();
    assert_eq!(accepted_accounts(&translator), ["blue", "green"]);
    let before = translator.state().generation;
    translator.settle();
    assert_eq!(accepted_accounts(&translator), ["green"]);
    match translator.state().touched_since(before) {
        Touched::Some(marks) => assert!(marks.names.0.contains_key(type_url::CLUSTER)),
        Touched::All => panic!("more than the service was announced"),
    }

    // Changed and changed back within the time: both are accepted, and then the one that is left.
    apply("blue");
    apply("green");
    assert_eq!(accepted_accounts(&translator), ["blue", "green"]);
    translator.settle();
    translator.settle();
    assert_eq!(accepted_accounts(&translator), ["green"]);
}
