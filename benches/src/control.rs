//! What a change costs the control plane: one endpoint's readiness, from the source's delta to the
//! encoded bytes of the subscribers: the callers' sidecars and the endpoint's own.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use anyam_control::ads::{ProtocolVariant, Scope, Session, SessionLimits, View};
use anyam_control::model::manifest::families::Families;
use anyam_control::model::manifest::object::Meta;
use anyam_control::model::manifest::service;
use anyam_control::model::manifest::service::{PortRef, Service, ServicePort};
use anyam_control::model::manifest::workload::{Redirection, Workload, WorkloadPort};
use anyam_control::model::mesh::builder::Builder;
use anyam_control::model::mesh::change::{ObjectDelta, Origin};
use anyam_control::model::mesh::vip::Vips;
use anyam_control::model::{MeshOptions, Object};
use anyam_control::source::Observed;
use anyam_control::translate::Translator;
use rustix::time::{ClockId, clock_gettime};
use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use xds_proto::type_url;

use crate::BenchError;

/// Services, by the name of the contestant.
pub const SIZES: [(&str, usize); 3] = [
    ("100-services", 100),
    ("1000-services", 1_000),
    ("10000-services", 10_000),
];
/// Of each service.
const WORKLOADS: usize = 10;
/// Services that a caller talks to.
const CALLED: usize = 20;
/// Changes in a round.
const CHANGES: usize = 400;

/// A control plane with a mesh of some size, and sidecars that are up to date.
pub struct Mesh {
    translator: Translator,
    callers: Vec<Session>,
    /// The sidecars of the workloads that change.
    own: Vec<Session>,
    changes: usize,
}

impl Mesh {
    /// # Errors
    /// When a sidecar is not served.
    pub fn new(services: usize) -> Result<Self, BenchError> {
        let builder = Builder::new(MeshOptions::default(), Vips::new());
        let translator = Translator::new(builder);
        let mut set = Vec::new();
        for number in 0..services {
            set.push(service(number));
            set.extend((0..WORKLOADS).map(|index| workload(number, index, true)));
        }
        translator.apply(observed(set));
        let mut mesh = Mesh {
            callers: (0..3)
                .map(|number| caller(&translator, services - 1 - number))
                .collect(),
            own: (0..CALLED).map(|number| own(&translator, number)).collect(),
            translator,
            changes: 0,
        };
        mesh.changes = 0;
        for session in mesh.callers.iter_mut().chain(&mut mesh.own) {
            if pushed(session, &*mesh.translator.state()) == 0 {
                return Err(BenchError::Void("a sidecar is not served".into()));
            }
        }
        Ok(mesh)
    }

    /// Microseconds of CPU a change.
    ///
    /// # Errors
    /// When a change does not reach those it is for.
    pub fn measure(&mut self) -> Result<f64, BenchError> {
        let mut told = 0;
        let began = cpu();
        for _ in 0..CHANGES {
            let number = self.changes % CALLED;
            let ready = self.changes / CALLED % 2 == 1;
            self.changes += 1;
            self.translator
                .apply(observed(vec![workload(number, 0, ready)]));
            let state = self.translator.state();
            for session in self.callers.iter_mut().chain(self.own.get_mut(number)) {
                told += pushed(session, &*state);
            }
        }
        let took = cpu().saturating_sub(began);
        if told < CHANGES * self.callers.len() {
            return Err(BenchError::Void(format!("{told} resources were sent")));
        }
        Ok(took.as_secs_f64() * 1e6 / CHANGES as f64)
    }
}

/// CPU of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn observed(set: Vec<Object>) -> Observed {
    let origin = |line| Origin::File {
        file: "mesh.yaml".to_owned(),
        line,
    };
    Observed {
        delta: ObjectDelta {
            set: set
                .into_iter()
                .enumerate()
                .map(|(line, object)| (object, origin(line)))
                .collect(),
            ..ObjectDelta::default()
        },
        errors: None,
    }
}

fn namespace(service: usize) -> String {
    format!("team-{}", service % 20)
}

fn meta(service: usize, name: String) -> Meta {
    let label = |key: &str, value: String| (key.to_owned(), value);
    Meta {
        name,
        namespace: namespace(service),
        labels: BTreeMap::from([
            label("app", format!("service-{service}")),
            label("app.kubernetes.io/part-of", "shop".to_owned()),
            label("version", "v1".to_owned()),
        ]),
        created: None,
    }
}

