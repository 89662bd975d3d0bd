//! The whole proxy: mutated requests in HTTP/1 and HTTP/2, mutated answers in both, mutated TLS and
//! plain bytes where the protocol is detected, all at once.
//!
//! After each round the process lives, has not panicked, has met no broken assumption, and serves;
//! nothing reached the app that is no request or that the policy denies. At the end each line of the
//! logs is whole, and connections, descriptors and memory are back at their level.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyam_proxy::tls::{ClientContext, ClientOptions, Identity, PeerRules, Rotating, Versions};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::bootstrap::{
    BEGIN, BUFFERED, DETECTED, END, HOSTILE_HTTP1, HOSTILE_HTTP2, IDENTITY, PLAIN, PROVEN,
    PROVEN_ALPN, Places,
};
use crate::frames::{self, PREFACE};
use crate::inputs::{Corpus, Shape};
use crate::peers::{App, HostileUpstream, Manner, exchange};
use crate::process::{Level, Process, own_address};
use crate::rounds::Rounds;
use crate::tap::Tap;

/// Rounds in `make test`.
const ROUNDS: usize = 20;
/// Inputs of each kind in a round.
const BATCH: usize = 12;
/// What a process may have grown by: each worker keeps some pipes, and there are metrics of new names.
const SPARE_DESCRIPTORS: usize = 24;
const GROWTH_KIB: usize = 48 << 10;

/// What comes from one side.
struct Direction {
    port: u16,
    corpus: Corpus,
    /// The upstream that sends it; `None`: clients.
    upstream: Option<HostileUpstream>,
    /// Of clients that send it over TLS, with a certificate.
    tls: Option<TlsConnector>,
}

struct Rig {
    process: Process,
    app: App,
    tap: Tap,
    folder: tempfile::TempDir,
    directions: Vec<Direction>,
}

fn certificate(folder: &Path) {
    let arguments = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop \
         -addext subjectAltName=DNS:shop,URI:{IDENTITY} -keyout key.pem -out cert.pem"
    );
    let made = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A client that shows the proxy's own certificate, which it trusts, and speaks this protocol.
fn connector(folder: &Path, alpn: &str) -> TlsConnector {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let identity = Identity::from_pem(&read("cert.pem"), &read("key.pem")).unwrap();
    let context = ClientContext::new(ClientOptions {
        identity: Some(Rotating::new(Some(Arc::new(identity)))),
        trust: None,
        rules: PeerRules::default(),
        sni: None,
        alpn: vec![alpn.into()],
        versions: Versions::TLS13_ONLY,
    });
    TlsConnector::from(context.rustls_config().unwrap())
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate(folder.path());
        let (app, app_address) = App::start().await;
        let (http1, http1_address) = HostileUpstream::start().await;
        let (http2, http2_address) = HostileUpstream::start().await;
        let (tap, tap_address) = Tap::start().await;
        let places = Places {
            address: own_address(),
            folder: folder.path(),
            app: app_address,
            http1: http1_address,
            http2: http2_address,
            tap: tap_address,
        };
        let process = Process::start(&places);
        let direction = |port, name, shape, upstream| Direction {
            port,
            corpus: Corpus::read(name, shape),
            upstream,
            tls: None,
        };
        let [case, http1_alpn] = PROVEN_ALPN.map(|alpn| connector(folder.path(), alpn));
        let proven = |name, shape, connector| Direction {
            tls: Some(connector),
            ..direction(PROVEN, name, shape, None)
        };
        let directions = vec![
            direction(PLAIN, "requests", Shape::Bytes, None),
            direction(BUFFERED, "requests", Shape::Bytes, None),
            direction(PLAIN, "h2_requests", Shape::Frames, None),
            direction(BUFFERED, "h2_requests", Shape::Frames, None),
            direction(DETECTED, "hellos", Shape::Bytes, None),
            proven("requests", Shape::Bytes, http1_alpn),
            proven("h2_requests", Shape::Frames, case),
            direction(HOSTILE_HTTP1, "responses", Shape::Bytes, Some(http1)),
            direction(HOSTILE_HTTP2, "h2_responses", Shape::Frames, Some(http2)),
        ];
        let rig = Self {
            process,
            app,
            tap,
            folder,
            directions,
        };
        rig.process.until("the tap shows requests", || {
            rig.process.ask(PLAIN, CLEAN).unwrap();
            (rig.tap.events.load(Relaxed) > 0).then_some(())
        });
        rig
    }

    /// One input from each side, all at once. `inputs`: of each direction.
    async fn round(&mut self, inputs: Vec<Vec<Vec<u8>>>, rng: &mut fastrand::Rng) {
        self.keep(&inputs);
        let mut exchanges = Vec::new();
        for (direction, inputs) in self.directions.iter().zip(inputs) {
            let address = self.process.at(direction.port);
            for input in inputs {
                let sent = match &direction.upstream {
                    None => input,
                    Some(upstream) => {
                        upstream.answers.lock().unwrap().push_back(input);
                        request(rng)
                    }
                };
                let manner = Manner::any(rng, sent.len());
                let tls = direction.tls.clone();
                exchanges.push(async move {
                    let tcp = TcpStream::connect(address).await.unwrap();
                    match tls {
                        None => exchange(tcp, &sent, manner).await,
                        Some(tls) => {
                            let name = ServerName::try_from("shop").unwrap();
                            let stream = tls.connect(name, tcp).await.unwrap();
                            exchange(stream, &sent, manner).await
                        }
                    }
                });
            }
        }
        futures_util::future::join_all(exchanges).await;
        self.check();
    }

    /// Writes a round's inputs down, so that what has ended the process can be found.
    fn keep(&self, inputs: &[Vec<Vec<u8>>]) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-last-round");
        std::fs::create_dir_all(&folder).unwrap();
        for (number, (direction, inputs)) in self.directions.iter().zip(inputs).enumerate() {
            for (index, input) in inputs.iter().enumerate() {
                let name = format!("{number}-{}-{index}", direction.corpus.name);
                std::fs::write(folder.join(name), input).unwrap();
            }
        }
    }

    fn check(&self) {
        for name in ["anyam_panics_total", "anyam_bug_failures_total"] {
            assert_eq!(self.process.metric(name), 0.0, "{name}");
        }
        for port in [PLAIN, BUFFERED, DETECTED] {
            let answer = self.process.ask(port, CLEAN).unwrap();
            let served = answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fine");
            assert!(served, "port {port}: {answer}");
        }
        let complaints = std::mem::take(&mut *self.app.complaints.lock().unwrap());
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    /// Waits until everything is back at `level`; then the process does nothing.
    fn returns_to(&self, level: Level) {
        let most = format!("back at {level:?}");
        self.process.until(&most, || {
            let now = self.process.level();
            let back = now.connections == 0.0
                && now.descriptors <= level.descriptors + SPARE_DESCRIPTORS
                && now.resident_kib <= level.resident_kib + GROWTH_KIB;
            back.then_some(())
        });
        let before = self.process.cpu_time();
        // What spins shows in a second; the process's end ends the wait.
        let began = Instant::now();
        self.process.until("a second passes", || {
            (began.elapsed() >= Duration::from_secs(1)).then_some(())
        });
        let ran = self.process.cpu_time() - before;
        assert!(
            ran < Duration::from_millis(300),
            "idle for a second: {ran:?}"
        );
    }

    /// Ends the process; what it has logged.
    fn end(self) -> [String; 3] {
        let Self {
            process, folder, ..
        } = self;
        process.end();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        ["text", "json", "own"].map(text)
    }
}

