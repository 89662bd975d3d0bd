//! The command line.
//!
//! [`Serve`] has Envoy's flags, as far as they apply here; [`Sidecar`] writes a bootstrap from a
//! pod's environment; [`RedirectArgs`] sets the pod's netfilter rules; [`WaitArgs`] waits for a
//! sidecar, [`DrainArgs`] has it drain.
//!
//! - `logs`: where logs go; `app`: probes and metrics of a sidecar's app
//! - `envoy`: Envoy's flags that are accepted and have little or no effect

mod app;
mod envoy;
mod logs;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

pub use self::app::AppArgs;
pub use self::envoy::EnvoyFlags;
pub use self::logs::LogOptions;
use crate::redirect;

/// A service mesh sidecar, configured by Envoy's xDS.
#[derive(Debug, Parser)]
#[command(name = "anyam-proxy", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    pub serve: Serve,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs as a workload's sidecar under Anyam's control plane.
    Sidecar(Box<Sidecar>),
    /// Sets or removes the netfilter rules of the current network namespace.
    Redirect(Box<RedirectArgs>),
    /// Waits until the sidecar of the current network namespace is ready.
    Wait(WaitArgs),
    /// Asks the sidecar of the current network namespace to drain inbound connections.
    Drain(DrainArgs),
}

/// Where the configuration is and how to run.
#[derive(Debug, Clone, ClapArgs)]
pub struct Serve {
    /// Envoy bootstrap: YAML, JSON (.json) or protobuf (.pb).
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as YAML or JSON, merged over the file's as Envoy does.
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,
    /// In place of node.id.
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,
    /// In place of node.cluster.
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,
    /// In place of node.locality.zone.
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,
    #[command(flatten)]
    pub process: Process,
}

/// How to run, whatever the configuration.
#[derive(Debug, Clone, ClapArgs)]
pub struct Process {
    /// Worker threads [default: the CPUs allotted by cgroup, two without a limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: Option<u16>,
    #[arg(short = 'l', long, value_enum, default_value_t = LogLevel::Info, env = "ANYAM_LOG_LEVEL")]
    pub log_level: LogLevel,
    /// What to do with the configuration.
    #[arg(long, value_enum, default_value_t = RunMode::Serve)]
    pub mode: RunMode,
    /// Seconds that connections get to end before they are cut: when the process ends, and when
    /// their listener is removed.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 600,
        env = "ANYAM_DRAIN_TIME_S"
    )]
    pub drain_time_s: u64,
    /// At the end stay until no other process of this network namespace listens on a TCP port, for
    /// the drain time at most: for a pod whose containers all receive SIGTERM at once, with the
    /// proxy among them. Not for a native sidecar, which Kubernetes stops after the app.
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = false,
        action = clap::ArgAction::Set,
        env = "ANYAM_WAIT_FOR_APP"
    )]
    pub wait_for_app: bool,
    #[command(flatten)]
    pub logs: LogOptions,
    #[command(flatten)]
    pub envoy: EnvoyFlags,
}

impl Process {
    pub fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum RunMode {
    /// Serve until a signal stops the process.
    Serve,
    /// Check the configuration, print what is wrong with it, open nothing.
    Validate,
    /// Start everything, then stop without serving.
    InitOnly,
}

/// Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    #[value(alias = "err")]
    Error,
    Critical,
    Off,
}

impl LogLevel {
    /// As `tracing` filters spell it; it has nothing above error.
    pub fn as_filter(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
            Self::Off => "off",
        }
    }
}

