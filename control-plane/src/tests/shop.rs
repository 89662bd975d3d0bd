//! A small shop with connected proxies that report traffic and errors.

use xds_proto::anyam::inspect::v1::proxy_message::Message;
use xds_proto::anyam::inspect::v1::{Edge, Report, Reporter};
use xds_proto::envoy::config::cluster::v3::Cluster;
use xds_proto::envoy::config::core::v3::Node;
use xds_proto::envoy::config::route::v3::route::Action;
use xds_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use xds_proto::envoy::config::route::v3::route_match::PathSpecifier;
use xds_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use xds_proto::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster,
};
use xds_proto::google::protobuf::{Duration, UInt32Value};
use xds_proto::type_url::{CLUSTER, ROUTE};

use super::bench::{Agent, Bench, DOMAIN, Delta};
use crate::ads::testing::Memory;
use crate::api::declared::{DeclaredByTest, DeclaredWorkload};
use crate::types::{Condition, FileError, Object, Objects};

/// (workload, service, account)
const SHOP: [(&str, &str, &str); 9] = [
    ("web-0", "web", "web"),
    ("catalogue-0", "catalogue", "catalogue"),
    ("catalogue-1", "catalogue", "catalogue"),
    ("catalogue-2", "catalogue", "catalogue"),
    ("reviews-v1-0", "reviews", "reviews"),
    ("reviews-v2-0", "reviews", "reviews"),
    ("store-0", "store", "store"),
    ("loadgen-0", "", "loadgen"),
    ("intruder-0", "", "intruder"),
];

fn declared() -> DeclaredByTest {
    let object = |(workload, ..): &(&str, &str, &str)| Object {
        kind: "Workload".into(),
        namespace: "shop".into(),
        name: (*workload).into(),
        file: "workloads.yaml".into(),
        conditions: vec![Condition {
            kind: "Accepted".into(),
            status: *workload != "intruder-0",
            reason: "Accepted".into(),
            message: "its service account has no policy".into(),
        }],
    };
    let workload = |(workload, service, account): &(&str, &str, &str)| DeclaredWorkload {
        namespace: "shop".into(),
        name: (*workload).into(),
        service_account: (*account).into(),
        addresses: Vec::new(),
        services: if service.is_empty() {
            Vec::new()
        } else {
            vec![format!("shop/{service}")]
        },
        sidecar: true,
        file: "workloads.yaml".into(),
    };
    DeclaredByTest {
        objects: Objects {
            objects: SHOP.iter().map(object).collect(),
            file_errors: vec![FileError {
                file: "routes.yaml".into(),
                line: 12,
                field: "spec.rules[0].backendRefs[1].weight".into(),
                message: "`ten` is no number; its last valid version stays in service".into(),
                namespace: String::new(),
            }],
            generation: 7,
            ..Objects::default()
        },
        workloads: SHOP.iter().map(workload).collect(),
        ..DeclaredByTest::default()
    }
}

fn edge(to: (&str, &str, &str), protocol: &str, requests: u64, bucket: usize) -> Edge {
    let (service, workload, version) = to;
    let mut latency = vec![0; 17];
    latency[bucket] = requests * 9 / 10;
    latency[bucket + 2] = requests - requests * 9 / 10;
    Edge {
        reporter: Reporter::Source.into(),
        destination_service: format!("{service}.shop.svc.cluster.local"),
        destination_namespace: "shop".into(),
        destination_workload: workload.into(),
        destination_version: version.into(),
        destination_identity: format!("spiffe://{DOMAIN}/ns/shop/sa/{service}"),
        source_identity: format!("spiffe://{DOMAIN}/ns/shop/sa/caller"),
        protocol: protocol.into(),
        security: "mutual_tls".into(),
        requests: if protocol == "tcp" { 0 } else { requests },
        connections_opened: requests / 10 + 1,
        bytes_sent: requests * 300,
        bytes_received: requests * 4000,
        latency: if protocol == "tcp" {
            Vec::new()
        } else {
            latency
        },
        ..Edge::default()
    }
}

