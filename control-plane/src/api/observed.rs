//! Conditions that only traffic shows: calls whose answers are not what a Service declares of its
//! ports. Where those are of TLS, the callers are at fault who send HTTP: their answers are TLS alerts.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Declared;
use crate::model::Kind;
use crate::model::manifest::service::AppProtocol;
use crate::model::mesh::ports::Declaration;
use crate::types::{Condition, Edge, Edges, Objects};

/// Envoy's response flag of an upstream that breaks its protocol.
const UPSTREAM_PROTOCOL_ERROR: &str = "UPE";
/// Of an edge on which no request was understood. All others are of HTTP without TLS, as the mesh
/// looks into it.
const TCP: &str = "tcp";
/// Callers that a message names.
const NAMED: usize = 3;

/// Protocol errors of a Service's answers.
#[derive(Default)]
struct Errors<'a> {
    count: u64,
    /// Whether all of them answered HTTP.
    only_http: bool,
    callers: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Errors<'a> {
    fn add(&mut self, edge: &'a Edge, count: u64) {
        self.only_http = edge.protocol != TCP && (self.only_http || self.callers.is_empty());
        self.count = self.count.saturating_add(count);
        let caller = (&*edge.source_namespace, &*edge.source_workload);
        self.callers.insert(caller);
    }

    /// "shop/web, shop/cart and 2 more".
    fn callers(&self) -> String {
        let name = |(namespace, workload): &(&str, &str)| match workload.is_empty() {
            true => "callers outside of the mesh".to_owned(),
            false => format!("{namespace}/{workload}"),
        };
        let named: Vec<_> = self.callers.iter().take(NAMED).map(name).collect();
        match self.callers.len().saturating_sub(named.len()) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }

    fn condition(&self, window_seconds: f64, ports: &[Declaration]) -> Condition {
        let tls = |port: &Declaration| port.protocol == AppProtocol::Tls;
        let plaintext = self.only_http && ports.iter().all(tls);
        let words: Vec<&str> = ports.iter().map(|port| &*port.words).collect();
        let (count, callers, words) = (self.count, self.callers(), words.join(", "));
        let message = if plaintext {
            format!(
                "{count} calls in the last {window_seconds} s were HTTP without TLS ({words}), from {callers}. Let these callers use TLS; if the app speaks HTTP, change the port's name or appProtocol"
            )
        } else {
            let declares = match ports.len() {
                1 => "its port declares",
                _ => "one of its ports declares",
            };
            let or = match self.only_http && ports.iter().any(tls) {
                true => "If they send HTTP to a port of TLS, let them use TLS; if",
                false => "If",
            };
            format!(
                "{count} answers in the last {window_seconds} s were not what {declares} ({words}); the callers were {callers}. {or} the app speaks another protocol, change the port's name or appProtocol"
            )
        };
        let reason = match plaintext {
            true => "HttpSentToTls",
            false => "ProtocolErrors",
        };
        Condition {
            kind: "AnswersAsDeclared".to_owned(),
            status: false,
            reason: reason.to_owned(),
            message,
        }
    }
}

