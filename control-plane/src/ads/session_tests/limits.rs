//! Limits of what a client may send, and of the state that a stream may take.

use super::*;

fn ask(
    session: &mut Session,
    view: &dyn crate::ads::View,
    request: DeltaDiscoveryRequest,
) -> Result<(), RequestError> {
    session.delta_request(&request, view, Instant::now())
}

fn subscribing(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: strings(names),
        ..Default::default()
    }
}

/// A first request for everything, with what the client lists as held.
fn holding(type_url: &str, versions: &[(String, String)]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: strings(&["*"]),
        initial_resource_versions: versions.iter().cloned().collect(),
        ..Default::default()
    }
}

fn sized(prefix: &str, count: usize, bytes: usize) -> Vec<(String, String)> {
    let one = |n| (format!("{prefix}{n:0>bytes$}"), "v".repeat(bytes));
    (0..count).map(one).collect()
}

fn session(mesh: &Memory, limits: SessionLimits) -> Session {
    let view = mesh.view();
    Session::new(ProtocolVariant::Delta, Scope::default(), limits, &*view)
}

const SMALL: SessionLimits = SessionLimits {
    names: 3,
    name_bytes: 8,
    state_bytes: 1 << 20,
    response_bytes: 3 << 20,
};

#[test]
fn requests_beyond_the_limits_are_refused() {
    let mesh = shop();
    let view = mesh.view();
    let first = |request| ask(&mut session(&mesh, SMALL), &*view, request);
    assert_eq!(first(subscribing("", &[])), Err(RequestError::NoType));
    let too_many = first(subscribing(ROUTE, &["1", "2", "3", "4"]));
    assert_eq!(too_many, Err(RequestError::Names(3)));
    let too_long = first(subscribing(ROUTE, &["123456789"]));
    assert_eq!(too_long, Err(RequestError::NameLength(8)));
    let pair = |name: &str, version: &str| [(name.to_owned(), version.to_owned())];
    let long_name = first(holding(ROUTE, &pair("123456789", "1")));
    assert_eq!(long_name, Err(RequestError::NameLength(8)));
    let long_version = first(holding(ROUTE, &pair("1", "123456789")));
    assert_eq!(long_version, Err(RequestError::VersionLength(8)));
    assert_eq!(first(holding(ROUTE, &pair("12345678", "12345678"))), Ok(()));

    let unknown = "type.googleapis.com/envoy.config.\u{1b}[31mother";
    let refused = first(subscribing(unknown, &[])).unwrap_err();
    assert!(matches!(&refused, RequestError::UnknownType(shown) if shown.len() <= 8));
    let mut known = session(&mesh, SMALL);
    for type_url in crate::ads::resources::TYPES {
        ask(&mut known, &*view, subscribing(type_url, &[])).unwrap();
    }
}

#[test]
fn the_state_of_made_up_names_is_bounded_in_bytes() {
    let mesh = shop();
    let view = mesh.view();
    let limits = SessionLimits {
        state_bytes: 256 << 10,
        ..SessionLimits::default()
    };
    // In one request, before anything is allocated for it.
    let mut at_once = session(&mesh, limits);
    let refused = ask(&mut at_once, &*view, holding(CLUSTER, &sized("", 400, 400)));
    assert!(
        matches!(refused, Err(RequestError::State(_))),
        "{refused:?}"
    );
    assert!(at_once.kinds.is_empty());
    // By several types, of which each is within the bound.
    let mut in_parts = session(&mesh, limits);
    for (at, type_url) in crate::ads::resources::TYPES.into_iter().enumerate() {
        let part = holding(type_url, &sized(&at.to_string(), 50, 500));
        ask(&mut in_parts, &*view, part).unwrap();
    }
    let refused = in_parts.weigh(&*view);
    assert!(
        matches!(refused, Err(RequestError::State(_))),
        "{refused:?}"
    );
    // By names that it no longer subscribes to, but whose state it still waits for.
    let mut waiting = Client::delta(&mesh);
    waiting.session = session(&mesh, limits);
    waiting.subscribe(CLUSTER, &["*"]);
    let push = waiting.next().unwrap();
    let mut number = 0;
    let refused = loop {
        let names: Vec<String> = (0..100).map(|n| format!("{}", number + n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        number += names.len();
        waiting.subscribe(CLUSTER, &names);
        waiting.unsubscribe(CLUSTER, &names);
        assert!(number < 100_000, "without end");
        if let Err(refused) = waiting.session.weigh(&*view) {
            break refused;
        }
    };
    assert!(matches!(refused, RequestError::State(_)), "{refused:?}");
    // The state of what was answered is released.
    waiting.answer(&push, None);
    waiting.drain();
    waiting.session.weigh(&*view).unwrap();
}

#[test]
fn a_client_of_everything_may_have_the_state_of_everything() {
    let mesh = Memory::new();
    let names: Vec<String> = (0..2000).map(|n| format!("name-{n}")).collect();
    for type_url in [CLUSTER, ENDPOINT, LISTENER, ROUTE] {
        let all = names
            .iter()
            .map(|name| (type_url, name.as_str(), Some("1")));
        mesh.change(&all.collect::<Vec<_>>());
    }
    let view = mesh.view();
    let limits = SessionLimits {
        state_bytes: 64 << 10,
        ..SessionLimits::default()
    };
    let mut client = Client::delta(&mesh);
    client.session = session(&mesh, limits);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for type_url in [CLUSTER, ENDPOINT, LISTENER, ROUTE] {
        client.subscribe(type_url, &names);
        client.subscribe(type_url, &["*"]);
    }
    client.drain();
    let (bytes, max) = client.session.weigh(&*view).unwrap();
    assert!(
        bytes > 40 * limits.state_bytes && bytes <= max,
        "{bytes} of {max}"
    );
    // It reconnects and lists all of that.
    let mut back = session(&mesh, limits);
    for type_url in [CLUSTER, ENDPOINT, LISTENER, ROUTE] {
        let has = client.has.iter().filter(|((of, _), _)| of == type_url);
        let has: Vec<_> = has
            .map(|((_, name), v)| (name.clone(), v.clone()))
            .collect();
        let mut request = holding(type_url, &has);
        request.resource_names_subscribe.extend(strings(&names));
        ask(&mut back, &*view, request).unwrap();
    }
    back.weigh(&*view).unwrap();
    // One more name, of a resource that is not there, is within the budget's own part.
    let refused = ask(&mut back, &*view, subscribing(SECRET, &["a"]));
    refused.unwrap();
    let made_up = sized("made-up", 9000, 500);
    let refused = ask(
        &mut session(&mesh, limits),
        &*view,
        holding(CLUSTER, &made_up),
    );
    assert!(
        matches!(refused, Err(RequestError::State(_))),
        "{refused:?}"
    );
}

#[test]
fn names_that_come_and_go_unread_are_not_kept() {
    let mesh = shop();
    let mut client = Client::delta(&mesh);
    client.subscribe(CLUSTER, &["*"]);
    let unread = client.next().unwrap();
    let before = client.session.weigh(&*mesh.view()).unwrap().0;
    for n in 0..5000 {
        let name = format!("passing-{n}");
        mesh.change(&[(CLUSTER, &name, Some("1"))]);
        mesh.change(&[(CLUSTER, &name, None)]);
        client.session.look(&*mesh.view());
    }
    let after = client.session.weigh(&*mesh.view()).unwrap().0;
    assert!(after < before + (100 << 10), "{before} → {after}");
    mesh.change(&[(CLUSTER, "c", Some("1"))]);
    client.answer(&unread, None);
    assert_eq!(client.drain(), ["clusters +c"]);
}
