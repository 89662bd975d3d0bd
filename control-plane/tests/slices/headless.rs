//! Calls to a pod's own address, as of members of a StatefulSet, follow the policy of the headless Service
//! that has it among its endpoints.

use std::time::Duration;

use anyam_control::ads::resources::{Scope, Touched, View};
use prost::Message;
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::route::v3::RouteConfiguration;
use xds_proto::envoy::config::route::v3::route::Action;
use xds_proto::type_url;

use super::{Mesh, WEB, of, pod, slice};

fn policy(name: &str, created: u8, service: &str, timeout: &str) -> String {
    format!(
        "
apiVersion: mesh.anyam.dev/v1alpha1
kind: BackendPolicy
metadata: {{ name: {name}, namespace: shop, creationTimestamp: '2020-01-0{created}T00:00:00Z' }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: {service} }}]
  connectTimeout: {timeout}
  requestTimeout: {timeout}
"
    )
}

fn headless(name: &str) -> String {
    let addressless = WEB.replace("10.96.0.1", "None");
    let http = addressless.replace("port: 80 ", "port: 8080, appProtocol: http ");
    http.replace("name: web,", &format!("name: {name},"))
}

fn listed(name: &str) -> String {
    let slice = slice(&of("web-1", "10.0.0.1"));
    let slice = slice.replace("service-name: web", &format!("service-name: {name}"));
    slice.replace("{ name: web-1,", &format!("{{ name: {name}-1,"))
}

impl Mesh {
    /// Time-outs of calls to 10.0.0.1, of connecting and of a request.
    fn timeouts(&self, port: u16) -> Option<(Duration, Duration)> {
        let name = format!("outbound|{port}||10.0.0.1");
        let state = self.0.state();
        let get = |kind: &str| state.get(kind, &name, &Scope::default());
        let cluster = Cluster::decode(get(type_url::CLUSTER)?.body).unwrap();
        let route = RouteConfiguration::decode(get(type_url::ROUTE)?.body).unwrap();
        let Some(Action::Route(to)) = &route.virtual_hosts[0].routes[0].action else {
            panic!("{route:?}");
        };
        let time = |it: Option<xds_proto::google::protobuf::Duration>| {
            let it = it.unwrap_or_default();
            Duration::new(it.seconds.try_into().unwrap(), it.nanos.try_into().unwrap())
        };
        Some((time(cluster.connect_timeout), time(to.timeout)))
    }
}

const DEFAULT: (Duration, Duration) = (Duration::from_secs(5), Duration::ZERO);

fn both(seconds: u64) -> (Duration, Duration) {
    (Duration::from_secs(seconds), Duration::from_secs(seconds))
}

#[test]
fn calls_to_a_pods_address_follow_the_policy_of_its_headless_service() {
    let mesh = Mesh::new();
    mesh.set(&headless("web"));
    mesh.set(&pod("web-1", "10.0.0.1"));
    mesh.set(&listed("web"));
    assert_eq!(mesh.timeouts(8080), Some(DEFAULT));

    let before = mesh.0.state();
    let ids = mesh.set(&policy("p", 2, "web", "2s"));
    assert_eq!(mesh.timeouts(8080), Some(both(2)));
    let Touched::Some(marks) = mesh.0.state().touched_since(before.generation) else {
        panic!("a policy of one Service");
    };
    for kind in [type_url::CLUSTER, type_url::ROUTE] {
        assert!(
            marks.names.contains(kind, "outbound|8080||10.0.0.1"),
            "{kind}"
        );
    }
    // Of two, the older.
    mesh.set(&headless("other"));
    mesh.set(&listed("other"));
    let older = mesh.set(&policy("q", 1, "other", "3s"));
    assert_eq!(mesh.timeouts(8080), Some(both(3)));
    mesh.remove(older);
    assert_eq!(mesh.timeouts(8080), Some(both(2)));
    mesh.remove(ids);
    assert_eq!(mesh.timeouts(8080), Some(DEFAULT));
}

/// Calls to its own address govern its policy: pods' addresses are another destination.
#[test]
fn the_policy_of_a_service_with_an_address_does_not_hold_for_its_pods_addresses() {
    let mesh = Mesh::new();
    mesh.set(&headless("web").replace("None", "10.96.0.1"));
    mesh.set(&pod("web-1", "10.0.0.1"));
    mesh.set(&listed("web"));
    mesh.set(&policy("p", 1, "web", "2s"));
    assert_eq!(mesh.timeouts(8080), Some(DEFAULT));
}
