//! The state machine, without sockets: every promise of `session` in both protocols.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use proptest::prelude::*;
use xds_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_proto::google::rpc::Status;
use xds_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, NAME, ROUTE, SECRET};

use super::kind::Protocol;
use super::resources::{Resources, Scope};
use super::session::{Limits, Push, RequestError, Session};
use super::testing::Memory;

struct Client<'a> {
    mesh: &'a Memory,
    session: Session,
    protocol: Protocol,
    /// What a real client would hold, by type and name.
    has: BTreeMap<(String, String), String>,
}

impl<'a> Client<'a> {
    fn new(mesh: &'a Memory, protocol: Protocol) -> Self {
        let view = mesh.view();
        Client {
            mesh,
            session: Session::new(protocol, Scope::default(), Limits::default(), &*view),
            protocol,
            has: BTreeMap::new(),
        }
    }

    fn delta(mesh: &'a Memory) -> Self {
        Client::new(mesh, Protocol::Delta)
    }

    fn sotw(mesh: &'a Memory) -> Self {
        Client::new(mesh, Protocol::Sotw)
    }

    fn ask_delta(&mut self, request: DeltaDiscoveryRequest) {
        self.session
            .delta_request(&request, Instant::now())
            .unwrap();
    }

    fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        self.ask_delta(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: strings(names),
            ..Default::default()
        });
    }

    fn unsubscribe(&mut self, type_url: &str, names: &[&str]) {
        self.ask_delta(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_unsubscribe: strings(names),
            ..Default::default()
        });
    }

    fn want(&mut self, type_url: &str, names: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            type_url: type_url.into(),
            resource_names: strings(names),
            response_nonce: nonce.into(),
            ..Default::default()
        };
        self.ask_sotw(&request);
    }

    fn ask_sotw(&mut self, request: &DiscoveryRequest) {
        let view = self.mesh.view();
        self.session
            .sotw_request(request, &*view, Instant::now())
            .unwrap();
    }

    fn next(&mut self) -> Option<Push> {
        let view = self.mesh.view();
        self.session.look(&*view);
        let push = self.session.next(&*view)?;
        for resource in &push.resources {
            let key = (push.type_url.to_string(), resource.name.to_string());
            self.has.insert(key, resource.version.to_string());
        }
        for name in &push.removed {
            self.has
                .remove(&(push.type_url.to_string(), name.to_string()));
        }
        Some(push)
    }

    fn answer(&mut self, push: &Push, error: Option<&str>) {
        let status = |message: &str| Status {
            message: message.into(),
            ..Default::default()
        };
        match self.protocol {
            Protocol::Delta => self.ask_delta(DeltaDiscoveryRequest {
                type_url: push.type_url.to_string(),
                response_nonce: push.nonce.clone(),
                error_detail: error.map(status),
                ..Default::default()
            }),
            Protocol::Sotw => {
                let names = self.wanted_names(&push.type_url);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let request = DiscoveryRequest {
                    type_url: push.type_url.to_string(),
                    resource_names: strings(&names),
                    response_nonce: push.nonce.clone(),
                    error_detail: error.map(status),
                    ..Default::default()
                };
                self.ask_sotw(&request);
            }
        }
    }

    fn wanted_names(&self, type_url: &str) -> Vec<String> {
        let kind = self
            .session
            .kinds
            .iter()
            .find(|kind| &*kind.type_url == type_url);
        let Some(kind) = kind else { return Vec::new() };
        let mut names: Vec<String> = kind.names.iter().map(ToString::to_string).collect();
        if kind.all && kind.named_once {
            names.push("*".into());
        }
        names
    }

    /// Takes and accepts everything there is; tells what came, in order.
    fn drain(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(push) = self.next() {
            log.push(describe(&push));
            self.answer(&push, None);
        }
        assert!(!self.session.has_work(), "drained, yet there is work");
        log
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// `clusters +a +b -c`.
fn describe(push: &Push) -> String {
    let mut names: Vec<String> = push
        .resources
        .iter()
        .map(|one| format!("+{}", one.name))
        .collect();
    names.extend(push.removed.iter().map(|name| format!("-{name}")));
    names.sort();
    names.insert(0, super::kind::label(&push.type_url).to_owned());
    names.join(" ")
}

fn shop() -> Memory {
    let mesh = Memory::new();
    mesh.change(&[
        (CLUSTER, "a", Some("1")),
        (CLUSTER, "b", Some("1")),
        (ENDPOINT, "a", Some("1")),
        (ENDPOINT, "b", Some("1")),
        (LISTENER, "l", Some("1")),
        (ROUTE, "r", Some("1")),
    ]);
    mesh
}

#[test]
fn an_empty_first_subscription_is_everything_for_listeners_and_clusters_only() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &[]);
    client.subscribe(ROUTE, &[]);
    assert_eq!(client.drain(), ["clusters +a +b"]);
    mesh.change(&[(CLUSTER, "c", Some("1")), (ROUTE, "r", Some("2"))]);
    assert_eq!(client.drain(), ["clusters +c"]);
}

