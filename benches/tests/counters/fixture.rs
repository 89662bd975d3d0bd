//! Proxies as processes, the app behind them, and a client that sends one request at a time and
//! allocates nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyam_benches::hop::{FRONT, Hop, Wire};
use anyam_benches::load::answer;
use anyam_benches::peers::{Program, Running};
use anyam_benches::{Programs, app, certs};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: app\r\n\r\n";

/// What passes, and through which proxies.
#[derive(Clone)]
pub struct Passage {
    pub name: &'static str,
    pub hops: Vec<Hop>,
    pub http: bool,
}

/// Every path that has budgets.
pub fn paths() -> Vec<Passage> {
    let tcp = |name, hops| Passage {
        name,
        hops,
        http: false,
    };
    let http = |name, hops| Passage {
        name,
        hops,
        http: true,
    };
    let alone = |wire, to| vec![Hop::alone(wire, wire, to)];
    let web = |between| Hop::pair(Wire::Http1, between, app::HTTP1);
    let raw = |between| Hop::pair(Wire::Tcp, between, app::ECHO);
    vec![
        tcp("l4", alone(Wire::Tcp, app::ECHO)),
        http("http1", alone(Wire::Http1, app::HTTP1)),
        http("mtls-pair", web(Wire::Http2)),
        http("mtls-pair-http1", web(Wire::Http1)),
        tcp("mtls-pair-tcp", raw(Wire::Tcp)),
        tcp("mtls-pair-tunnel", raw(Wire::Tunnel)),
    ]
}

/// The app, certificates, and the fixed ports, which only one test may use at a time.
pub struct Fixture {
    _app: app::App,
    _ports: MutexGuard<'static, ()>,
    scratch: TempDir,
}

impl Fixture {
    pub fn take() -> Self {
        static PORTS: Mutex<()> = Mutex::new(());
        let ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = tempfile::tempdir().unwrap();
        certs::write(scratch.path()).unwrap();
        let app = app::start(Path::new(env!("CARGO_BIN_EXE_anyam-bench"))).unwrap();
        Self {
            _app: app,
            _ports: ports,
            scratch,
        }
    }

    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// A process of `program` for each hop.
    pub fn start(&self, program: &Path, path: &Passage) -> Running {
        let programs = Programs {
            anyam: program.to_owned(),
            envoy: PathBuf::new(),
            relay: PathBuf::new(),
            scratch: self.scratch.path().to_owned(),
            connections: 100,
        };
        Running::start(Program::Anyam, &path.hops, 1, &programs).unwrap()
    }
}

/// The optimised program, whose costs are what users pay.
pub fn optimised() -> PathBuf {
    let debug = Path::new(env!("CARGO_BIN_EXE_anyam-bench"));
    let program = debug
        .ancestors()
        .nth(2)
        .unwrap()
        .join("release/anyam-proxy");
    assert!(
        program.exists(),
        "{} is missing. Run: cargo build --release -p anyam-proxy",
        program.display()
    );
    program
}

/// One connection through the proxies.
pub struct Client {
    stream: TcpStream,
    http: bool,
}

impl Client {
    pub fn connect(path: &Passage) -> Self {
        Self::to(FRONT, path.http)
    }

    pub fn to(port: u16, http: bool) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { stream, http }
    }

    /// Requests 100 bytes, again and again, and reads each whole response.
    pub fn ask(&mut self, times: u32) {
        let mut room = [0; 2048];
        for _ in 0..times {
            let request = if self.http {
                REQUEST
            } else {
                &[b'q'; app::SMALL]
            };
            self.stream.write_all(request).unwrap();
            let mut got = 0;
            loop {
                let read = self.stream.read(&mut room[got..]).unwrap();
                assert!(read > 0, "closed after {got} bytes of an answer");
                got += read;
                let whole = match self.http {
                    true => answer::is_whole(&room[..got]).unwrap(),
                    false => got == app::SMALL,
                };
                if whole {
                    break;
                }
            }
        }
    }
}
