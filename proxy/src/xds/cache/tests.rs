mod publication;
mod reconnect;
mod shared;
mod waiting;

use super::*;
use crate::xds::message::{DeltaRequest, DeltaResponse, Resource, SotwRequest, SotwResponse};

/// Bodies are text: the name, then `kind:name` words for references, `wait:seconds` for how long
/// these are waited for; `bad` is refused.
pub(super) struct Words {
    pub(super) calls: usize,
}

impl Validate for Words {
    type Value = String;

    fn validate(
        &mut self,
        _: ResourceType,
        _: &str,
        body: &Bytes,
    ) -> Result<Validated<String>, String> {
        self.calls += 1;
        let text = std::str::from_utf8(body).map_err(|_| "not a message".to_owned())?;
        let mut words = text.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let mut refs = Vec::new();
        let mut initial_fetch_timeout = None;
        for word in words {
            match word.split_once(':') {
                Some(("c", name)) => refs.push(Key::new(ResourceType::Cluster, name)),
                Some(("e", name)) => refs.push(Key::new(ResourceType::Endpoint, name)),
                Some(("r", name)) => refs.push(Key::new(ResourceType::Route, name)),
                Some(("s", name)) => refs.push(Key::new(ResourceType::Secret, name)),
                Some(("wait", seconds)) => {
                    initial_fetch_timeout = seconds.parse().ok().map(Duration::from_secs);
                }
                _ if word == "bad" => return Err("field.path: is bad".into()),
                _ => {}
            }
        }
        Ok(Validated {
            name,
            value: text.to_owned(),
            refs,
            initial_fetch_timeout,
        })
    }
}

pub(super) struct Rig {
    pub(super) cache: Cache<String>,
    pub(super) validator: Words,
    pub(super) now: Now,
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        let now = Now::read();
        Rig {
            cache: Cache::new(config, now),
            validator: Words { calls: 0 },
            now,
        }
    }

    pub(super) fn connected(config: Config) -> Self {
        let mut rig = Rig::new(config);
        rig.cache.connected(rig.now);
        rig
    }

    pub(super) fn requests(&mut self) -> Vec<DiscoveryRequest> {
        std::iter::from_fn(|| self.cache.next_request()).collect()
    }

    pub(super) fn deltas(&mut self) -> Vec<DeltaRequest> {
        let requests = self.requests().into_iter();
        requests
            .map(|request| match request {
                DiscoveryRequest::Delta(request) => request,
                DiscoveryRequest::Sotw(other) => panic!("{other:?}"),
            })
            .collect()
    }

    pub(super) fn sotws(&mut self) -> Vec<SotwRequest> {
        let requests = self.requests().into_iter();
        requests
            .map(|request| match request {
                DiscoveryRequest::Sotw(request) => request,
                DiscoveryRequest::Delta(other) => panic!("{other:?}"),
            })
            .collect()
    }

    pub(super) fn delta(&mut self, kind: ResourceType, bodies: &[&str], removed: &[&str]) {
        self.delta_versioned("1", kind, bodies, removed);
    }

    pub(super) fn delta_versioned(
        &mut self,
        version: &str,
        kind: ResourceType,
        bodies: &[&str],
        removed: &[&str],
    ) {
        let response = DeltaResponse {
            type_url: kind.type_url().into(),
            nonce: format!("n{version}"),
            resources: bodies.iter().map(|b| resource(kind, version, b)).collect(),
            removed: removed.iter().map(|name| (*name).into()).collect(),
        };
        let response = DiscoveryResponse::Delta(response);
        self.cache.receive(response, &mut self.validator, self.now);
    }

    pub(super) fn sotw(&mut self, version: &str, kind: ResourceType, bodies: &[&str]) {
        let response = SotwResponse {
            type_url: kind.type_url().into(),
            nonce: format!("n{version}"),
            version: version.into(),
            resources: bodies
                .iter()
                .map(|b| Resource {
                    name: String::new(),
                    version: String::new(),
                    ..resource(kind, version, b)
                })
                .collect(),
        };
        let response = DiscoveryResponse::Sotw(response);
        self.cache.receive(response, &mut self.validator, self.now);
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
        self.cache.tick(self.now);
    }

    /// The changes, published as by the client. Changes that end in `unpublishable` are refused.
    pub(super) fn published(&mut self) -> Vec<Change<String>> {
        let mut published = Vec::new();
        loop {
            let changes = self.cache.take_changes();
            if changes.is_empty() {
                return published;
            }
            for change in changes {
                match &change {
                    Change::Upsert(key, body) if body.ends_with("unpublishable") => {
                        self.cache.refuse(key, "panicked", self.now);
                    }
                    _ => published.push(change),
                }
            }
            self.cache.published(self.now);
        }
    }

    /// `+body` and `-kind name`.
    pub(super) fn changes(&mut self) -> Vec<String> {
        let changes = self.published().into_iter();
        changes
            .map(|change| match change {
                Change::Upsert(_, body) => format!("+{body}"),
                Change::Remove(key) => format!("-{}", key.name),
            })
            .collect()
    }

    pub(super) fn want(&mut self, kind: ResourceType, name: &str) -> Option<DemandResult> {
        self.cache.want(&Key::new(kind, name), self.now)
    }

    pub(super) fn answers(&mut self) -> Vec<(String, DemandResult)> {
        let answers = self.cache.take_answers().into_iter();
        answers.map(|(key, outcome)| (key.name, outcome)).collect()
    }
}

