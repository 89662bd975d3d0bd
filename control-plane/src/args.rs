//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::model::manifest::values::{Cidr, check_name};

/// Anyam's control plane: reads manifests or the Kubernetes API, configures proxies over xDS, issues their certificates,
/// and shows what the mesh does.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
        anyam-control --config-dir ./mesh --state-dir ./state\n  \
        anyam-control --kubernetes --kubeconfig ~/.kube/config\n  \
        anyam-control token --config-dir ./mesh --state-dir ./state --workload shop/web-0"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the mesh, as without a command
    Serve(Box<ServeArgs>),
    /// Print a join token for one workload: signed, short-lived, good once
    Token(TokenArgs),
    /// Write a certificate, its key and the root as files, for a proxy that reads them from files
    Certificate(CertificateArgs),
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder of manifests (*.yaml, *.yml, *.json), watched for changes
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    pub config_dir: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: KubernetesArgs,
    /// Private folder for the root key, tokens and allotted addresses; made 0700. With --kubernetes only
    /// the API's token is kept there, for `anyam` on the same machine; without it, in a temporary folder
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    pub state_dir: Option<PathBuf>,
    /// Where proxies come for configuration and certificates (gRPC over TLS)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15012")]
    pub xds_listen: SocketAddr,
    /// Where people come: HTTP API and dashboard
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15080")]
    pub api_listen: SocketAddr,
    /// Where Prometheus and probes come: /metrics, /healthz and /readyz in plaintext, under any host
    /// name; off without it
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
    /// Plaintext ADS that takes any node's claims, for tests with stock clients; loopback only
    #[arg(long, value_name = "ADDR")]
    pub insecure_ads_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub injection: InjectionArgs,
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// DNS name or address under which proxies reach --xds-listen, and the API server
    /// --webhook-listen and --aggregated-listen; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Host name under which browsers reach --api-listen; may be repeated
    #[arg(long = "api-host", value_name = "NAME")]
    pub api_hosts: Vec<String>,
    /// How long certificates last when a proxy requests no other time
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub certificate_ttl: Duration,
    /// The longest time a proxy may request
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub max_certificate_ttl: Duration,
    /// Domain of the cluster, in which Services have their names (SERVICE.NAMESPACE.svc.DOMAIN)
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Proxies that may be connected to --xds-listen
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub max_streams: usize,
    /// Under which name `anyam` of the same user finds this control plane; empty: it does not
    #[arg(long, value_name = "NAME", default_value = "local")]
    pub context: String,
    /// Connections to --xds-listen from one IPv4 address; a /64 of IPv6 may have four times as many
    #[arg(long, value_name = "N", default_value_t = 2_500)]
    pub max_connections_per_address: usize,
    /// How long a connection to --xds-listen lasts; then it gets GOAWAY and the proxy makes another
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration)]
    pub max_connection_age: Duration,
    /// What to log, as `info` or `anyam_control=debug`
    #[arg(long, value_name = "FILTER", env = "ANYAM_LOG", default_value = "info")]
    pub log: String,
}

/// A cluster in place of a folder.
#[derive(Clone, Debug, Args)]
pub struct KubernetesArgs {
    /// Follow the Kubernetes API instead of a folder, and keep root, leader and certificates' roots in
    /// it: of the cluster that this runs in, else as kubectl does ($KUBECONFIG, ~/.kube/config)
    #[arg(long, conflicts_with = "config_dir")]
    pub kubernetes: bool,
    /// The kubeconfig to use with --kubernetes
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(
        long,
        value_name = "NAME",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub kube_context: Option<String>,
    /// Namespace of the control plane, which has its Secret, its Lease and the policies of the whole
    /// mesh [default: $POD_NAMESPACE, that of the pod's service account, anyam-system]
    #[arg(
        long,
        value_name = "NAME",
        requires = "kubernetes",
        conflicts_with = "config_dir",
        value_parser = namespace
    )]
    pub namespace: Option<String>,
    /// Audience of the service-account tokens by which pods get their first certificate
    #[arg(
        long,
        value_name = "NAME",
        default_value = "anyam-ca",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub token_audience: String,
    /// Range of addresses that Workloads (machines that are no Pods) may have for callers of every
    /// namespace; may be repeated. None without it: a Workload of one namespace could claim the address
    /// of another's
    #[arg(
        long = "workload-cidr",
        value_name = "CIDR",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub workload_cidrs: Vec<Cidr>,
    /// Where the Kubernetes API server forwards requests of users for the API group
    /// inspect.mesh.anyam.dev (HTTPS, by the front proxy's certificate); off without it
    #[arg(
        long,
        value_name = "ADDR",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub aggregated_listen: Option<SocketAddr>,
    /// Where the other replicas ask for proxies that are connected to this one (HTTPS, with the control
    /// plane's certificate), and whether they are asked; off without it
    #[arg(
        long,
        value_name = "ADDR",
        requires = "kubernetes",
        conflicts_with = "config_dir"
    )]
    pub replicas_listen: Option<SocketAddr>,
    /// The MutatingWebhookConfiguration whose caBundle is kept
    #[arg(
        long,
        value_name = "NAME",
        default_value = "anyam-injector",
        requires = "kubernetes",
        requires = "webhook_listen",
        conflicts_with = "config_dir"
    )]
    pub webhook_name: String,
}

