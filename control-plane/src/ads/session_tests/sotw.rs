//! State of the world, and stale answers in both protocols.

use super::*;

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

/// A proxy that refuses a version does not get it again in a loop; it gets the next one.
#[test]
fn what_was_refused_is_not_sent_again() {
    for protocol in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
        let mesh = shop();
        let mut client = Client::new(&mesh, protocol);
        match protocol {
            ProtocolVariant::Delta => client.subscribe(CLUSTER, &[]),
            ProtocolVariant::Sotw => client.want(CLUSTER, &[], ""),
        }
        let push = client.next().unwrap();
        assert_eq!(describe(&push), "clusters +a +b");
        client.answer(&push, Some("a: refused"));
        assert!(client.next().is_none(), "{protocol:?}");
        // Another type's change is no reason either.
        mesh.change(&[(ROUTE, "r", Some("2"))]);
        assert!(client.next().is_none(), "{protocol:?}");
        mesh.change(&[(CLUSTER, "a", Some("2"))]);
        let push = client.next().unwrap();
        let a = push.resources.iter().find(|one| &*one.name == "a");
        assert!(a.is_some(), "{protocol:?}");
        client.answer(&push, None);
        assert!(client.next().is_none());
        assert!(client.session.status()[0].rejected.is_none());
    }
}