#[test]
fn a_star_is_everything_and_an_empty_everything_is_answered() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(ROUTE, &["*"]);
    client.subscribe(SECRET, &["*"]);
    assert_eq!(client.drain(), ["secrets", "routes +r"]);
    client.unsubscribe(ROUTE, &["*"]);
    mesh.change(&[(ROUTE, "r", Some("2"))]);
    assert!(client.drain().is_empty());
}

#[test]
fn names_that_do_not_exist_are_said_to_be_gone_once_and_sent_when_they_come() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(NAME, &["x", "y"]);
    assert_eq!(client.drain(), ["names -x -y"]);
    mesh.change(&[(NAME, "y", Some("1"))]);
    assert_eq!(client.drain(), ["names +y"]);
    mesh.change(&[(NAME, "y", None)]);
    assert_eq!(client.drain(), ["names -y"]);
    client.subscribe(NAME, &["x"]);
    assert_eq!(client.drain(), ["names -x"], "asked again, answered again");
}

#[test]
fn a_name_asked_for_again_is_sent_again() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &["a"]);
    assert_eq!(client.drain(), ["clusters +a"]);
    client.subscribe(CLUSTER, &["a"]);
    assert_eq!(client.drain(), ["clusters +a"]);
}

#[test]
fn a_name_no_longer_asked_for_but_in_everything_is_answered() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &["*", "a", "ghost"]);
    assert_eq!(client.drain(), ["clusters +a +b -ghost"]);
    client.unsubscribe(CLUSTER, &["a", "ghost"]);
    assert_eq!(client.drain(), ["clusters +a -ghost"]);
    assert!(client.drain().is_empty());
}

#[test]
fn unchanged_is_not_sent_whatever_was_touched() {
    for mesh in [shop(), shop().forgetful()] {
        let mut client = Client::delta(&mesh);
        client.subscribe(CLUSTER, &[]);
        client.subscribe(ENDPOINT, &["a"]);
        client.drain();
        mesh.change(&[(CLUSTER, "a", Some("1")), (ENDPOINT, "b", Some("2"))]);
        assert!(client.drain().is_empty());
    }
}

#[test]
fn a_reconnect_costs_what_changed_meanwhile() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    let versions = HashMap::from([
        ("a".to_owned(), "v11".to_owned()),
        ("b".to_owned(), "v10".to_owned()),
        ("gone".to_owned(), "v11".to_owned()),
    ]);
    client.ask_delta(DeltaDiscoveryRequest {
        type_url: CLUSTER.into(),
        initial_resource_versions: versions.clone(),
        ..Default::default()
    });
    assert_ne!(
        client.session.status()[0].accepted_version,
        "",
        "it came with what it accepted"
    );
    assert_eq!(client.drain(), ["clusters +b -gone"]);

    let mut by_name = Client::delta(&mesh);
    by_name.ask_delta(DeltaDiscoveryRequest {
        type_url: CLUSTER.into(),
        resource_names_subscribe: strings(&["a", "b", "gone"]),
        initial_resource_versions: versions,
        ..Default::default()
    });
    assert_eq!(by_name.drain(), ["clusters +b -gone"]);
}

