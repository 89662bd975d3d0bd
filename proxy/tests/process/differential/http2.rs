//! The same over HTTP/2, to an upstream that speaks HTTP/1.

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::upstream::{refusing, scripted};
use super::{Setup, cluster, route};
use crate::filters::side::Side;
use crate::running::TIMEOUT;

/// What came back on a stream; lines are sorted, and what differs from run to run is masked.
#[derive(Debug, PartialEq, Eq)]
struct Stream {
    status: u16,
    headers: Vec<String>,
    /// The response ended with its head.
    headers_only: bool,
    body: String,
    trailers: Vec<String>,
    /// The code of a RST_STREAM.
    reset: Option<u32>,
}

/// What is sent.
struct Sent {
    method: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    trailers: &'static [(&'static str, &'static str)],
}

fn sent(method: &'static str, path: &'static str) -> Sent {
    Sent {
        method,
        path,
        headers: &[],
        body: "",
        trailers: &[],
    }
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = match (name.as_str(), value.to_str().unwrap()) {
            ("server" | "date" | "x-envoy-upstream-service-time", _) => "masked",
            (_, value) => value,
        };
        format!("{name}: {value}")
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

async fn exchange(side: &Side, sent: &Sent) -> Stream {
    let tcp = TcpStream::connect(side.front()).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut request = Request::builder()
        .method(sent.method)
        .uri(format!("http://shop{}", sent.path));
    for (name, value) in sent.headers {
        request = request.header(*name, *value);
    }
    let ends = sent.body.is_empty() && sent.trailers.is_empty();
    let request = request.body(()).unwrap();
    let (response, mut sending) = client.send_request(request, ends).unwrap();
    if !ends {
        let last = sent.trailers.is_empty();
        sending
            .send_data(Bytes::from_static(sent.body.as_bytes()), last)
            .unwrap();
        if !last {
            let mut trailers = HeaderMap::new();
            for (name, value) in sent.trailers {
                trailers.append(*name, value.parse().unwrap());
            }
            sending.send_trailers(trailers).unwrap();
        }
    }
    let mut stream = Stream {
        status: 0,
        headers: Vec::new(),
        headers_only: false,
        body: String::new(),
        trailers: Vec::new(),
        reset: None,
    };
    match response.await {
        Err(error) => stream.reset = error.reason().map(u32::from),
        Ok(response) => {
            stream.status = response.status().as_u16();
            stream.headers = lines(response.headers());
            let mut body = response.into_body();
            stream.headers_only = body.is_end_stream();
            while let Some(data) = body.data().await {
                match data {
                    Ok(data) => {
                        let _ = body.flow_control().release_capacity(data.len());
                        stream.body += &String::from_utf8_lossy(&data);
                    }
                    Err(error) => {
                        stream.reset = error.reason().map(u32::from);
                        break;
                    }
                }
            }
            if let Ok(Some(trailers)) = body.trailers().await {
                stream.trailers = lines(&trailers);
            }
        }
    }
    drop((sending, client));
    driving.abort();
    stream.body = masked(&stream.body);
    stream
}

/// The request that the upstream got, without its id.
fn masked(body: &str) -> String {
    let line = |line: &str| match line.starts_with("x-request-id: ") {
        true => "x-request-id: made".to_owned(),
        false => line.to_owned(),
    };
    body.split("\r\n")
        .map(line)
        .collect::<Vec<_>>()
        .join("\r\n")
}

async fn compare(setup: &Setup, asks: &[Sent]) {
    let bootstrap = |front, log: &str| setup.bootstrap(front, log);
    let (ours, stock) = (Side::anyam_by(&bootstrap), Side::envoy_by(&bootstrap));
    let mut differences = Vec::new();
    for ask in asks {
        let both = async { tokio::join!(exchange(&ours, ask), exchange(&stock, ask)) };
        let both = tokio::time::timeout(TIMEOUT, both).await;
        let (own, envoys) = both.unwrap_or_else(|_| panic!("{} {}", ask.method, ask.path));
        if own != envoys {
            let (method, path) = (ask.method, ask.path);
            differences.push(format!(
                "{method} {path}\nAnyam {own:#?}\nEnvoy {envoys:#?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
    let (ours, stock) = (ours.log(asks.len()), stock.log(asks.len()));
    assert_eq!(ours, stock, "logs, Anyam | Envoy");
}

fn setup() -> Setup {
    let (dead, bound) = refusing();
    // For as long as the test runs.
    std::mem::forget(bound);
    Setup {
        host: json!({}),
        manager: json!({}),
        routes: json!([
            {"name": "tea", "match": {"prefix": "/tea"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
            {"name": "nothing", "match": {"prefix": "/nothing"}, "direct_response": {"status": 204}},
            {"name": "away", "match": {"prefix": "/away"}, "redirect": {"path_redirect": "/x"}},
            route("/dead", json!({"cluster": "dead"})),
            route("/timeout", json!({"cluster": "app", "timeout": "0.2s"})),
            route("/", json!({"cluster": "app"})),
        ]),
        clusters: vec![
            cluster("app", &[scripted()], &Value::Null),
            cluster("dead", &[dead], &Value::Null),
        ],
    }
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

#[tokio::test]
async fn streams_are_answered_as_envoy_answers_them() {
    let grpc = |path| Sent {
        headers: GRPC,
        ..sent("POST", path)
    };
    compare(
        &setup(),
        &[
            sent("GET", "/a?b"),
            sent("HEAD", "/a"),
            sent("OPTIONS", "/a"),
            sent("DELETE", "/a"),
            sent("POST", "/empty-body"),
            Sent {
                body: "abc",
                ..sent("POST", "/p")
            },
            Sent {
                body: "abc",
                headers: &[("content-length", "3")],
                ..sent("PUT", "/p")
            },
            Sent {
                body: "abc",
                trailers: &[("x-t", "1")],
                ..sent("POST", "/p")
            },
            Sent {
                headers: &[
                    ("cookie", "a=1"),
                    ("cookie", "b=2"),
                    ("x-a", "1"),
                    ("x-a", "2"),
                ],
                ..sent("GET", "/c")
            },
            sent("GET", "/empty"),
            sent("GET", "/fail"),
            sent("GET", "/close"),
            sent("GET", "/reset"),
            sent("GET", "/garbage"),
            sent("GET", "/coding"),
            sent("GET", "/short"),
            sent("GET", "/tea"),
            sent("HEAD", "/tea"),
            sent("GET", "/nothing"),
            sent("GET", "/away"),
            sent("GET", "/dead"),
            sent("GET", "/timeout/silent"),
            grpc("/dead"),
            grpc("/timeout/silent"),
            grpc("/close"),
            grpc("/tea"),
            grpc("/fail"),
        ],
    )
    .await;
}
