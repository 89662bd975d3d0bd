//! The state that streams take on the xDS port.

use std::collections::HashMap;

use tonic::{Code, Status};
use xds_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use xds_proto::type_url::{CLUSTER, NAME};

use super::bench::{Bench, Client, Delta, names, node};

/// The status with which a stream ends.
async fn ended(stream: &mut Delta) -> Status {
    loop {
        if let Err(status) = stream.next().await {
            return status;
        }
    }
}

async fn asked(stream: &Delta, request: DeltaDiscoveryRequest) {
    stream.send.send(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_that_a_client_lists_is_bounded() {
    let bench = Bench::new().await;
    let channel = bench.plain().await;
    // Within the limits of a request's size and of the number of names.
    let made_up = |n: usize| (format!("{n:0>60}"), "v".repeat(24));
    let mut stream = Delta::open(channel.clone(), node("web-0")).await.unwrap();
    let request = DeltaDiscoveryRequest {
        type_url: NAME.into(),
        resource_names_subscribe: vec!["*".into()],
        initial_resource_versions: (0..99_000).map(made_up).collect::<HashMap<_, _>>(),
        ..Default::default()
    };
    asked(&stream, request).await;
    let status = ended(&mut stream).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("bytes of state"), "{status}");

    let mut stream = Delta::open(channel, node("web-0")).await.unwrap();
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".into(),
        ..Default::default()
    };
    asked(&stream, request).await;
    let status = ended(&mut stream).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("runtime.v3.Runtime"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_stream_of_a_workload_ends_for_the_state_of_its_newer_ones() {
    let bench = Bench::new().await;
    let web = bench.join("web-0", "web").await;
    let cart = bench.join("cart-0", "cart").await;
    let open = async |client: &Client, workload: &str| {
        let channel = bench.channel(Some(client)).await;
        let mut stream = Delta::open(channel, node(workload)).await.unwrap();
        let first = stream.next().await.unwrap();
        stream.answer(&first, None).await;
        // Within the state that one stream may have, and more than half of it.
        let request = DeltaDiscoveryRequest {
            type_url: NAME.into(),
            resource_names_subscribe: (0..40_000).map(|n| format!("{n:0>60}")).collect(),
            ..Default::default()
        };
        asked(&stream, request).await;
        let absent = stream.next().await.unwrap();
        assert_eq!(absent.removed_resources.len(), 40_000);
        stream.answer(&absent, None).await;
        stream
    };
    let mut others = open(&cart, "cart-0").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(open(&web, "web-0").await);
    }
    let status = ended(&mut streams[0]).await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
    bench.mesh.change(&[(CLUSTER, "a", Some("1"))]);
    for live in streams[1..].iter_mut().chain([&mut others]) {
        assert_eq!(names(&live.next().await.unwrap()), ["a"]);
    }
}