#[test]
fn make_before_break_in_both_protocols() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mesh = shop();
        let mut client = Client::new(&mesh, protocol);
        for (type_url, names) in [
            (ROUTE, &["r"][..]),
            (LISTENER, &[]),
            (ENDPOINT, &["a", "b", "c"]),
            (CLUSTER, &[]),
        ] {
            match protocol {
                Protocol::Delta => client.subscribe(type_url, names),
                Protocol::Sotw => client.want(type_url, names, ""),
            }
        }
        let order: Vec<_> = client
            .drain()
            .iter()
            .map(|line| line[..4].to_owned())
            .collect();
        assert_eq!(order, ["clus", "endp", "list", "rout"]);

        mesh.change(&[
            (ROUTE, "r", Some("to c")),
            (CLUSTER, "c", Some("1")),
            (ENDPOINT, "c", Some("1")),
            (CLUSTER, "b", None),
            (ENDPOINT, "b", None),
        ]);
        let came = client.drain();
        match protocol {
            Protocol::Delta => assert_eq!(
                came,
                [
                    "clusters +c",
                    "endpoints +c",
                    "routes +r",
                    "clusters -b",
                    "endpoints -b"
                ]
            ),
            Protocol::Sotw => assert_eq!(
                came,
                [
                    "clusters +a +b +c",
                    "endpoints +c",
                    "routes +r",
                    "clusters +a +c"
                ]
            ),
        }
    }
}

#[test]
fn a_cluster_stays_while_the_route_that_replaces_it_is_refused() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &[]);
    client.subscribe(ROUTE, &["r"]);
    client.drain();
    mesh.change(&[(ROUTE, "r", Some("bad")), (CLUSTER, "b", None)]);
    let push = client.next().unwrap();
    assert_eq!(describe(&push), "routes +r");
    client.answer(&push, Some("virtual_hosts[0].domains: empty\u{1b}[31m"));
    assert!(
        client.next().is_none(),
        "the same bytes are not sent again, and b stays"
    );
    let rejected = client.session.status()[1].rejected.clone().unwrap();
    assert_eq!(rejected.message, "virtual_hosts[0].domains: empty [31m");
    assert!(!client.session.status()[1].synced);
    mesh.change(&[(ROUTE, "r", Some("good"))]);
    assert_eq!(client.drain(), ["routes +r", "clusters -b"]);
    assert!(client.session.status().iter().all(|kind| kind.synced));
}

#[test]
fn a_slow_client_gets_only_the_newest() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(ENDPOINT, &["a"]);
    let first = client.next().unwrap();
    for version in 2..1000 {
        mesh.change(&[(ENDPOINT, "a", Some(&version.to_string()))]);
        assert!(client.next().is_none(), "one response waits for its ACK");
    }
    client.answer(&first, None);
    assert_eq!(client.drain(), ["endpoints +a"]);
    assert_eq!(client.has[&(ENDPOINT.into(), "a".into())], "v3999");
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mesh = shop();
        let mut client = Client::new(&mesh, protocol);
        match protocol {
            Protocol::Delta => {
                client.subscribe(CLUSTER, &["a"]);
                client.subscribe(ENDPOINT, &["a"]);
            }
            Protocol::Sotw => {
                client.want(CLUSTER, &["a"], "");
                client.want(ENDPOINT, &["a"], "");
            }
        }
        client.drain();
        mesh.change(&[(CLUSTER, "a", Some("2"))]);
        assert_eq!(client.drain(), ["clusters +a", "endpoints +a"]);
    }
}

