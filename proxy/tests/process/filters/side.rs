//! One of the two proxies that are compared.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::upstream::chunked;
use super::{Scenario, cluster};
use crate::envoy;
use crate::proxy::own_address;
use crate::running::{Running, TIMEOUT};

const FRONT: u16 = 8000;
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
const FORMAT: &str = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESPONSE_CODE_DETAILS% %GRPC_STATUS(NUMBER)% %DYNAMIC_METADATA(fault)% \
    %DYNAMIC_METADATA(fault:text)% %DYNAMIC_METADATA(fault:deep:list)% \
    %DYNAMIC_METADATA(envoy.filters.http.jwt_authn)% %DYNAMIC_METADATA(seen)%\n";

/// Envoy's own arguments.
const ENVOYS: [&str; 3] = ["--disable-hot-restart", "--file-flush-interval-msec", "50"];

/// A running proxy; it ends when dropped.
pub struct Side {
    process: Running,
    front: SocketAddr,
    folder: TempDir,
}

/// What came of a request, without what differs between proxies for good reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: u16,
    /// Sorted by name; those of one name in order.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// Of the proxies themselves.
const OWN: [&str; 7] = [
    "date",
    "server",
    "connection",
    "content-length",
    "transfer-encoding",
    "x-envoy-upstream-service-time",
    "proxy-status",
];

impl Side {
    pub fn anyam(scenario: &Scenario, upstream: SocketAddr) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_anyam-proxy"));
        Self::start(program, &[], &|front, log| {
            bootstrap(scenario, front, upstream, log)
        })
    }

    /// By a bootstrap made for the address of its front and the path of its log.
    pub fn anyam_by(bootstrap: &dyn Fn(SocketAddr, &str) -> Value) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_anyam-proxy"));
        Self::start(program, &[], bootstrap)
    }

    /// As [`Side::anyam_by`].
    pub fn envoy_by(bootstrap: &dyn Fn(SocketAddr, &str) -> Value) -> Self {
        Self::start(envoy::program(), &ENVOYS, bootstrap)
    }

    pub fn envoy(scenario: &Scenario, upstream: SocketAddr) -> Self {
        Self::start(envoy::program(), &ENVOYS, &|front, log| {
            bootstrap(scenario, front, upstream, log)
        })
    }

    fn start(
        program: PathBuf,
        more: &[&str],
        bootstrap: &dyn Fn(SocketAddr, &str) -> Value,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let front = SocketAddr::from((own_address(), FRONT));
        let config = folder.path().join("bootstrap.json");
        let log = folder.path().join("access").display().to_string();
        let bootstrap = bootstrap(front, &log);
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let errors = std::fs::File::create(folder.path().join("errors")).unwrap();
        let process = Running::start(
            Command::new(&program)
                .arg("-c")
                .arg(&config)
                .args(["--concurrency", "1", "-l", "warning"])
                .args(more)
                .stdin(Stdio::null())
                .stdout(errors.try_clone().unwrap())
                .stderr(errors),
        );
        let side = Self {
            process,
            front,
            folder,
        };
        side.until("listening", |side| TcpStream::connect(side.front).ok());
        side
    }

    /// Where it listens.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.front).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        tcp
    }

    /// The most memory that it had resident, bytes.
    pub fn peak_resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() << 10
    }

    /// Waits until `found` gives something of it.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        self.process.until(what, || found(self))
    }

    /// Sends a request on a connection of its own; its answer.
    pub fn ask(&self, request: &str) -> Seen {
        self.ask_bytes(request.as_bytes())
    }

    /// The same, of a request that is no text.
    pub fn ask_bytes(&self, request: &[u8]) -> Seen {
        let mut tcp = self.connect();
        tcp.write_all(request).unwrap();
        let end = match request.starts_with(b"HEAD") {
            true => End::Head,
            false => End::Framed,
        };
        answer(&mut BufReader::new(tcp), end)
    }

    /// The answer whose body the end of the connection ends.
    pub fn until_closed(tcp: TcpStream) -> Seen {
        answer(&mut BufReader::new(tcp), End::Closed)
    }

    /// Sends requests on one connection, one after the other; the status of each.
    pub fn statuses(&self, requests: &[String]) -> Vec<u16> {
        let tcp = self.connect();
        let mut writer = tcp.try_clone().unwrap();
        let mut reader = BufReader::new(tcp);
        let one = |request: &String| {
            writer.write_all(request.as_bytes()).unwrap();
            answer(&mut reader, End::Framed).status
        };
        requests.iter().map(one).collect()
    }

    /// So many lines of the access log.
    pub fn log(&self, lines: usize) -> Vec<String> {
        self.until("the access log", |side| {
            let text = std::fs::read_to_string(side.folder.path().join("access")).ok()?;
            // Ours escapes quotes, so that no field of a line can be forged.
            let plain = |line: &str| line.replace("\\x22", "\"");
            let found: Vec<_> = text.lines().map(plain).collect();
            (found.len() >= lines && text.ends_with('\n')).then_some(found)
        })
    }
}