fn service(number: usize) -> Object {
    let [_, _, high, low] = (number as u32).to_be_bytes();
    let port = |name: &str, number: u16, protocol| ServicePort {
        name: name.to_owned(),
        number,
        protocol,
        target: NonZeroU16::new(8080).map_or(PortRef::Name(name.to_owned()), PortRef::Number),
    };
    let app = ("app".to_owned(), format!("service-{number}"));
    Object::Service(
        Service {
            meta: meta(number, format!("service-{number}")),
            selector: BTreeMap::from([app]),
            ports: vec![port("http", 80, service::AppProtocol::Http)],
            cluster_ips: vec![[10, 96, high, low].into()],
            families: Families::BOTH,
            headless: false,
            local: false,
            publish_not_ready: false,
            traffic_distribution: None,
            client_ip_affinity: false,
            left_out: Vec::new(),
            unsupported: Vec::new(),
            external_name: None,
        }
        .into(),
    )
}

fn workload(service: usize, index: usize, ready: bool) -> Object {
    let [_, a, b, c] = ((service * WORKLOADS + index) as u32).to_be_bytes();
    Object::Workload(
        Workload {
            meta: meta(service, format!("service-{service}-{index}")),
            addresses: vec![[10, 128 + a, b, c].into()],
            service_account: format!("service-{service}"),
            ports: vec![WorkloadPort {
                name: "http".to_owned(),
                number: 8080,
                protocol: service::AppProtocol::Http,
            }],
            sidecar: true,
            tunnels: true,
            ready,
            locality: None,
            weight: 1,
            node: String::new(),
            host_network: false,
            pod: true,
            terminating: false,
            redirected: Redirection::default(),
            hostname: None,
            subdomain: None,
        }
        .into(),
    )
}

/// A sidecar of a workload that is not among those that change, and calls those.
fn caller(translator: &Translator, service: usize) -> Session {
    let hosts = (0..CALLED).map(|number| {
        let namespace = namespace(number);
        format!("outbound|80||service-{number}.{namespace}.svc.cluster.local")
    });
    let hosts: Vec<_> = hosts.collect();
    let listeners = (0..CALLED).map(|number| format!("outbound/10.96.0.{number}:80"));
    let listeners = listeners
        .chain(["inbound".to_owned(), "outbound".to_owned()])
        .collect();
    subscribe(
        translator,
        (service, 1),
        &[
            (type_url::CLUSTER, hosts.clone()),
            (type_url::ENDPOINT, hosts.clone()),
            (type_url::LISTENER, listeners),
            (type_url::ROUTE, hosts),
        ],
    )
}

/// The sidecar of a workload that changes.
fn own(translator: &Translator, service: usize) -> Session {
    let clusters = [
        "inbound|8080||",
        "InboundPassthroughCluster",
        "PassthroughCluster",
    ];
    let listeners = ["inbound", "outbound"];
    subscribe(
        translator,
        (service, 0),
        &[
            (type_url::CLUSTER, clusters.map(str::to_owned).into()),
            (type_url::LISTENER, listeners.map(str::to_owned).into()),
        ],
    )
}

fn subscribe(
    translator: &Translator,
    (service, index): (usize, usize),
    names: &[(&str, Vec<String>)],
) -> Session {
    let scope = Scope {
        namespace: namespace(service),
        workload: format!("service-{service}-{index}"),
        service_account: format!("service-{service}"),
        trust_domain: MeshOptions::default().trust_domain,
        anyam: true,
        ..Scope::default()
    };
    let state = translator.state();
    let mut session = Session::new(
        ProtocolVariant::Delta,
        scope,
        SessionLimits::default(),
        &*state,
    );
    for (type_url, names) in names {
        let request = DeltaDiscoveryRequest {
            type_url: (*type_url).to_owned(),
            resource_names_subscribe: names.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        // It is within the limits of a stream.
        let _ = session.delta_request(&request, &*state, Instant::now());
    }
    session
}

/// Takes all responses of a session, as a client that ACKs them; the number of resources.
fn pushed(session: &mut Session, state: &dyn View) -> usize {
    let mut resources = 0;
    while let Some(push) = session.next(state) {
        resources += push.resources.len();
        let request = DeltaDiscoveryRequest {
            type_url: push.type_url.to_string(),
            response_nonce: push.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        let _ = session.delta_request(&request, state, Instant::now());
    }
    resources
}