#[test]
fn a_stale_nonce_settles_nothing() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &["a"]);
    let push = client.next().unwrap();
    let mut stale = push.clone();
    stale.nonce = "99".into();
    client.answer(&stale, None);
    assert!(!client.session.status()[0].synced);
    client.answer(&push, None);
    client.answer(&push, Some("too late to refuse"));
    assert!(client.session.status()[0].synced);

    let mut sotw = Client::sotw(&mesh);
    sotw.want(ENDPOINT, &["a"], "");
    let first = sotw.next().unwrap();
    sotw.want(ENDPOINT, &["a", "b"], &first.nonce);
    let second = sotw.next().unwrap();
    assert_eq!(describe(&second), "endpoints +b");
    sotw.want(ENDPOINT, &["a"], &first.nonce);
    assert_eq!(
        sotw.wanted_names(ENDPOINT).len(),
        2,
        "an answer to an older response"
    );
}

#[test]
fn large_differences_are_split_and_all_arrive() {
    let mesh = Memory::new();
    let big = "x".repeat(100_000);
    let names: Vec<String> = (0..100).map(|n| format!("c{n:03}")).collect();
    let changes: Vec<_> = names
        .iter()
        .map(|name| (CLUSTER, name.as_str(), Some(big.as_str())))
        .collect();
    mesh.change(&changes);
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &[]);
    let pushes = client.drain();
    assert_eq!(pushes.len(), 4, "ten megabytes in responses of three");
    assert_eq!(client.has.len(), 100);
}

#[test]
fn sotw_responses_of_clusters_are_whole_and_others_partial() {
    let mesh = shop();
    let mut client = Client::sotw(&mesh);
    client.want(CLUSTER, &[], "");
    client.want(ENDPOINT, &["a", "b"], "");
    assert_eq!(client.drain(), ["clusters +a +b", "endpoints +a +b"]);
    mesh.change(&[(CLUSTER, "c", Some("1")), (ENDPOINT, "a", Some("2"))]);
    assert_eq!(client.drain(), ["clusters +a +b +c", "endpoints +a"]);
}

#[test]
fn sotw_an_empty_list_after_names_is_nothing() {
    let mesh = shop();
    let mut client = Client::sotw(&mesh);
    client.want(CLUSTER, &["a"], "");
    let push = client.next().unwrap();
    assert_eq!(describe(&push), "clusters +a");
    client.want(CLUSTER, &[], &push.nonce);
    mesh.change(&[(CLUSTER, "b", Some("2"))]);
    assert_eq!(
        client
            .next()
            .map(|push| push.resources.len())
            .unwrap_or_default(),
        0
    );
}

#[test]
fn sotw_a_reconnect_with_the_newest_version_is_sent_nothing() {
    let mesh = shop();
    let mut client = Client::sotw(&mesh);
    client.want(CLUSTER, &[], "");
    let push = client.next().unwrap();
    let again = DiscoveryRequest {
        type_url: CLUSTER.into(),
        version_info: push.version.clone(),
        ..Default::default()
    };
    let mut back = Client::sotw(&mesh);
    back.ask_sotw(&again);
    assert!(back.drain().is_empty());
    mesh.change(&[(CLUSTER, "a", Some("2"))]);
    assert_eq!(back.drain(), ["clusters +a +b"]);
    let mut older = Client::sotw(&mesh);
    older.ask_sotw(&again);
    assert_eq!(older.drain(), ["clusters +a +b"]);
}

