//! Conditions that only traffic shows: answers that are not what a Service declares of its ports.

use std::collections::BTreeMap;

use super::declared::Declared;
use crate::model::Kind;
use crate::types::{Condition, Edges, Objects};

/// Envoy's response flag of an upstream that breaks its protocol.
const UPSTREAM_PROTOCOL_ERROR: &str = "UPE";

/// Adds them to the Services that `edges` show.
pub fn add(objects: &mut Objects, edges: &Edges, declared: &dyn Declared) {
    let mut errors: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for edge in &edges.edges {
        if let Some(count) = edge.signals.flags.get(UPSTREAM_PROTOCOL_ERROR) {
            let service = (&*edge.destination_namespace, &*edge.destination_service);
            let sum = errors.entry(service).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    for object in &mut objects.objects {
        if object.kind != Kind::Service.name() {
            continue;
        }
        let Some(count) = errors.get(&(&*object.namespace, &*object.name)) else {
            continue;
        };
        let ports = declared.declarations(&object.namespace, &object.name);
        let message = format!(
            "{count} answers in the last {} s were not what {} ({}). If the app speaks another protocol, change the port's name or appProtocol",
            edges.window_seconds,
            match ports.len() {
                1 => "its port declares",
                _ => "one of its ports declares",
            },
            ports.join(", ")
        );
        object.conditions.push(Condition {
            kind: "AnswersAsDeclared".to_owned(),
            status: false,
            reason: "ProtocolErrors".to_owned(),
            message,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::api::declared::{DeclaredPorts, DeclaredWorkload};
    use crate::types::{Edge, Finding, Object, Signals};

    struct Shop;

    impl Declared for Shop {
        fn objects(&self) -> Objects {
            Objects::default()
        }

        fn findings(&self) -> Vec<Finding> {
            Vec::new()
        }

        fn workloads(&self) -> Vec<DeclaredWorkload> {
            Vec::new()
        }

        fn declarations(&self, namespace: &str, service: &str) -> Vec<String> {
            assert_eq!((namespace, service), ("shop", "rpc"));
            vec!["port `grpc` (80) says gRPC".to_owned()]
        }

        fn ports_at(&self, _: IpAddr) -> Option<DeclaredPorts> {
            None
        }

        fn uncovered(&self, _: SocketAddr) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn protocol_errors_are_a_condition_of_the_service_they_came_from() {
        let object = |kind: &str, name: &str| Object {
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ..Object::default()
        };
        let mut objects = Objects {
            objects: vec![
                object("Service", "web"),
                object("Service", "rpc"),
                object("Workload", "rpc"),
            ],
            ..Objects::default()
        };
        let edge = |flag: &str| Edge {
            destination_namespace: "shop".to_owned(),
            destination_service: "rpc".to_owned(),
            signals: Signals {
                flags: BTreeMap::from([(flag.to_owned(), 2)]),
                ..Signals::default()
            },
            ..Edge::default()
        };
        let mut edges = Edges {
            window_seconds: 30.0,
            edges: vec![edge("UH")],
            dropped: 0,
        };
        add(&mut objects, &edges, &Shop);
        assert!(objects.objects.iter().all(|it| it.conditions.is_empty()));
        edges.edges = vec![edge("UPE"), edge("UPE")];
        add(&mut objects, &edges, &Shop);
        let [web, rpc, workload] = &objects.objects[..] else {
            panic!("{objects:?}");
        };
        assert!(web.conditions.is_empty() && workload.conditions.is_empty());
        assert_eq!(
            rpc.conditions[0].message,
            "4 answers in the last 30 s were not what its port declares (port `grpc` (80) says gRPC). If the app speaks another protocol, change the port's name or appProtocol"
        );
    }
}