/// Adds them to the Services that `edges` show.
pub fn add(objects: &mut Objects, edges: &Edges, declared: &dyn Declared) {
    let mut errors: BTreeMap<(&str, &str), Errors<'_>> = BTreeMap::new();
    for edge in &edges.edges {
        if let Some(count) = edge.signals.flags.get(UPSTREAM_PROTOCOL_ERROR) {
            let service = (&*edge.destination_namespace, &*edge.destination_service);
            errors.entry(service).or_default().add(edge, *count);
        }
    }
    for object in &mut objects.objects {
        if object.kind != Kind::Service.name() {
            continue;
        }
        let Some(errors) = errors.get(&(&*object.namespace, &*object.name)) else {
            continue;
        };
        let ports = declared.declarations(&object.namespace, &object.name);
        if !ports.is_empty() {
            let condition = errors.condition(edges.window_seconds, &ports);
            object.conditions.push(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::api::declared::DeclaredByTest;
    use crate::types::{Edge, Object, Signals};

    fn shop() -> DeclaredByTest {
        let port = |protocol, words: &str| Declaration {
            protocol,
            words: words.to_owned(),
        };
        let grpc = port(AppProtocol::Grpc, "port `grpc` (80) says gRPC");
        let https = port(AppProtocol::Tls, "port `https` (443) says TLS");
        DeclaredByTest {
            declarations: HashMap::from([
                ("shop/rpc", vec![grpc.clone()]),
                ("shop/secure", vec![https.clone()]),
                ("shop/both", vec![grpc, https]),
            ]),
            ..DeclaredByTest::default()
        }
    }

    fn object(kind: &str, name: &str) -> Object {
        Object {
            kind: kind.to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ..Object::default()
        }
    }

    fn edge(caller: &str, service: &str, flag: &str) -> Edge {
        Edge {
            source_namespace: "shop".to_owned(),
            source_workload: caller.to_owned(),
            destination_namespace: "shop".to_owned(),
            destination_service: service.to_owned(),
            protocol: "http".to_owned(),
            signals: Signals {
                flags: BTreeMap::from([(flag.to_owned(), 2)]),
                ..Signals::default()
            },
            ..Edge::default()
        }
    }

    /// Reason and message of each condition that is added to a Service.
    fn conditions(service: &str, edges: Vec<Edge>) -> Vec<(String, String)> {
        let mut objects = Objects {
            objects: vec![
                object("Service", "web"),
                object("Service", service),
                object("Workload", service),
            ],
            ..Objects::default()
        };
        let edges = Edges {
            window_seconds: 30.0,
            edges,
            ..Edges::default()
        };
        add(&mut objects, &edges, &shop());
        let [web, found, workload] = &objects.objects[..] else {
            panic!("{objects:?}");
        };
        assert!(web.conditions.is_empty() && workload.conditions.is_empty());
        let text = |it: &Condition| (it.reason.clone(), it.message.clone());
        found.conditions.iter().map(text).collect()
    }

    #[test]
    fn protocol_errors_are_a_condition_of_the_service_they_came_from() {
        assert!(conditions("rpc", vec![edge("cart", "rpc", "UH")]).is_empty());
        let two = vec![edge("cart", "rpc", "UPE"), edge("shop", "rpc", "UPE")];
        let [(reason, message)] = &conditions("rpc", two)[..] else {
            panic!("not one condition");
        };
        assert_eq!(reason, "ProtocolErrors");
        assert_eq!(
            message,
            "4 answers in the last 30 s were not what its port declares (port `grpc` (80) says gRPC); the callers were shop/cart, shop/shop. If the app speaks another protocol, change the port's name or appProtocol"
        );
        // All of its ports are plain TCP: there is nothing to compare with.
        assert!(conditions("db", vec![edge("cart", "db", "UPE")]).is_empty());
    }

    #[test]
    fn http_sent_to_a_port_of_tls_is_its_callers_fault() {
        let callers = ["a", "b", "c", "d", "e"];
        let sent = callers.map(|caller| edge(caller, "secure", "UPE")).to_vec();
        let [(reason, message)] = &conditions("secure", sent)[..] else {
            panic!("not one condition");
        };
        assert_eq!(reason, "HttpSentToTls");
        assert_eq!(
            message,
            "10 calls in the last 30 s were HTTP without TLS (port `https` (443) says TLS), from shop/a, shop/b, shop/c and 2 more. Let these callers use TLS; if the app speaks HTTP, change the port's name or appProtocol"
        );
        // By which of the ports is not known.
        let [(reason, message)] = &conditions("both", vec![edge("a", "both", "UPE")])[..] else {
            panic!("not one condition");
        };
        assert_eq!(reason, "ProtocolErrors");
        assert!(message.contains("one of its ports declares"), "{message}");
        assert!(
            message.contains("let them use TLS; if the app"),
            "{message}"
        );
        let mut tcp = edge("a", "secure", "UPE");
        tcp.protocol = "tcp".to_owned();
        let said = conditions("secure", vec![tcp, edge("b", "secure", "UPE")]);
        assert_eq!(said[0].0, "ProtocolErrors");
    }
}
