//! Peers that take little or nothing of what is queued for them, when memory is short: their
//! streams end, others continue.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyam_proxy::socket::reset_on_close;
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::listener::rig::{
    Rig, connect, echo_server, http_direct_response, listener, static_cluster,
};
use crate::support::{fill, run};
use crate::tunnel::pair::{Pair, echoes};
use crate::tunnel::requests::{connect_request, hbone_by};

/// Keeps a worker under memory pressure until `is_over`. A peer counts as stalled after 10 s.
async fn short_of_memory(rig: &Rig, is_over: impl Fn() -> bool) {
    let pressure = async {
        while !is_over() {
            rig.worker.overload.stalled.begin(&rig.worker.timers);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = Duration::from_secs(55);
    tokio::time::timeout(limit, pressure).await.unwrap();
}

fn is_cut(rig: &Rig) -> bool {
    rig.metric("response_flags=\"OM\"")
}

/// A relay of which the server, else the client, stops reading.
async fn stalled_relay(server_stops: bool) {
    let mut rig = Rig::new();
    let (port, other) = (rig.free_port(), rig.free_port());
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clusters = [
        static_cluster("app", app.local_addr().unwrap()),
        static_cluster("echo", echo_server().await),
    ];
    let listeners = [
        listener("in", port, json!({}), "app"),
        listener("other", other, json!({}), "echo"),
    ];
    rig.apply(&clusters, &listeners);
    let mut flowing = connect(other).await;
    let mut client = connect(port).await;
    let (mut served, _) = app.accept().await.unwrap();
    match server_stops {
        true => fill(&mut client).await,
        false => fill(&mut served).await,
    }
    echoes(&mut flowing, b"before").await;
    short_of_memory(&rig, || is_cut(&rig)).await;
    echoes(&mut flowing, b"after").await;
    assert!(rig.metric("connections_active{listener=\"in\"} 0"));
}

#[test]
fn a_relay_ends_when_a_side_stops_reading() {
    run(join_all([true, false].map(stalled_relay)));
}

/// A tunnel of which the server, else the client, stops reading, with pressure on one of its sides.
async fn stalled_tunnel((server_stops, at_called): (bool, bool)) {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pair = Pair::to(app.local_addr().unwrap());
    let mut client = pair.client().await;
    let (mut served, _) = app.accept().await.unwrap();
    match server_stops {
        true => fill(&mut client).await,
        false => fill(&mut served).await,
    }
    let rig = if at_called {
        &pair.called
    } else {
        &pair.caller
    };
    short_of_memory(rig, || is_cut(rig)).await;
    let reader = if server_stops {
        &mut served
    } else {
        &mut client
    };
    assert!(reader.read_to_end(&mut Vec::new()).await.is_err());
}

/// It ends on the side that is short of memory; the other side sees a reset.
#[test]
fn a_tunnel_ends_when_a_side_stops_reading() {
    let cases = [(true, true), (true, false), (false, true), (false, false)];
    run(join_all(cases.map(stalled_tunnel)));
}

/// A client whose window takes one byte of a block holds that block.
#[test]
fn a_tunnel_ends_whose_window_stays_closed() {
    run(async {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = app.local_addr().unwrap();
        let pair = Pair::to(address);
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1);
        let (send, _end) = hbone_by(&pair, &builder).await;
        let mut send = send.ready().await.unwrap();
        let request = connect_request(&address.to_string());
        let (response, stream) = send.send_request(request, false).unwrap();
        let (mut served, _) = app.accept().await.unwrap();
        let answer = response.await.unwrap();
        served.write_all(&[7; 1000]).await.unwrap();
        short_of_memory(&pair.called, || is_cut(&pair.called)).await;
        assert!(served.read(&mut [0]).await.is_err());
        drop((answer, stream));
    });
}

/// HTTP to `app`, with a retry policy where `retries`.
pub fn http(port: u16, retries: bool) -> Value {
    let mut filter = http_direct_response(200);
    let host = &mut filter["typed_config"]["route_config"]["virtual_hosts"][0];
    host["routes"] = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": "app", "timeout": "0s"},
    }]);
    if retries {
        host["routes"][0]["route"]["retry_policy"] = json!({"retry_on": "5xx"});
    }
    json!({
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"name": "http", "filters": [filter]}],
    })
}

const POST: &str = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4000000000\r\n\r\n";

/// A chunk begins, of more bytes than come.
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5000\r\n";

/// Adds the buffer filter.
fn wait_for_bodies(listener: &mut Value) {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";
    let manager = &mut listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filters = manager["http_filters"].as_array_mut().unwrap();
    filters.insert(
        0,
        json!({
            "name": "envoy.filters.http.buffer",
            "typed_config": {"@type": kind, "max_request_bytes": 1_000_000},
        }),
    );
}

