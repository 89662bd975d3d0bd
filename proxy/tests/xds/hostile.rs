//! A control plane that sends junk, goes away, or goes back in time: the last good configuration
//! serves on. Its states one by one are tested with the cache (`src/xds/cache`).

use xds_proto::type_url;

use crate::ads::{ControlPlane, Stream, http_listener, junk, listener, rds, routes};
use crate::ports::free_port;
use crate::process::{Proxy, status};

/// A proxy that answers `418` by what it was given over ADS.
async fn serving(control: &mut ControlPlane) -> (Proxy, Stream, u16) {
    let proxy = Proxy::start(control.bootstrap(&[], &[]));
    let mut stream = control.stream().await;
    stream.asked_for(type_url::LISTENER, "*").await;
    let port = free_port();
    let value = http_listener("in", port, rds("shop", "60s"));
    stream.give(listener("1", &value)).await;
    stream.give(routes("shop", "1", 418)).await;
    assert_eq!(status(port).await, Some(418));
    (proxy, stream, port)
}

#[tokio::test]
async fn junk_is_refused_by_name_and_what_was_good_serves_on() {
    let mut control = ControlPlane::start().await;
    let (_proxy, mut stream, port) = serving(&mut control).await;
    // Bytes that are no message; a message of another type in this one's place.
    let error = stream
        .send(junk("shop", type_url::ROUTE, &[0xff; 64]))
        .await;
    assert!(error.unwrap().contains("shop"));
    let odd = junk("shop", type_url::CLUSTER, b"");
    let nonce = stream.send_raw(type_url::ROUTE, vec![odd]);
    assert!(stream.answered(&nonce).await.unwrap().contains("shop"));
    let empty = xds_proto::envoy::service::discovery::v3::Resource {
        name: "shop".into(),
        version: "3".into(),
        ..Default::default()
    };
    let nonce = stream.send_raw(type_url::ROUTE, vec![empty]);
    assert!(stream.answered(&nonce).await.is_some());
    assert_eq!(status(port).await, Some(418));
    // The same name twice: which one applies is undefined.
    let twice = vec![routes("shop", "4", 201), routes("shop", "5", 202)];
    let nonce = stream.send_raw(type_url::ROUTE, twice);
    assert!(
        stream
            .answered(&nonce)
            .await
            .unwrap()
            .contains("more than once")
    );
    assert_eq!(status(port).await, Some(418));
    // A type without a subscription is not answered: that would subscribe to it.
    stream.send_raw(
        "type.googleapis.com/no.such.Type",
        vec![junk("x", "no.such.Type", b"x")],
    );
    stream.give(routes("shop", "6", 200)).await;
    assert_eq!(status(port).await, Some(200));
}

#[tokio::test]
async fn an_older_version_is_accepted_like_any_other() {
    let mut control = ControlPlane::start().await;
    let (_proxy, mut stream, port) = serving(&mut control).await;
    stream.give(routes("shop", "9", 200)).await;
    stream.give(routes("shop", "1", 418)).await;
    assert_eq!(status(port).await, Some(418));
}

#[tokio::test]
async fn a_resource_of_100_mb_costs_the_stream_and_nothing_else() {
    let mut control = ControlPlane::start().await;
    let (_proxy, mut stream, port) = serving(&mut control).await;
    let huge = junk("shop", type_url::ROUTE, &vec![b'x'; 100 << 20]);
    stream.send_raw(type_url::ROUTE, vec![huge]);
    let mut again = control.stream().await;
    assert_eq!(status(port).await, Some(418));
    again.asked_for(type_url::ROUTE, "shop").await;
    again.give(routes("shop", "2", 200)).await;
    assert_eq!(status(port).await, Some(200));
}

#[tokio::test]
async fn a_stream_cut_at_any_point_is_opened_again_and_loses_nothing() {
    let mut control = ControlPlane::start().await;
    let (_proxy, stream, port) = serving(&mut control).await;
    stream.cut();
    // Before the proxy sent anything.
    control.stream().await.cut();
    assert_eq!(status(port).await, Some(418));
    // After it sent its subscriptions and versions.
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "shop").await;
    stream.cut();
    assert_eq!(status(port).await, Some(418));
    // After a response, before its answer was read.
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "shop").await;
    stream.send_raw(type_url::ROUTE, vec![routes("shop", "2", 200)]);
    stream.cut();
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "shop").await;
    // While a listener waits for its routes.
    let second = free_port();
    let value = http_listener("second", second, rds("late", "60s"));
    stream.give(listener("2", &value)).await;
    assert_eq!(status(second).await, None);
    stream.cut();
    let mut stream = control.stream().await;
    stream.asked_for(type_url::ROUTE, "late").await;
    stream.give(routes("late", "1", 418)).await;
    assert_eq!(status(second).await, Some(418));
    assert!(matches!(status(port).await, Some(200 | 418)));
}
