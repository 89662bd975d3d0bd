//! Delta, and what both protocols share.

use super::*;

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
    for protocol in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
        let mesh = shop();
        let mut client = Client::new(&mesh, protocol);
        for (type_url, names) in [
            (ROUTE, &["r"][..]),
            (LISTENER, &[]),
            (ENDPOINT, &["a", "b", "c"]),
            (CLUSTER, &[]),
        ] {
            match protocol {
                ProtocolVariant::Delta => client.subscribe(type_url, names),
                ProtocolVariant::Sotw => client.want(type_url, names, ""),
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
            ProtocolVariant::Delta => assert_eq!(
                came,
                [
                    "clusters +c",
                    "endpoints +c",
                    "routes +r",
                    "clusters -b",
                    "endpoints -b"
                ]
            ),
            ProtocolVariant::Sotw => assert_eq!(
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
    for protocol in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
        let mesh = shop();
        let mut client = Client::new(&mesh, protocol);
        match protocol {
            ProtocolVariant::Delta => {
                client.subscribe(CLUSTER, &["a"]);
                client.subscribe(ENDPOINT, &["a"]);
            }
            ProtocolVariant::Sotw => {
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