fn traffic(workload: &str) -> Vec<Edge> {
    match workload {
        "loadgen-0" => vec![edge(("web", "web-0", ""), "http", 420, 6)],
        "web-0" => {
            let mut failing = edge(("reviews", "reviews-v2-0", "v2"), "http", 40, 8);
            failing.failures = 3;
            failing.response_flags = [("UC".to_owned(), 3)].into();
            vec![
                edge(("catalogue", "catalogue-0", ""), "grpc", 140, 2),
                edge(("catalogue", "catalogue-1", ""), "grpc", 140, 2),
                edge(("catalogue", "catalogue-2", ""), "grpc", 140, 2),
                edge(("reviews", "reviews-v1-0", "v1"), "http", 380, 4),
                failing,
                edge(("store", "store-0", ""), "tcp", 50, 0),
            ]
        }
        "reviews-v1-0" => vec![edge(("catalogue", "catalogue-1", ""), "grpc", 30, 2)],
        "intruder-0" => {
            let mut refused = edge(("catalogue", "catalogue-0", ""), "grpc", 12, 1);
            refused.denied = 12;
            refused.response_flags = [("RBAC".to_owned(), 12)].into();
            vec![refused]
        }
        _ => Vec::new(),
    }
}

fn route_to(weights: &[(&str, u32)]) -> Option<Action> {
    let weight = |(cluster, weight): &(&str, u32)| ClusterWeight {
        name: format!("outbound|80||{cluster}.shop.svc.cluster.local"),
        weight: Some(UInt32Value { value: *weight }),
        ..ClusterWeight::default()
    };
    Some(Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: weights.iter().map(weight).collect(),
            ..WeightedCluster::default()
        })),
        timeout: Some(Duration {
            seconds: 15,
            nanos: 0,
        }),
        ..RouteAction::default()
    }))
}

fn with_prefix(prefix: &str, action: Option<Action>) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(prefix.into())),
            ..RouteMatch::default()
        }),
        action,
        ..Route::default()
    }
}

/// Connects a proxy for each workload, and lets each report its traffic.
pub(crate) async fn connect(bench: &Bench) -> Vec<(Delta, Agent)> {
    let mut proxies = Vec::new();
    for (at, (workload, _, account)) in SHOP.iter().enumerate() {
        let client = bench.join(workload, account).await;
        let channel = bench.channel(Some(&client)).await;
        let address = format!("10.77.0.{}", at + 1);
        let node = Node {
            id: format!("sidecar~{address}~{workload}.shop~{DOMAIN}"),
            user_agent_name: "anyam-proxy 0.1.0".into(),
            ..Node::default()
        };
        let mut stream = Delta::open(channel.clone(), node).await.unwrap();
        let first = stream.next().await.unwrap();
        let wrong = *workload == "reviews-v2-0";
        let error =
            wrong.then_some("clusters[0].outlier_detection.interval: must be more than zero");
        stream.answer(&first, error).await;
        let agent = Agent::over(channel, workload, &address).await.unwrap();
        let report = Report {
            edges: traffic(workload),
            ..Report::default()
        };
        agent.say(Message::Report(report)).await;
        proxies.push((stream, agent));
    }
    proxies
}

pub(crate) async fn shop() -> Bench {
    let mut mesh = Memory::new();
    for (workload, _, account) in SHOP {
        mesh = mesh.workload("shop", workload, account);
    }
    let bench = Bench::with(mesh, declared()).await;
    let name = |service: &str| format!("outbound|80||{service}.shop.svc.cluster.local");
    for service in ["web", "catalogue", "reviews", "store"] {
        let cluster = Cluster {
            name: name(service),
            ..Cluster::default()
        };
        bench.mesh.set(CLUSTER, &cluster.name, &cluster);
    }
    let routes = [
        ("web", vec![with_prefix("/", route_to(&[("web", 100)]))]),
        (
            "reviews",
            vec![
                with_prefix("/admin", route_to(&[("reviews", 100)])),
                with_prefix("/", route_to(&[("reviews", 90), ("store", 10)])),
            ],
        ),
    ];
    for (service, routes) in routes {
        let configuration = RouteConfiguration {
            name: name(service),
            virtual_hosts: vec![VirtualHost {
                name: service.into(),
                domains: vec![format!("{service}.shop.svc.cluster.local")],
                routes,
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        };
        bench.mesh.set(ROUTE, &configuration.name, &configuration);
    }
    bench
}
