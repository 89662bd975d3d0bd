//! Checks over HTTP/2, and those of gRPC, beside Envoy.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::host::flags;
use super::{BOTH, SHORT, admin_of, bootstrap, check, endpoint, http_check, merge};
use crate::running::TIMEOUT;

/// What is done with one check.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    /// A message, and a status in trailers.
    Grpc(&'static [u8], &'static str),
    /// A status and nothing else.
    Refused(&'static str),
    /// GOAWAY goes with the answer.
    Leaving,
    Reset,
    /// The connection ends.
    Close,
    Silent,
}

const SERVING: Answer = Answer::Grpc(&[0, 0, 0, 0, 2, 8, 1], "0");
const NOT_SERVING: Answer = Answer::Grpc(&[0, 0, 0, 0, 2, 8, 2], "0");
const UNKNOWN: Answer = Answer::Grpc(&[0, 0, 0, 0, 2, 8, 3], "0");

struct Host {
    script: Vec<Answer>,
    address: SocketAddr,
    admin: OnceLock<SocketAddr>,
    count: Mutex<usize>,
    arrived: Sender<(String, HeaderMap)>,
}

/// Of a running host: its address and the checks that arrive.
type Arrivals = Receiver<(String, HeaderMap)>;

fn start(script: &[Answer]) -> (Arc<Host>, Arrivals) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (arrived, arrivals) = channel();
    let host = Arc::new(Host {
        script: script.to_vec(),
        address: listener.local_addr().unwrap(),
        admin: OnceLock::new(),
        count: Mutex::new(0),
        arrived,
    });
    let serving = host.clone();
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(tcp));
            }
        });
    });
    (host, arrivals)
}

impl Host {
    async fn serve(self: Arc<Self>, tcp: TcpStream) {
        let Ok(mut connection) = h2::server::handshake(tcp).await else {
            return;
        };
        let (close, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else {
                        return;
                    };
                    let headers = request.headers().clone();
                    let ends = (close.clone(), leave.clone());
                    tokio::spawn(self.clone().answer(headers, respond, ends));
                }
                () = close.notified() => return,
                () = leave.notified() => connection.graceful_shutdown(),
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        headers: HeaderMap,
        mut respond: SendResponse<Bytes>,
        (close, leave): (Arc<Notify>, Arc<Notify>),
    ) {
        let (admin, address) = (self.admin.get().copied(), self.address);
        let page = move || admin.and_then(|admin| flags(admin, address));
        let flags = tokio::task::spawn_blocking(page).await.unwrap();
        let step = {
            let mut count = self.count.lock().unwrap();
            *count += 1;
            let step = self.script.get(*count - 1).or(self.script.last());
            *step.unwrap()
        };
        let _ = self.arrived.send((flags.unwrap_or_default(), headers));
        let head = |status: u16| Response::builder().status(status);
        let grpc = || head(200).header("content-type", "application/grpc");
        match step {
            Answer::Status(status) => {
                let _ = respond.send_response(head(status).body(()).unwrap(), true);
            }
            Answer::Grpc(message, status) => {
                let sent = respond.send_response(grpc().body(()).unwrap(), false);
                let Ok(mut stream) = sent else { return };
                let _ = stream.send_data(Bytes::from_static(message), false);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.parse().unwrap());
                let _ = stream.send_trailers(trailers);
            }
            Answer::Refused(status) => {
                let head = grpc().header("grpc-status", status);
                let _ = respond.send_response(head.body(()).unwrap(), true);
            }
            Answer::Leaving => {
                leave.notify_one();
                let _ = respond.send_response(head(200).body(()).unwrap(), true);
            }
            Answer::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            Answer::Close => close.notify_one(),
            Answer::Silent => {
                let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            }
        }
    }
}

/// The flags after each step and the headers of the last check, in both the same.
fn same(check: &Value, script: &[Answer]) -> (Vec<String>, HeaderMap) {
    let [ours, stock] = BOTH.map(|begin| {
        let (host, arrivals) = start(script);
        let more = json!({"health_checks": [check], "http2_protocol_options": {}});
        let _side = begin(&|front, _| {
            let _ = host.admin.set(admin_of(front));
            bootstrap(front, &[endpoint(host.address)], &more)
        });
        let next = || arrivals.recv_timeout(TIMEOUT).unwrap();
        next();
        let all: Vec<_> = script.iter().map(|_| next()).collect();
        let last = all.last().unwrap().1.clone();
        let flags: Vec<_> = all.into_iter().map(|(flags, _)| flags).collect();
        (flags, last)
    });
    assert_eq!(ours, stock, "Anyam | Envoy, of {check}\n{script:?}");
    ours
}

#[test]
fn http2_is_checked_as_http1() {
    let mut check = check(http_check(json!({"codec_client_type": "HTTP2"})));
    merge(
        &mut check,
        &json!({"unhealthy_threshold": 2, "timeout": SHORT}),
    );
    let good = Answer::Status(200);
    let script = [
        good,
        Answer::Status(500),
        good,
        Answer::Reset,
        Answer::Reset,
        good,
        Answer::Close,
        Answer::Close,
        Answer::Leaving,
        good,
        Answer::Silent,
        Answer::Silent,
        good,
    ];
    let (flags, headers) = same(&check, &script);
    assert_eq!(flags[4], "/failed_active_hc");
    assert_eq!(flags[11], "/failed_active_hc/active_hc_timeout");
    assert_eq!(flags[12], "healthy");
    assert_eq!(headers["user-agent"], "Envoy/HC");
}

#[test]
fn grpc_has_to_be_serving() {
    let mut check = check(json!({"grpc_health_check": {
        "service_name": "shop", "authority": "shop.example",
        "initial_metadata": [{"header": {"key": "x-one", "value": "1"}}],
    }}));
    merge(
        &mut check,
        &json!({"unhealthy_threshold": 2, "timeout": SHORT}),
    );
    let script = [
        SERVING,
        NOT_SERVING,
        SERVING,
        UNKNOWN,
        SERVING,
        Answer::Grpc(&[0, 0, 0, 0, 2, 8, 1], "14"),
        SERVING,
        Answer::Refused("12"),
        SERVING,
        Answer::Status(503),
        SERVING,
        Answer::Grpc(&[0, 0, 0, 0, 9, 8, 1], "0"),
        SERVING,
        Answer::Reset,
        SERVING,
        Answer::Close,
        Answer::Reset,
        SERVING,
        Answer::Silent,
        Answer::Silent,
        SERVING,
    ];
    let (flags, headers) = same(&check, &script);
    for (step, flags) in script.iter().zip(&flags).skip(1).step_by(2).take(5) {
        assert_eq!(flags, "/failed_active_hc", "{step:?}");
    }
    assert_eq!(flags[13], "healthy");
    assert_eq!(headers["x-one"], "1");
    assert_eq!(headers["grpc-timeout"], "2000m");
}
