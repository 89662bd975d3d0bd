//! Changes at which publishing panics.

use super::*;

fn response(nonce: &str, resources: &[(&str, &str)]) -> pb::DeltaDiscoveryResponse {
    let resource = |(name, body): &(&str, &str)| pb::Resource {
        name: (*name).into(),
        version: nonce.into(),
        resource: Some(Any {
            type_url: ResourceType::Listener.type_url().into(),
            value: body.as_bytes().to_vec(),
        }),
        ..Default::default()
    };
    pb::DeltaDiscoveryResponse {
        type_url: ResourceType::Listener.type_url().into(),
        nonce: nonce.into(),
        resources: resources.iter().map(resource).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_published_is_refused_and_the_rest_published() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    let mut asking = Vec::new();
    for name in ["a", "b", "c"] {
        let demand = rig.demand.clone();
        asking.push(tokio::spawn(async move {
            demand.ask(OnDemandResource::Name(name.into())).await
        }));
        while stream.next().await.resource_names_subscribe != [name] {}
    }
    // `b` panics; `a` and `c` are in force when the NACK is sent, and requests for `b` get
    // `Absent`.
    let batch = [("a", "good"), ("b", "panic in publish"), ("c", "good")];
    stream.reply(response("n1", &batch));
    let mut answers = Vec::new();
    for asked in asking {
        answers.push(asked.await.unwrap());
    }
    use OnDemandResponse::{Absent, Found};
    assert_eq!(answers, [Found, Absent, Found]);
    let mut published = Vec::new();
    while let Ok(changes) = rig.changes.try_recv() {
        published.extend(changes);
    }
    published.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(
        published,
        [upsert("a", "good"), upsert("c", "good")].concat()
    );
    let nack = stream.requests.message().await.unwrap().unwrap();
    assert_eq!(nack.response_nonce, "n1");
    let why = nack.error_detail.unwrap().message;
    assert!(why.contains("\"b\"") && why.contains("panicked"), "{why}");
    assert!(!why.contains("\"a\""), "{why}");

    // A later version of a resource in force is refused, and the one before it is kept.
    stream.reply(response("n2", &[("a", "panic in publish, too")]));
    let nack = stream.requests.message().await.unwrap().unwrap();
    assert!(nack.error_detail.is_some());
    let dump = rig.handle.dump().await;
    let a = dump.iter().find(|one| one.key.name == "a").unwrap();
    assert_eq!(a.active.as_ref().unwrap().1, Bytes::from_static(b"good"));
    assert_eq!(a.rejected.as_ref().unwrap().0, "n2");

    stream.reply(response("n3", &[("a", "better"), ("b", "good")]));
    let ack = stream.requests.message().await.unwrap().unwrap();
    assert_eq!((&*ack.response_nonce, ack.error_detail), ("n3", None));
    let mut published = rig.changes.recv().await.unwrap();
    published.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(
        published,
        [upsert("a", "better"), upsert("b", "good")].concat()
    );
    stream
        .replies
        .send(Err(Status::unavailable("bye")))
        .unwrap();
    let mut again = rig.streams.recv().await.unwrap();
    let held = again.next().await.initial_resource_versions;
    assert_eq!((&*held["a"], &*held["b"], &*held["c"]), ("n3", "n3", "n1"));
}

#[tokio::test]
async fn a_removal_that_panics_is_published_with_the_next_change() {
    let mut rig = start().await;
    let mut stream = rig.streams.recv().await.unwrap();
    stream.next().await;
    let demand = rig.demand.clone();
    let asking = tokio::spawn(async move {
        demand
            .ask(OnDemandResource::Name("stays once".into()))
            .await
    });
    stream.next().await;
    stream.send("n1", "stays once", b"good");
    assert_eq!(asking.await.unwrap(), OnDemandResponse::Found);
    assert_eq!(stream.next().await.error_detail, None);
    stream.reply(pb::DeltaDiscoveryResponse {
        type_url: ResourceType::Listener.type_url().into(),
        nonce: "n2".into(),
        removed_resources: vec!["stays once".into()],
        ..Default::default()
    });
    let why = stream.next().await.error_detail.unwrap().message;
    assert!(why.contains("stays once"), "{why}");
    stream.send("n3", "inbound", b"good");
    assert_eq!(stream.next().await.error_detail, None);
    assert_eq!(
        rig.changes.recv().await.unwrap(),
        upsert("stays once", "good")
    );
    let removal = Change::Remove(Key::new(ResourceType::Listener, "stays once"));
    let next = [vec![removal], upsert("inbound", "good")].concat();
    assert_eq!(rig.changes.recv().await.unwrap(), next);
}