#[derive(Debug, Clone, ClapArgs)]
pub struct RedirectArgs {
    #[command(flatten)]
    pub options: redirect::RedirectOptions,
    /// Remove the rules instead.
    #[arg(long, group = "action")]
    pub remove: bool,
    /// Print the rules as text that nft takes, and change nothing.
    #[arg(long, group = "action")]
    pub dry_run: bool,
    /// Report whether the installed rules are those of these options (exit code 0 if they are), and
    /// change nothing.
    #[arg(long, group = "action")]
    pub check: bool,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct WaitArgs {
    /// The sidecar's readiness port on loopback.
    #[arg(long, env = "ANYAM_HEALTH_PORT", default_value_t = 15021)]
    pub health_port: u16,
    /// After so many seconds it ends with exit code 1 and says what is missing.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout_s: u64,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct DrainArgs {
    /// The sidecar's admin port on loopback.
    #[arg(long, env = "ANYAM_ADMIN_PORT", default_value_t = 15000)]
    pub admin_port: u16,
}

/// A sidecar's workload and control plane.
#[derive(Debug, Clone, ClapArgs)]
pub struct Sidecar {
    /// The workload's name; in Kubernetes the pod's.
    #[arg(long, env = "ANYAM_WORKLOAD", value_parser = label)]
    pub workload: String,
    #[arg(long, env = "ANYAM_NAMESPACE", default_value = "default", value_parser = label)]
    pub namespace: String,
    #[arg(long, env = "ANYAM_SERVICE_ACCOUNT", default_value = "default", value_parser = label)]
    pub service_account: String,
    #[arg(long, env = "ANYAM_TRUST_DOMAIN", default_value = "anyam.local")]
    pub trust_domain: String,
    /// The workload's own address; once for each it has.
    #[arg(
        long = "address",
        env = "ANYAM_ADDRESS",
        value_delimiter = ',',
        required = true
    )]
    pub addresses: Vec<IpAddr>,
    /// Labels, `name=value`.
    #[arg(long = "label", env = "ANYAM_LABELS", value_delimiter = ',', value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// The control plane, `host:port`.
    #[arg(long, env = "ANYAM_CONTROL_PLANE", value_parser = host_port)]
    pub control_plane: (String, u16),
    /// The name in the control plane's certificate.
    #[arg(
        long,
        env = "ANYAM_CONTROL_PLANE_NAME",
        default_value = "anyam-control"
    )]
    pub control_plane_name: String,
    /// Join token for the first certificate. It carries the hash of the CA's root, by which the
    /// control plane is authenticated before there is a bundle.
    #[arg(long, env = "ANYAM_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The CA's roots (PEM), by which the control plane is authenticated before there is a bundle, in
    /// place of the hash in a join token. The token may be any then that the CA takes, such as a
    /// Kubernetes service account's.
    #[arg(
        long,
        env = "ANYAM_CA_FILE",
        value_name = "FILE",
        requires = "token_file"
    )]
    pub ca_file: Option<PathBuf>,
    /// Where key, certificate and trust bundle are kept (mode 0700).
    #[arg(
        long,
        env = "ANYAM_STATE_DIR",
        default_value = "/var/lib/anyam",
        value_name = "DIR"
    )]
    pub state_dir: PathBuf,
    /// Wanted certificate lifetime in seconds [default: the CA's].
    #[arg(long, env = "ANYAM_CERTIFICATE_TTL_S", value_name = "SECONDS")]
    pub certificate_ttl_s: Option<u32>,
    #[command(flatten)]
    pub ports: Ports,
    #[command(flatten)]
    pub egress: EgressArgs,
    #[command(flatten)]
    pub app: AppArgs,
    /// Print the bootstrap as YAML and exit.
    #[arg(long)]
    pub print_bootstrap: bool,
    #[command(flatten)]
    pub process: Process,
}