fn resource(kind: ResourceType, version: &str, body: &str) -> Resource {
    Resource {
        name: body.split(' ').next().unwrap_or_default().into(),
        version: version.into(),
        type_url: kind.type_url().into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        unsupported: None,
    }
}

pub(super) fn named() -> Config {
    Config {
        clusters: Mode::Named,
        listeners: Mode::Named,
        roots: vec![Key::new(ResourceType::Listener, "inbound")],
        ..Config::default()
    }
}

pub(super) fn sotw() -> Config {
    Config {
        protocol: ProtocolVariant::Sotw,
        ..Config::default()
    }
}

pub(super) fn summary(requests: &[DeltaRequest]) -> Vec<String> {
    let line = |r: &DeltaRequest| {
        let error = r.error.as_ref().map_or(String::new(), |e| format!(" !{e}"));
        let (plus, minus) = (r.subscribe.join(","), r.unsubscribe.join(","));
        format!("{} +{plus} -{minus} {}{error}", r.kind, r.nonce)
    };
    requests.iter().map(line).collect()
}

#[test]
fn a_wildcard_client_asks_for_everything_then_for_what_that_names() {
    let mut rig = Rig::connected(Config::default());
    let first = rig.deltas();
    assert_eq!(summary(&first), ["cluster + - ", "listener + - "]);
    rig.delta(ResourceType::Cluster, &["a e:a", "b"], &[]);
    assert_eq!(
        summary(&rig.deltas()),
        ["cluster + - n1", "endpoints +a - "],
        "first the ACK, then what the clusters need"
    );
    assert_eq!(rig.changes(), ["+b"], "a waits for its endpoints");
    rig.delta(ResourceType::Endpoint, &["a"], &[]);
    assert_eq!(rig.changes(), ["+a", "+a e:a"]);
}

#[test]
fn a_listener_waits_for_its_route_and_that_for_its_cluster_and_that_for_its_endpoints() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r"], &[]);
    rig.delta(ResourceType::Route, &["r c:c"], &[]);
    rig.delta(ResourceType::Cluster, &["c e:e s:s"], &[]);
    assert!(!rig.cache.is_initialised(rig.now));
    rig.delta(ResourceType::Endpoint, &["e"], &[]);
    assert_eq!(rig.changes(), ["+e"]);
    rig.delta(ResourceType::Secret, &["s"], &[]);
    assert_eq!(
        rig.changes(),
        ["+s", "+c e:e s:s", "+r c:c", "+inbound r:r"]
    );
    assert!(rig.cache.is_initialised(rig.now));
}

#[test]
fn waiting_is_bounded() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r"], &[]);
    rig.pass(14);
    assert_eq!(rig.changes(), [""; 0]);
    rig.pass(1);
    assert_eq!(rig.changes(), ["+inbound r:r"]);
}

#[test]
fn what_the_server_does_not_have_is_not_waited_for() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r c:gone"], &[]);
    rig.delta(ResourceType::Route, &[], &["r"]);
    assert_eq!(rig.changes(), [""; 0]);
    rig.delta(ResourceType::Cluster, &["gone bad"], &[]);
    assert_eq!(rig.changes(), ["+inbound r:r c:gone"]);
}

#[test]
fn a_rejected_resource_keeps_its_last_good_one_and_its_neighbours_go_through() {
    let mut rig = Rig::connected(Config::default());
    rig.delta(ResourceType::Cluster, &["a", "b"], &[]);
    rig.changes();
    rig.deltas();
    rig.delta_versioned("2", ResourceType::Cluster, &["a bad", "b better"], &[]);
    assert_eq!(rig.changes(), ["+b better"]);
    assert_eq!(
        summary(&rig.deltas()),
        ["cluster + - n2 !cluster \"a\": field.path: is bad"]
    );
    assert!(rig.cache.rejected().unwrap().contains("field.path"));
    let status = |name: &str, rig: &Rig| {
        let mut all = rig.cache.resources();
        let (_, status) = all.find(|(key, _)| key.name == name).unwrap();
        (status.active.unwrap().0, status.rejected.is_some())
    };
    assert_eq!(status("a", &rig), ("1".into(), true));
    rig.delta_versioned("3", ResourceType::Cluster, &["a again"], &[]);
    assert_eq!(rig.cache.rejected(), None);
    assert_eq!(status("a", &rig), ("3".into(), false));
}

