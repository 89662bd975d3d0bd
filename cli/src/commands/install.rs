//! Prints the manifests of an installation without Helm: the chart as Helm renders it
//! (`deploy/helm/rendered`, one file for each of the chart's values files), and the CRDs of our own
//! kinds. Each option corresponds to a value of the chart.

use std::io::{self, Write};
use std::process::ExitCode;

use anyam_control::crd;
use anyam_control::text::hex;
use xds_proto::yaml;

use super::CommandError;

/// Defaults in the renderings, which the options replace.
const NAMESPACE: &str = "anyam-system";
const REGISTRY: &str = "docker.io";
const TRUST_DOMAIN: &str = "anyam.local";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The annotation that restarts pods when the injection settings change.
const CHECKSUM: &str = "checksum/injection: ";

/// Print the manifests of an installation on Kubernetes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The output is that of the Helm chart (deploy/helm/anyam) with the same values. With Helm, all other
values can be set too, and uninstalling is one command.

Examples:
  anyam install | kubectl apply --server-side -f -
  anyam install --profile production --registry registry.example/mesh | kubectl apply --server-side -f -"
)]
pub struct InstallArguments {
    /// One of the chart's values files
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    profile: Profile,
    /// Namespace of the control plane; created if missing
    #[arg(short, long, value_name = "NAME", default_value = NAMESPACE, value_parser = label)]
    namespace: String,
    /// Registry of the images anyam/control and anyam/proxy
    #[arg(long, value_name = "NAME", default_value = REGISTRY, value_parser = registry)]
    registry: String,
    /// Tag of the images
    #[arg(long, value_name = "TAG", default_value = VERSION, value_parser = tag)]
    tag: String,
    /// Trust domain of all identities
    #[arg(long, value_name = "NAME", default_value = TRUST_DOMAIN, value_parser = trust_domain)]
    trust_domain: String,
    /// Listen on both families: for a cluster with IPv6, alone or beside IPv4
    #[arg(long)]
    ipv6: bool,
    /// Leave out the CustomResourceDefinitions
    #[arg(long)]
    skip_crds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    /// Two replicas
    Default,
    /// Small, with debug logs
    Staging,
    /// At least three replicas, each on a node of its own
    Production,
    /// Standby cluster for disaster recovery
    Dr,
}

impl Profile {
    fn rendering(self) -> &'static str {
        match self {
            Profile::Default => include_str!("../../../deploy/helm/rendered/default.yaml"),
            Profile::Staging => include_str!("../../../deploy/helm/rendered/staging.yaml"),
            Profile::Production => include_str!("../../../deploy/helm/rendered/production.yaml"),
            Profile::Dr => include_str!("../../../deploy/helm/rendered/dr.yaml"),
        }
    }
}

pub fn install(arguments: InstallArguments) -> Result<ExitCode, CommandError> {
    let manifests = manifests(&arguments)?;
    let mut out = io::stdout().lock();
    out.write_all(manifests.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn manifests(arguments: &InstallArguments) -> io::Result<String> {
    let namespace = &arguments.namespace;
    // Not for a namespace that may have other pods, which may need more.
    let labels = match namespace == NAMESPACE {
        true => ", labels: {pod-security.kubernetes.io/enforce: restricted}",
        false => "",
    };
    let mut text =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}{labels}}}\n");
    if !arguments.skip_crds {
        for definition in crd::all() {
            text += &format!("---\n{}", yaml::write(&definition.manifest));
        }
    }
    let mut rendered = arguments.profile.rendering().to_owned();
    rendered = rendered
        .replace(NAMESPACE, namespace)
        .replace(TRUST_DOMAIN, &arguments.trust_domain);
    // Last: a registry may have the namespace or the trust domain in its name.
    for image in ["anyam/control", "anyam/proxy"] {
        let before = format!("{REGISTRY}/{image}:{VERSION}");
        let now = format!("{}/{image}:{}", arguments.registry, arguments.tag);
        rendered = rendered.replace(&before, &now);
    }
    if arguments.ipv6 {
        rendered = both_families(&rendered);
    }
    let checksum = checksum(&rendered)?;
    for line in rendered.lines() {
        if line.trim_start().starts_with("helm.sh/chart:") {
            continue;
        }
        text += &match line.split_once(CHECKSUM) {
            Some((before, _)) => format!("{before}{CHECKSUM}{checksum}"),
            None => line.replace("managed-by: Helm", "managed-by: anyam"),
        };
        text.push('\n');
    }
    Ok(text)
}

/// As the chart's value `ipv6`: ports listen on IPv6, which takes IPv4 too, and the Service has addresses
/// of the cluster's families.
fn both_families(rendered: &str) -> String {
    rendered
        .replace("-listen=0.0.0.0:", "-listen=[::]:")
        .replace(
            "  ipFamilyPolicy: SingleStack\n  ipFamilies: [IPv4]\n",
            "  ipFamilyPolicy: PreferDualStack\n",
        )
}

/// SHA-256 of the injection settings, as the chart computes it.
fn checksum(rendered: &str) -> io::Result<String> {
    for document in yaml::documents(rendered) {
        let document = document.map_err(io::Error::other)?;
        let data = document
            .get("data")
            .and_then(|data| data.get("injection.yaml"));
        if let Some(settings) = data {
            let settings = settings.text().trim_end_matches('\n');
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, settings.as_bytes());
            return Ok(hex(digest.as_ref()));
        }
    }
    Err(io::Error::other(
        "the rendering has no settings of injection",
    ))
}

/// The text, if it has only letters, digits and the characters of `more`, and begins and ends with a
/// letter or digit: it is inserted into YAML without quotes.
fn plain(text: &str, more: &str, what: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = text.len() <= 253
        && text.chars().all(fits)
        && ends(text.chars().next())
        && ends(text.chars().next_back());
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no {what}")),
    }
}

fn label(text: &str) -> Result<String, String> {
    if text.len() > 63 || text.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!("{text:?} is no name of a namespace"));
    }
    plain(text, "-", "name of a namespace")
}

fn registry(text: &str) -> Result<String, String> {
    plain(text, "-._:/", "registry, as registry.example:5000/mesh")
}

fn tag(text: &str) -> Result<String, String> {
    plain(text, "-._", "tag of an image")
}

fn trust_domain(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!(
            "{text:?} is no trust domain: upper case is not allowed"
        ));
    }
    plain(text, "-._", "trust domain")
}