/// Where the sidecar listens.
#[derive(Debug, Clone, ClapArgs)]
pub struct Ports {
    #[arg(long, env = "ANYAM_OUTBOUND_PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    #[arg(long, env = "ANYAM_INBOUND_PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Connections that may come in at once, and connections to the app that may be open for them
    /// [default: by the descriptors and the memory of the process; half of them is kept for what
    /// the app itself calls].
    #[arg(long, env = "ANYAM_MAX_INBOUND_CONNECTIONS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_inbound_connections: Option<u64>,
    /// Admin, on loopback. 0: none.
    #[arg(long, env = "ANYAM_ADMIN_PORT", default_value_t = 15000)]
    pub admin_port: u16,
    /// Prometheus. 0: none.
    #[arg(long, env = "ANYAM_METRICS_PORT", default_value_t = 15090)]
    pub metrics_port: u16,
    /// Readiness. 0: none.
    #[arg(long, env = "ANYAM_HEALTH_PORT", default_value_t = 15021)]
    pub health_port: u16,
    /// Captured DNS, on loopback. 0: none.
    #[arg(long, env = "ANYAM_DNS_PORT", default_value_t = 15053)]
    pub dns_port: u16,
    /// Resolvers for names outside the mesh, `address` or `address:port` [default: those of
    /// /etc/resolv.conf].
    #[arg(long = "dns-upstream", env = "ANYAM_DNS_UPSTREAM", value_delimiter = ',', value_parser = resolver)]
    pub dns_upstream: Vec<String>,
}

/// What may leave the mesh.
#[derive(Debug, Clone, ClapArgs)]
pub struct EgressArgs {
    /// What to do with destinations that nothing in the mesh declares.
    #[arg(long, env = "ANYAM_UNKNOWN", value_enum, default_value_t = UnknownDestinations::Passthrough)]
    pub unknown: UnknownDestinations,
    /// Ranges in which every address is the mesh's own, and never dialled in plaintext.
    #[arg(
        long = "mesh-cidr",
        env = "ANYAM_MESH_CIDRS",
        value_delimiter = ',',
        default_value = "240.240.0.0/16,fdac:616e:7961:6d00::/64"
    )]
    pub mesh_cidrs: Vec<String>,
    /// Milliseconds a connection waits for the control plane's answer about its destination.
    #[arg(long, env = "ANYAM_WAIT_MS", default_value_t = 5_000)]
    pub wait_ms: u32,
    /// Seconds that "no such destination" is remembered.
    #[arg(long, env = "ANYAM_MISS_TTL_S", default_value_t = 10)]
    pub miss_ttl_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnknownDestinations {
    Passthrough,
    Block,
}

/// A name that can stand in a node id and a SPIFFE id.
fn label(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 253 || !text.bytes().all(fits) {
        return Err("expected 1 to 253 letters, digits, `-`, `_`, `.`".to_owned());
    }
    Ok(text.to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("expected host:port, found {text:?}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

fn resolver(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(address.to_string());
    }
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("expected address or address:port, found {text:?}"))?;
    Ok(std::net::SocketAddr::new(address, 53).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn envoys_flags_are_taken() {
        let line = "anyam-proxy -c a.yaml --config-yaml {} --concurrency 2 -l warn \
                    --service-node n --service-cluster c --mode validate --drain-time-s 5";
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.serve.config_path, Some("a.yaml".into()));
        assert_eq!(args.serve.process.mode, RunMode::Validate);
        assert_eq!(args.serve.process.log_level.as_filter(), "warn");
        assert_eq!(args.serve.process.drain_time(), Duration::from_secs(5));
        assert!(Args::try_parse_from(["anyam-proxy", "--concurrency", "0"]).is_err());
    }

    #[test]
    fn a_sidecar_needs_to_know_who_it_is() {
        let line = "anyam-proxy sidecar --workload web --address 10.0.0.1 --address fd00::1 \
                    --control-plane [::1]:15012 --dns-upstream 10.0.0.53";
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        let Some(Command::Sidecar(sidecar)) = args.command else {
            panic!("no sidecar");
        };
        assert_eq!(sidecar.addresses.len(), 2);
        assert_eq!(sidecar.control_plane, ("::1".to_owned(), 15012));
        assert_eq!(sidecar.ports.dns_upstream, ["10.0.0.53:53"]);
        let bad = line.replace("web", "we~b");
        assert!(Args::try_parse_from(bad.split_whitespace()).is_err());
    }
}