/// A request that is served.
const CLEAN: &str = "GET /clean HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// A well-formed request, or several, for a hostile upstream.
fn request(rng: &mut fastrand::Rng) -> Vec<u8> {
    // `:method: GET` or POST, `:scheme: http`, `:path: /`, `:authority: shop`.
    let (get, post) = (b"\x82\x86\x84\x41\x04shop", b"\x83\x86\x84\x41\x04shop");
    let settings = [PREFACE, &frames::frame(4, 0, 0, &[])].concat();
    match rng.u8(..6) {
        0 => b"POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody".to_vec(),
        1 => b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello".to_vec(),
        2 => b"HEAD / HTTP/1.1\r\nHost: shop\r\n\r\nGET /two HTTP/1.1\r\nHost: shop\r\n\r\n".to_vec(),
        3 => [&settings[..], &frames::frame(1, 5, 1, get)].concat(),
        4 => {
            let body = frames::frame(0, 1, 1, b"body");
            let other = frames::frame(1, 5, 3, get);
            [&settings[..], &frames::frame(1, 4, 1, post), &body, &other].concat()
        }
        _ => b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n".to_vec(),
    }
}

/// Every line is whole: nothing that a peer sent began or ended one.
fn check_logs(text: &str, json: &str) {
    for line in text.lines() {
        let whole = line.starts_with(BEGIN) && line.ends_with(END);
        let plain = !line
            .chars()
            .any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        let one = line.matches(BEGIN).count() == 1;
        assert!(whole && plain && one, "{line:?}");
    }
    for line in json.lines() {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|line| line.is_object()), "{line:?}");
    }
    assert_eq!(text.lines().count(), json.lines().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_survives_whatever_its_peers_send() {
    let mut rig = Rig::start().await;
    let fresh = rig.process.level();
    let files: Vec<Vec<Vec<u8>>> = rig
        .directions
        .iter()
        .map(|direction| direction.corpus.files().to_vec())
        .collect();
    let longest = files.iter().map(Vec::len).max().unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    for from in (0..longest).step_by(BATCH) {
        let inputs = files.iter().map(|files| {
            let files = files.iter().skip(from).take(BATCH);
            files.cloned().collect()
        });
        rig.round(inputs.collect(), &mut rng).await;
    }
    let level = Level {
        resident_kib: rig.process.level().resident_kib,
        ..fresh
    };
    let mut rounds = Rounds::new(ROUNDS);
    // Requests to each upstream.
    let mut asked = 0;
    while let Some(mut rng) = rounds.next() {
        asked += BATCH;
        let inputs = rig.directions.iter().map(|direction| {
            let inputs = (0..BATCH).map(|_| direction.corpus.mutated(&mut rng));
            inputs.collect()
        });
        let inputs = inputs.collect();
        rig.round(inputs, &mut rng).await;
    }
    rig.returns_to(level);
    // Most were asked for; an input that broke its request's connection may not have been.
    for direction in &rig.directions {
        let Some(upstream) = &direction.upstream else {
            continue;
        };
        let sent = upstream.sent.load(Relaxed);
        assert!(sent > asked / 4, "{}: {sent}", direction.corpus.name);
    }
    let proven = rig.app.proven.load(Relaxed);
    assert!(proven > asked / 8, "{proven} requests with an identity");
    let [text, json, own] = rig.end();
    check_logs(&text, &json);
    let lines = text.lines().count();
    assert!(lines > asked, "{lines} lines");
    assert_eq!(own, "", "what peers send is counted, and not written down");
}