#[test]
fn hostile_resources_are_refused_by_name() {
    let config = Config {
        max_resource_bytes: 100,
        ..Config::default()
    };
    let mut rig = Rig::connected(config);
    rig.delta(ResourceType::Cluster, &["good"], &[]);
    rig.changes();
    rig.deltas();
    let huge = format!("huge {}", "x".repeat(200));
    let mut resources: Vec<Resource> = ["dup", "dup 2", huge.as_str(), " nameless"]
        .iter()
        .map(|body| resource(ResourceType::Cluster, "2", body))
        .collect();
    resources.push(Resource {
        type_url: "type.googleapis.com/google.protobuf.Empty".into(),
        ..resource(ResourceType::Cluster, "2", "other")
    });
    resources.push(Resource {
        body: Bytes::from_static(&[0xff, 0xfe]),
        ..resource(ResourceType::Cluster, "2", "junk\n\u{202e}")
    });
    resources.push(Resource {
        name: "liar".into(),
        ..resource(ResourceType::Cluster, "2", "someone")
    });
    resources.push(Resource {
        unsupported: Some("ttl"),
        ..resource(ResourceType::Cluster, "2", "ttl")
    });
    let response = DiscoveryResponse::Delta(DeltaResponse {
        type_url: ResourceType::Cluster.type_url().into(),
        nonce: "n2".into(),
        resources,
        removed: Vec::new(),
    });
    rig.cache.receive(response, &mut rig.validator, rig.now);
    assert_eq!(rig.changes(), [""; 0]);
    let nack = rig.deltas().remove(0).error.unwrap();
    for part in [
        "\"dup\": the name occurs more than once",
        "\"huge\": 205 bytes; the limit is 100",
        "name: required",
        "is a \"type.googleapis.com/google.protobuf.Empty\"",
        "\"junk\\n\\u{202e}\": not a message",
        "\"liar\": name: is \"someone\" inside",
        "ttl: not supported",
    ] {
        assert!(nack.contains(part), "{part} in {nack}");
    }
    assert!(nack.len() <= 4200);
}

#[test]
fn types_without_a_subscription_are_not_even_answered() {
    let mut rig = Rig::connected(Config::default());
    rig.deltas();
    for type_url in [
        "type.googleapis.com/nonsense",
        ResourceType::Route.type_url(),
        "",
    ] {
        let response = DiscoveryResponse::Delta(DeltaResponse {
            type_url: type_url.into(),
            ..DeltaResponse::default()
        });
        rig.cache.receive(response, &mut rig.validator, rig.now);
    }
    assert_eq!(rig.requests(), []);
    assert_eq!(rig.cache.unknown_types, 3);
}

#[test]
fn a_removed_cluster_stays_while_a_route_in_force_needs_it() {
    let mut rig = Rig::connected(Config::default());
    rig.delta(ResourceType::Cluster, &["a", "b"], &[]);
    rig.delta(ResourceType::Listener, &["l c:a"], &[]);
    rig.changes();
    rig.delta(ResourceType::Cluster, &[], &["a", "b"]);
    assert_eq!(rig.changes(), ["-b"]);
    rig.delta_versioned("2", ResourceType::Listener, &["l"], &[]);
    assert_eq!(rig.changes(), ["+l", "-a"]);

    rig.delta(ResourceType::Cluster, &["a"], &[]);
    rig.delta_versioned("3", ResourceType::Listener, &["l c:a"], &[]);
    rig.delta(ResourceType::Cluster, &[], &["a"]);
    rig.changes();
    rig.pass(15);
    assert_eq!(rig.changes(), ["-a"], "not for ever");
}

#[test]
fn routes_and_endpoints_in_use_are_not_taken_away() {
    let mut rig = Rig::connected(named());
    rig.delta(ResourceType::Listener, &["inbound r:r"], &[]);
    rig.delta(ResourceType::Route, &["r"], &[]);
    rig.changes();
    rig.delta(ResourceType::Route, &[], &["r"]);
    assert_eq!(rig.changes(), [""; 0]);
    rig.delta(ResourceType::Listener, &[], &["inbound"]);
    assert_eq!(rig.changes(), ["-inbound", "-r"]);
}
