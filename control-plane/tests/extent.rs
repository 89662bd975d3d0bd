//! The bound on the state of a stream, for a client that subscribes to the whole mesh.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::time::Instant;

use anyam_control::ads::resources::{Resources, TYPES, View};
use anyam_control::ads::{ProtocolVariant, RequestError, Scope, Session, SessionLimits};
use anyam_control::model::MeshOptions;
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::vip::Vips;
use anyam_control::source::files::Folder;
use anyam_control::translate::Translator;
use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use xds_proto::type_url;

const SERVICES: usize = 200;

/// Services with two ports, one of which declares no protocol, and two workloads each.
fn mesh() -> Translator {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for n in 0..SERVICES {
        text += &format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s{n}, namespace: shop }}\nspec: {{ selector: {{ app: s{n} }}, ports: [{{ name: http, port: 80, appProtocol: http }}, {{ name: any, port: 81 }}] }}\n"
        );
        for member in 0..2 {
            let ip = format!("10.{member}.{}.{}", n / 250, n % 250 + 1);
            text += &format!(
                "---\napiVersion: mesh.anyam.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: w{n}-{member}, namespace: shop, labels: {{ app: s{n} }} }}\nspec: {{ addresses: [{ip}] }}\n"
            );
        }
    }
    std::fs::write(folder.path().join("mesh.yaml"), text).unwrap();
    let builder = Builder::new(MeshOptions::default(), Vips::new());
    let translator = Translator::new(builder);
    translator.apply(Folder::new(folder.path()).changes());
    translator
}

/// Subscribes to everything, of each type by `*` and by name, and receives all of it.
fn take_all(session: &mut Session, view: &dyn View) -> usize {
    let now = Instant::now();
    let mut taken = 0;
    for type_url in TYPES {
        let listed = view.list(type_url, session.scope());
        let names = listed.iter().map(|one| one.name.to_string());
        let request = DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: names.chain(["*".to_owned()]).collect(),
            ..Default::default()
        };
        session.delta_request(&request, view, now).unwrap();
        while let Some(push) = session.next(view) {
            taken += push.resources.len();
            let answer = DeltaDiscoveryRequest {
                type_url: push.type_url.to_string(),
                response_nonce: push.nonce,
                ..Default::default()
            };
            session.delta_request(&answer, view, now).unwrap();
        }
    }
    taken
}

#[test]
fn a_client_of_the_whole_mesh_stays_within_the_bound_and_one_with_made_up_names_does_not() {
    let translator = mesh();
    let view = translator.view();
    let limits = SessionLimits {
        // For the resources of the node itself.
        state_bytes: 64 << 10,
        ..SessionLimits::default()
    };
    let scope = Scope {
        namespace: "shop".into(),
        workload: "w0-0".into(),
        service_account: "default".into(),
        trust_domain: "anyam.local".into(),
        ..Scope::default()
    };
    let new = || Session::new(ProtocolVariant::Delta, scope.clone(), limits, &*view);
    let mut session = new();
    let taken = take_all(&mut session, &*view);
    assert!(taken > 20 * SERVICES, "{taken}");
    let (bytes, max) = session.weigh(&*view).unwrap();
    assert!(bytes > 20 * limits.state_bytes, "{bytes} of {max}");

    let mut other = new();
    let request = DeltaDiscoveryRequest {
        type_url: type_url::NAME.into(),
        resource_names_subscribe: (0..max / 256).map(|n| n.to_string()).collect(),
        ..Default::default()
    };
    let refused = other.delta_request(&request, &*view, Instant::now());
    assert!(
        matches!(refused, Err(RequestError::State(_))),
        "{refused:?}"
    );
}