#[derive(Clone, Copy, Debug)]
enum Stall {
    /// The upstream does not read the request's body.
    Upload,
    /// The client does not send the rest of a body that is kept for a retry.
    Kept,
    /// The client does not send the rest of a body that a filter waits for.
    Buffered,
    /// The client does not read the response's body.
    Download,
}

async fn stalled_request(stall: Stall) {
    let listener = |port| {
        let mut listener = http(port, matches!(stall, Stall::Kept));
        if matches!(stall, Stall::Buffered) {
            wait_for_bodies(&mut listener);
        }
        listener
    };
    let (rig, port, app) = Rig::before_app(listener).await;
    let mut client = connect(port).await;
    let head = match stall {
        Stall::Buffered => CHUNKED,
        Stall::Upload | Stall::Kept | Stall::Download => POST,
    };
    client.write_all(head.as_bytes()).await.unwrap();
    let mut served = match stall {
        Stall::Buffered => None,
        Stall::Upload | Stall::Kept | Stall::Download => Some(app.accept().await.unwrap().0),
    };
    match (stall, &mut served) {
        (Stall::Upload, _) => fill(&mut client).await,
        (Stall::Buffered, _) | (_, None) => {
            client.write_all(&[7; 10_000]).await.unwrap();
        }
        (Stall::Kept, Some(served)) => {
            client.write_all(&[7; 10_000]).await.unwrap();
            served.read_exact(&mut [0; 10_000]).await.unwrap();
        }
        (Stall::Download, Some(served)) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n";
            served.write_all(head.as_bytes()).await.unwrap();
            fill(served).await;
        }
    }
    short_of_memory(&rig, || is_cut(&rig)).await;
    if !matches!(stall, Stall::Download) {
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 503", "{stall:?}");
    }
    reset_on_close(&client);
}

#[test]
fn a_request_ends_when_a_side_stalls_its_body() {
    let all = [Stall::Upload, Stall::Kept, Stall::Buffered, Stall::Download];
    run(join_all(all.map(stalled_request)));
}

/// A client that reads a few bytes each second occupies as much memory as one that reads none.
#[test]
fn a_response_ends_that_is_hardly_read() {
    run(async {
        let (rig, port, app) = Rig::before_app(|port| http(port, false)).await;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16);
        let handshake = builder.handshake::<_, Bytes>(connect(port).await).await;
        let (send, connection) = handshake.unwrap();
        spawn_local(connection);
        let mut send = send.ready().await.unwrap();
        let request = http::Request::get("http://shop/").body(()).unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        let (mut served, _) = app.accept().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        served.write_all(head).await.unwrap();
        spawn_local(async move {
            // Small pieces, so that each one that is read allows another.
            let pieces = b"1\r\nx\r\n".repeat(1 << 12);
            while served.write_all(&pieces).await.is_ok() {}
        });
        let mut body = answer.await.unwrap().into_body();
        let ended = Rc::new(Cell::new(false));
        let end = ended.clone();
        spawn_local(async move {
            while let Some(Ok(data)) = body.data().await {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = body.flow_control().release_capacity(data.len());
            }
            end.set(true);
        });
        short_of_memory(&rig, || is_cut(&rig)).await;
        rig.until(|| ended.get()).await;
    });
}

/// Answers one extended CONNECT over HTTP/2, and echoes.
async fn echo_over_http2(app: TcpListener) {
    let (tcp, _) = app.accept().await.unwrap();
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut connection = builder.handshake(tcp).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    let mut send = respond
        .send_response(http::Response::new(()), false)
        .unwrap();
    let mut body = request.into_body();
    let echoing = async {
        while let Some(Ok(data)) = body.data().await {
            send.send_data(data, false).unwrap();
        }
    };
    tokio::join!(echoing, async {
        while connection.accept().await.is_some() {}
    });
}

/// A route's retries keep nothing of a tunnel: one that is merely idle stays.
#[test]
fn an_idle_upgrade_is_not_stalled() {
    run(async {
        let mut rig = Rig::new();
        let (port, other) = (rig.free_port(), rig.free_port());
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut upstream = static_cluster("app", app.local_addr().unwrap());
        let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        upstream["typed_extension_protocol_options"] = json!({kind: {
            "@type": format!("type.googleapis.com/{kind}"),
            "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
        }});
        let mut http = http(port, true);
        let manager = &mut http["filter_chains"][0]["filters"][0]["typed_config"];
        manager["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
        let clusters = [upstream, static_cluster("sink", sink.local_addr().unwrap())];
        rig.apply(
            &clusters,
            &[http, listener("other", other, json!({}), "sink")],
        );
        spawn_local(echo_over_http2(app));
        let mut idle = connect(port).await;
        let ask =
            "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        idle.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(idle.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
        echoes(&mut idle, b"before").await;
        // Stalled later than that one is idle, so it would end after it.
        let mut stalled = connect(other).await;
        let _served = sink.accept().await.unwrap();
        fill(&mut stalled).await;
        short_of_memory(&rig, || is_cut(&rig)).await;
        echoes(&mut idle, b"after").await;
    });
}
