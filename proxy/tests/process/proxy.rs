//! A process and the addresses that only it uses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use rustix::process::Signal;

use crate::running::{Running, TIMEOUT};

const FRONT: u16 = 8000;
const ADMIN: u16 = 8001;

/// Loopback addresses that no other test uses: by process and count.
pub fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let count = COUNT.fetch_add(1, Relaxed);
    let last = 2 + u8::try_from(count % 250).unwrap();
    Ipv4Addr::new(127, 128 | high, low, last)
}

/// How a process is to be started.
#[derive(Default)]
pub struct Settings<'a> {
    /// Filters of the front's chain, as YAML in one line.
    pub filters: &'a str,
    /// `transport_socket` and what else the chain has.
    pub chain: &'a str,
    /// Further fields of the listener.
    pub listener: &'a str,
    /// Where the cluster's endpoints come from; empty: STATIC, the upstream's address.
    pub discovery: &'a str,
    /// Further fields of the bootstrap.
    pub bootstrap: &'a str,
    /// Hard limit of descriptors.
    pub descriptors: Option<usize>,
    /// Soft limit of descriptors at the start.
    pub soft_descriptors: Option<usize>,
    pub arguments: &'a [&'a str],
    /// Whether diagnostics go to the same file as the access log.
    pub stderr_too: bool,
}

/// A running proxy; it ends when dropped.
pub struct Proxy {
    process: Running,
    pub front: SocketAddr,
    pub admin: SocketAddr,
    log: BufReader<std::io::PipeReader>,
}

impl Proxy {
    /// Starts it in front of `upstream` and waits until it is ready. Its access log goes to stdout.
    pub fn start(upstream: SocketAddr, settings: &Settings<'_>) -> Self {
        let address = own_address();
        let bootstrap = bootstrap(address, upstream, settings);
        let program = env!("CARGO_BIN_EXE_anyam-proxy");
        let mut command = match settings.descriptors {
            Some(limit) => {
                let mut shell = Command::new("sh");
                let soft = settings.soft_descriptors.unwrap_or(limit);
                let script = format!("ulimit -n {limit}; ulimit -S -n {soft}; exec \"$@\"");
                shell.args(["-c", &script, "sh", program]);
                shell
            }
            None => Command::new(program),
        };
        command
            .args(["--config-yaml", &bootstrap, "--concurrency", "1"])
            .args(settings.arguments)
            .stdin(Stdio::null());
        let (reader, writer) = std::io::pipe().unwrap();
        if settings.stderr_too {
            command.stderr(writer.try_clone().unwrap());
        }
        let process = Running::start(command.stdout(writer));
        // It has our ends of the pipe, whose reader is to see its end.
        drop(command);
        let log = BufReader::new(reader);
        let proxy = Self {
            process,
            front: (address, FRONT).into(),
            admin: (address, ADMIN).into(),
            log,
        };
        proxy.until("ready", |proxy| proxy.is_ready());
        proxy
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for a condition.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        self.process.until(what, || done(self).then_some(()));
    }

    /// Whether new work should be sent to it.
    pub fn is_ready(&self) -> bool {
        self.try_get("/ready")
            .is_ok_and(|text| text.starts_with("HTTP/1.1 200 "))
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        ask(
            self.admin,
            &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        )
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.try_get("/stats/prometheus").unwrap();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next())?
        });
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Every line of Prometheus metrics.
    pub fn metrics(&self) -> String {
        self.try_get("/stats/prometheus").unwrap()
    }

    /// The next line of the access log; a worker writes within a second.
    pub fn log_line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended");
        line
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        self.process.ended()
    }
}

fn bootstrap(address: Ipv4Addr, upstream: SocketAddr, settings: &Settings<'_>) -> String {
    let Settings {
        filters,
        chain,
        listener,
        bootstrap,
        discovery,
        ..
    } = settings;
    let discovery = match discovery.is_empty() {
        true => self::discovery("STATIC", &[(&upstream.ip().to_string(), upstream.port())]),
        false => (*discovery).to_owned(),
    };
    format!(
        "
{bootstrap}
admin: {{ address: {{ socket_address: {{ address: {address}, port_value: {ADMIN} }} }} }}
static_resources:
  listeners:
    - name: front
      address: {{ socket_address: {{ address: {address}, port_value: {FRONT} }} }}
      filter_chains: [{{ {chain} filters: [{filters}] }}]
      {listener}
  clusters:
    - name: app
      connect_timeout: 5s
      {discovery}
"
    )
}

/// For [`Settings::discovery`]: these hosts with their ports, of one priority.
pub fn discovery(kind: &str, hosts: &[(&str, u16)]) -> String {
    let hosts: Vec<String> = hosts
        .iter()
        .map(|(host, port)| {
            format!(
                "{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}"
            )
        })
        .collect();
    let hosts = hosts.join(", ");
    format!(
        "type: {kind}
      dns_lookup_family: V4_ONLY
      dns_refresh_rate: 1s
      load_assignment: {{ cluster_name: app, endpoints: [{{ lb_endpoints: [{hosts}] }}] }}"
    )
}

/// Bytes to the cluster `app`; `more`: further fields.
pub fn tcp_proxy(more: &str) -> String {
    format!(
        r#"{{ name: tcp, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy,
          stat_prefix: tcp, cluster: app {more} }} }}"#
    )
}

/// HTTP to the cluster `app`; `http_filters` before the router, `more`: further fields.
pub fn http_manager(http_filters: &str, more: &str) -> String {
    format!(
        r#"{{ name: http, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: http,
          route_config: {{ name: all, virtual_hosts: [{{ name: all, domains: ["*"],
            routes: [{{ match: {{ prefix: / }}, route: {{ cluster: app }} }}] }}] }},
          http_filters: [{http_filters} {{ name: router, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}]
          {more} }} }}"#
    )
}

/// Sends `request` on a connection of its own; everything that comes back.
pub fn ask(to: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(TIMEOUT))?;
    tcp.write_all(request.as_bytes())?;
    let mut all = Vec::new();
    tcp.read_to_end(&mut all)?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// Listens, and gives each connection a thread of its own.
pub fn upstream(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, serve) = (tcp.unwrap(), serve.clone());
            std::thread::spawn(move || serve(tcp));
        }
    });
    address
}

/// Echoes until the client ends.
pub fn echo(mut tcp: TcpStream) {
    let mut piece = [0; 16 * 1024];
    while let Ok(count @ 1..) = tcp.read(&mut piece) {
        if tcp.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

/// Answers each request without a body with its own head, as its body.
pub fn mirror(tcp: TcpStream) {
    let mut writer = tcp.try_clone().unwrap();
    let mut lines = BufReader::new(tcp);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(lines.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}");
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs `openssl`, which must succeed.
pub fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "openssl {arguments}: {output:?}");
}