/// The webhook that gives pods their sidecars.
#[derive(Clone, Debug, Args)]
pub struct InjectionArgs {
    /// Where the Kubernetes API server sends pods that are to be injected (HTTPS); off without it
    #[arg(long, value_name = "ADDR")]
    pub webhook_listen: Option<SocketAddr>,
    /// Settings of injection (YAML); what they leave out has its default
    #[arg(long, value_name = "FILE", requires = "webhook_listen")]
    pub injection_settings: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct MeshArgs {
    /// The trust domain of every identity
    #[arg(long, value_name = "NAME", default_value = "anyam.local")]
    pub trust_domain: String,
}

#[derive(Debug, Args)]
pub struct WorkloadArgs {
    /// The workload, as namespace/name
    #[arg(long, value_name = "NS/NAME")]
    pub workload: String,
    /// Folder of manifests, to look the workload's service account up
    #[arg(long, value_name = "DIR", required_unless_present = "service_account")]
    pub config_dir: Option<PathBuf>,
    /// The service account, when there is no folder to look it up in
    #[arg(long, value_name = "NAME")]
    pub service_account: Option<String>,
    /// The control plane's state folder
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    #[command(flatten)]
    pub mesh: MeshArgs,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub of: WorkloadArgs,
    /// How long the token is good; 24h at most
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub ttl: Duration,
}

#[derive(Debug, Args)]
pub struct CertificateArgs {
    #[command(flatten)]
    pub of: WorkloadArgs,
    /// Folder for cert.pem, key.pem and root.pem; made 0700, files 0600
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How long the certificate lasts
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub ttl: Duration,
}

/// A label of RFC 1123, as names of namespaces are.
fn namespace(text: &str) -> Result<String, String> {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let ends = text.starts_with('-') || text.ends_with('-');
    match text.is_empty() || text.len() > 63 || ends || !text.bytes().all(allowed) {
        true => Err(format!("`{text}` is no name of a namespace: use a-z 0-9 -")),
        false => Ok(text.to_owned()),
    }
}

fn domain(text: &str) -> Result<String, String> {
    check_name(text, true).map(|()| text.to_owned())
}

/// `90s`, `10m`, `24h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write 90s, 10m, 24h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let total = number
        .checked_mul(seconds)
        .filter(|total| *total > 0)
        .ok_or_else(wrong)?;
    Ok(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        assert!(parse("anyam-control --config-dir a --state-dir b").is_ok());
        assert!(parse("anyam-control --state-dir b").is_err());
        assert!(parse("anyam-control serve --config-dir a --state-dir b").is_ok());
        assert!(parse("anyam-control serve --state-dir b").is_err());
        let cluster = "anyam-control serve --kubernetes";
        let in_cluster = |more: &str| parse(&format!("{cluster} {more}"));
        assert!(parse(cluster).is_ok());
        assert!(parse("anyam-control --kubernetes").is_ok());
        assert!(in_cluster("--state-dir b --kubeconfig c --kube-context d").is_ok());
        assert!(in_cluster("--namespace mesh --token-audience ca").is_ok());
        assert!(in_cluster("--webhook-listen [::]:15017 --webhook-name w").is_ok());
        assert!(
            in_cluster("--webhook-name w").is_err(),
            "there is no webhook"
        );
        assert!(in_cluster("--namespace ../b").is_err());
        let ranges = "--workload-cidr 10.1.0.0/16 --workload-cidr fd00::/64";
        let read = in_cluster(ranges).unwrap();
        let Some(Command::Serve(serve)) = read.command else {
            panic!("{read:?}")
        };
        assert_eq!(serve.cluster.workload_cidrs.len(), 2);
        assert!(in_cluster("--workload-cidr 10.1.0.0/33").is_err());
        assert!(in_cluster("--cluster-domain k8s.example").is_ok());
        assert!(in_cluster("--cluster-domain .example").is_err());
        assert!(in_cluster("--config-dir a --state-dir b").is_err());
        for unused in [
            "--kubeconfig c",
            "--namespace n",
            "--token-audience a",
            "--workload-cidr 10.1.0.0/16",
        ] {
            let without = format!("anyam-control --state-dir b --config-dir a {unused}");
            assert!(parse(&without).is_err(), "it would not be used");
        }
        let token = "anyam-control token --state-dir b --workload a/b";
        assert!(parse(&format!("{token} --config-dir c --ttl 5m")).is_ok());
        assert!(
            parse(token).is_err(),
            "the service account must come from somewhere"
        );
        assert!(parse(&format!("{token} --service-account sa --ttl 5")).is_err());
    }
}