#[test]
fn a_stream_that_asks_for_too_much_ends() {
    let mesh = shop();
    let view = mesh.view();
    let limits = Limits {
        types: 1,
        names: 3,
        name_bytes: 8,
        ..Limits::default()
    };
    let ask = |session: &mut Session, type_url: &str, names: &[&str]| {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: strings(names),
            ..Default::default()
        };
        session.delta_request(&request, Instant::now())
    };
    let fresh = || Session::new(Protocol::Delta, Scope::default(), limits, &*view);
    assert_eq!(ask(&mut fresh(), "", &[]), Err(RequestError::NoType));
    let too_many = ask(&mut fresh(), "t", &["1", "2", "3", "4"]);
    assert_eq!(too_many, Err(RequestError::Names(3)));
    let too_long = ask(&mut fresh(), "t", &["123456789"]);
    assert_eq!(too_long, Err(RequestError::NameLength(8)));
    let mut session = fresh();
    ask(&mut session, "t", &["1"]).unwrap();
    assert_eq!(ask(&mut session, "u", &["1"]), Err(RequestError::Types(1)));
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize, u8),
    Remove(usize, usize),
    Subscribe(usize, Vec<usize>),
    Unsubscribe(usize, Vec<usize>),
    Take,
    Answer(bool),
}

const TYPES: [&str; 4] = [CLUSTER, ENDPOINT, LISTENER, ROUTE];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "*"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = || prop::collection::vec(0..NAMES.len(), 1..3);
    let step = prop_oneof![
        (0..4usize, 0..4usize, 0..3u8).prop_map(|(t, n, v)| Step::Set(t, n, v)),
        (0..4usize, 0..4usize).prop_map(|(t, n)| Step::Remove(t, n)),
        (0..4usize, names()).prop_map(|(t, n)| Step::Subscribe(t, n)),
        (0..4usize, names()).prop_map(|(t, n)| Step::Unsubscribe(t, n)),
        Just(Step::Take),
        prop::bool::weighted(0.8).prop_map(Step::Answer),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: once everything was taken and accepted, a delta client
    /// has exactly what it subscribed to, as it is now, and nothing else is sent.
    #[test]
    fn every_history_ends_in_the_newest_state(steps in steps(), forgetful in any::<bool>()) {
        let mesh = if forgetful { shop().forgetful() } else { shop() };
        let mut client = Client::delta(&mesh);
        let mut in_flight: Vec<Push> = Vec::new();
        for step in steps {
            match step {
                Step::Set(t, n, v) => mesh.change(&[(TYPES[t], NAMES[n], Some(&v.to_string()))]),
                Step::Remove(t, n) => mesh.change(&[(TYPES[t], NAMES[n], None)]),
                Step::Subscribe(t, n) => {
                    let names: Vec<_> = n.iter().map(|n| NAMES[*n]).collect();
                    client.subscribe(TYPES[t], &names);
                }
                Step::Unsubscribe(t, n) => {
                    let names: Vec<_> = n.iter().map(|n| NAMES[*n]).collect();
                    // A delta client drops by itself what it no longer wants.
                    client.unsubscribe(TYPES[t], &names);
                    let session = &client.session;
                    let kind = session.kinds.iter().find(|kind| &*kind.type_url == TYPES[t]);
                    client.has.retain(|(of, name), _| {
                        of != TYPES[t] || kind.is_some_and(|kind| kind.wants(name))
                    });
                }
                Step::Take => in_flight.extend(client.next()),
                Step::Answer(good) => {
                    if let Some(push) = in_flight.pop() {
                        client.answer(&push, (!good).then_some("no"));
                    }
                }
            }
        }
        for push in in_flight {
            client.answer(&push, None);
        }
        client.drain();
        // Whatever was refused is changed once more, so that it is accepted.
        let all: Vec<_> = TYPES.iter().flat_map(|t| NAMES[..4].iter().map(move |n| (*t, *n))).collect();
        for (type_url, name) in &all {
            mesh.change(&[(type_url, name, Some("last"))]);
        }
        client.drain();
        for kind in &client.session.kinds {
            for name in &NAMES[..4] {
                let key = (kind.type_url.to_string(), name.to_string());
                let has = client.has.get(&key).map(String::as_str);
                prop_assert_eq!(has, kind.wants(name).then_some("v4last"), "{:?}", key);
            }
        }
        prop_assert!(client.session.status().iter().all(|kind| kind.synced));
    }
}