/// What a body was before it was coded; itself when it is in no known coding.
pub fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => {
            let mut inflate = zlib_rs::Inflate::new(true, 15 + 16);
            plain.resize(1 << 20, 0);
            let flush = zlib_rs::InflateFlush::Finish;
            let status = inflate.decompress(body, &mut plain, flush).unwrap();
            assert_eq!(status, zlib_rs::Status::StreamEnd);
            plain.truncate(inflate.total_out() as usize);
        }
        "br" => {
            let mut reader = brotli::Decompressor::new(body, 4096);
            reader.read_to_end(&mut plain).unwrap();
        }
        "zstd" => plain = zstd::decode_all(body).unwrap(),
        _ => plain.extend_from_slice(body),
    }
    plain
}

/// Where a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There is none: the answer to HEAD.
    Head,
    Framed,
    Closed,
}

/// Reads an answer.
pub fn answer(reader: &mut impl BufRead, end: End) -> Seen {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "after {lines:?}");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status: u16 = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers: Vec<(String, String)> = lines[1..]
        .iter()
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let value = |name: &str| {
        let found = headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let mut body = match (end, value("content-length"), value("transfer-encoding")) {
        (End::Head, ..) => Vec::new(),
        _ if matches!(status, 204 | 304) => Vec::new(),
        (End::Framed, _, Some(_)) => chunked(reader).unwrap(),
        (End::Framed, length, None) => {
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            body
        }
        (End::Closed, ..) => {
            let mut body = Vec::new();
            reader.read_to_end(&mut body).unwrap();
            body
        }
    };
    if let Some(coding) = value("content-encoding").filter(|_| !body.is_empty()) {
        body = decoded(coding, &body);
    }
    headers.retain(|(name, _)| !OWN.contains(&name.as_str()));
    headers.sort_by(|(a, _), (b, _)| a.cmp(b));
    if status == 404 {
        // Our body names the missing route; Envoy's is empty.
        body.clear();
        headers.retain(|(name, _)| name != "content-type");
    }
    for (name, value) in &mut headers {
        // Seconds pass.
        if matches!(name.as_str(), "x-ratelimit-reset" | "retry-after") && value != "0" {
            "some".clone_into(value);
        }
    }
    Seen {
        status,
        headers,
        body: String::from_utf8(body).unwrap(),
    }
}

fn bootstrap(scenario: &Scenario, front: SocketAddr, upstream: SocketAddr, log: &str) -> Value {
    let address = |address: SocketAddr| {
        let (ip, port) = (address.ip().to_string(), address.port());
        json!({"socket_address": {"address": ip, "port_value": port}})
    };
    let mut filters = scenario.filters.as_array().unwrap().clone();
    filters.push(json!({"name": "router", "typed_config": {"@type": ROUTER}}));
    let mut table = json!({"name": "routes", "virtual_hosts": scenario.virtual_hosts});
    for (key, value) in scenario.table.as_object().unwrap() {
        table[key] = value.clone();
    }
    let format = json!({"text_format_source": {"inline_string": FORMAT}});
    let mut manager = json!({
        "@type": MANAGER,
        "stat_prefix": "front",
        "access_log": [{
            "name": "file",
            "typed_config": {"@type": LOG, "path": log, "log_format": format},
        }],
        "route_config": table,
        "http_filters": filters,
    });
    for (key, value) in scenario.manager.as_object().unwrap() {
        manager[key] = value.clone();
    }
    let mut clusters = vec![cluster("app", upstream), cluster("other", upstream)];
    clusters.extend(scenario.clusters.as_array().unwrap().iter().cloned());
    json!({"static_resources": {
        "listeners": [{
            "name": "front",
            "address": address(front),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": clusters,
    }})
}
