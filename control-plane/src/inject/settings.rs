//! The mesh operator's settings of injection: one YAML document, which the webhook and `anyam
//! inject` both read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mistakes;
use super::quantity::Quantity;
use crate::injected::{
    EXCLUDE_INBOUND_CIDRS, EXCLUDE_INBOUND_PORTS, INCLUDE_INBOUND_CIDRS, INCLUDE_INBOUND_PORTS,
};

/// Kubernetes' default.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";

/// Where sidecars find their control plane, and the default settings of sidecars.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshSettings {
    /// Address of the control plane for configuration and certificates, `host:port`.
    pub control_plane: String,
    /// The name in the control plane's certificate.
    pub control_plane_name: String,
    pub trust_domain: String,
    /// The domain of the cluster, in which Services have their names.
    pub cluster_domain: String,
    /// The audience of the service-account tokens that sidecars show to the CA.
    pub token_audience: String,
    /// Lifetime of such a token in seconds; the kubelet replaces it before. At least 600.
    pub token_seconds: u32,
    /// The ConfigMap in each namespace whose key `ca.crt` has the mesh's roots.
    pub ca_config_map: String,
    /// Ranges in which every address is the mesh's own, and never dialled in plaintext; empty: the
    /// sidecar's defaults.
    pub mesh_cidrs: Vec<String>,
    /// Secrets of the pods' namespaces with credentials for the registry of the sidecar's image.
    pub image_pull_secrets: Vec<String>,
    /// Namespaces whose pods are never injected, whatever their labels.
    pub excluded_namespaces: Vec<String>,
    /// Defaults, which a pod's annotations may override.
    pub proxy: ProxySettings,
}

impl Default for MeshSettings {
    fn default() -> Self {
        let excluded = [
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "anyam-system",
        ];
        MeshSettings {
            control_plane: "anyam-control.anyam-system.svc:15012".into(),
            control_plane_name: "anyam-control".into(),
            trust_domain: "anyam.local".into(),
            cluster_domain: CLUSTER_DOMAIN.into(),
            token_audience: "anyam-ca".into(),
            token_seconds: 43_200,
            ca_config_map: "anyam-ca-root-cert".into(),
            mesh_cidrs: Vec::new(),
            image_pull_secrets: Vec::new(),
            excluded_namespaces: excluded.map(str::to_owned).into(),
            proxy: ProxySettings::default(),
        }
    }
}

/// Settings of one sidecar: the mesh's defaults, or those with a pod's annotations applied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxySettings {
    pub image: String,
    pub image_pull_policy: PullPolicy,
    pub sidecar: SidecarKind,
    pub resources: ResourceRequirements,
    pub log_level: String,
    /// Worker threads; `None`: as many as the CPU limit gives.
    pub concurrency: Option<u16>,
    /// Seconds for which connections may last once the pod is being stopped; `None`: five less than
    /// the pod's grace period.
    pub drain_seconds: Option<u64>,
    /// The app's DNS goes to the sidecar.
    pub capture_dns: bool,
    pub unknown_destinations: UnknownDestinations,
    pub redirect: RedirectSettings,
    /// The sidecar performs the app's probes.
    pub rewrite_probes: bool,
    /// One scrape has the sidecar's metrics and those of an app with `prometheus.io` annotations.
    pub merge_metrics: bool,
}

impl Default for ProxySettings {
    fn default() -> Self {
        ProxySettings {
            image: concat!("anyam/proxy:", env!("CARGO_PKG_VERSION")).into(),
            image_pull_policy: PullPolicy::IfNotPresent,
            sidecar: SidecarKind::Native,
            resources: ResourceRequirements::default(),
            log_level: "info".into(),
            concurrency: None,
            drain_seconds: None,
            capture_dns: true,
            unknown_destinations: UnknownDestinations::Passthrough,
            redirect: RedirectSettings::default(),
            rewrite_probes: true,
            merge_metrics: true,
        }
    }
}

/// How the sidecar runs in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SidecarKind {
    /// An init container with `restartPolicy: Always`: it runs before the other init containers and
    /// until the containers have ended. Kubernetes 1.29 and later.
    Native,
    /// A container beside the app's.
    Classic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// What is done with connections to destinations that nothing in the mesh declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownDestinations {
    Passthrough,
    Block,
}

impl UnknownDestinations {
    pub fn as_str(self) -> &'static str {
        match self {
            UnknownDestinations::Passthrough => "passthrough",
            UnknownDestinations::Block => "block",
        }
    }
}

/// What is redirected to the sidecar: ports and ranges of ports, addresses and ranges of addresses.
/// An empty `include` list stands for everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RedirectSettings {
    pub include_inbound_ports: Vec<String>,
    pub exclude_inbound_ports: Vec<String>,
    pub include_inbound_cidrs: Vec<String>,
    pub exclude_inbound_cidrs: Vec<String>,
    pub include_outbound_ports: Vec<String>,
    pub exclude_outbound_ports: Vec<String>,
    pub include_outbound_cidrs: Vec<String>,
    pub exclude_outbound_cidrs: Vec<String>,
    /// Users and groups whose processes' calls leave without the sidecar.
    pub exempt_uids: Vec<String>,
    pub exempt_gids: Vec<String>,
    /// Names, or beginnings of names followed by `*`.
    pub exclude_interfaces: Vec<String>,
    /// Also IPv6; if false, it bypasses the mesh.
    pub ipv6: bool,
}

impl Default for RedirectSettings {
    fn default() -> Self {
        RedirectSettings {
            include_inbound_ports: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            include_inbound_cidrs: Vec::new(),
            exclude_inbound_cidrs: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_outbound_cidrs: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            exempt_uids: Vec::new(),
            exempt_gids: Vec::new(),
            exclude_interfaces: Vec::new(),
            ipv6: true,
        }
    }
}

impl RedirectSettings {
    /// The lists of ports, each with the flag of `anyam-proxy redirect` that takes it.
    pub(super) fn ports(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            (INCLUDE_INBOUND_PORTS, &self.include_inbound_ports),
            (EXCLUDE_INBOUND_PORTS, &self.exclude_inbound_ports),
            ("include-outbound-ports", &self.include_outbound_ports),
            ("exclude-outbound-ports", &self.exclude_outbound_ports),
        ]
    }

    /// The lists of addresses, each with the flag of `anyam-proxy redirect` that takes it.
    pub(super) fn cidrs(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            (INCLUDE_INBOUND_CIDRS, &self.include_inbound_cidrs),
            (EXCLUDE_INBOUND_CIDRS, &self.exclude_inbound_cidrs),
            ("include-outbound-cidrs", &self.include_outbound_cidrs),
            ("exclude-outbound-cidrs", &self.exclude_outbound_cidrs),
        ]
    }

    /// The lists of ids, each with the flag of `anyam-proxy redirect` that takes it.
    pub(super) fn ids(&self) -> [(&'static str, &Vec<String>); 2] {
        [
            ("exempt-uids", &self.exempt_uids),
            ("exempt-gids", &self.exempt_gids),
        ]
    }

    /// The list of interfaces, with its flag.
    pub(super) fn interfaces(&self) -> (&'static str, &Vec<String>) {
        ("exclude-interfaces", &self.exclude_interfaces)
    }
}

/// Requests and limits of the sidecar, and of the init container that sets its rules.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceRequirements {
    pub requests: Amounts,
    pub limits: Amounts,
}

impl Default for ResourceRequirements {
    fn default() -> Self {
        let amount = |text| Quantity::parse(text).ok();
        ResourceRequirements {
            requests: Amounts {
                cpu: amount("50m"),
                memory: amount("64Mi"),
            },
            limits: Amounts {
                cpu: amount("2"),
                memory: amount("256Mi"),
            },
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    pub cpu: Option<Quantity>,
    pub memory: Option<Quantity>,
}

/// Why a file of settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{path} can't be read: {source}", path = path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path}: {error}; docs/kubernetes.md lists the settings of injection", path = path.display())]
    Yaml {
        path: PathBuf,
        error: xds_proto::yaml::Error,
    },
    #[error("{path}: {field}: {value:?} is not allowed; write {allowed}", path = path.display())]
    Value {
        path: PathBuf,
        field: &'static str,
        value: String,
        allowed: String,
    },
}

/// Largest file of settings, bytes.
const MAX_FILE: u64 = 1 << 20;

impl MeshSettings {
    /// Reads a file of settings; what it leaves out has its default.
    ///
    /// # Errors
    /// It can't be read, or something in it is not allowed.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = read(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let yaml = |error| SettingsError::Yaml {
            path: path.to_owned(),
            error,
        };
        let document = xds_proto::yaml::documents(&text).next().transpose();
        let settings = match document.map_err(yaml)? {
            None => MeshSettings::default(),
            Some(node) => MeshSettings::deserialize(&node).map_err(yaml)?,
        };
        match mistakes::first(&settings) {
            None => Ok(settings),
            Some(mistake) => Err(SettingsError::Value {
                path: path.to_owned(),
                field: mistake.field,
                value: mistake.value,
                allowed: mistake.allowed,
            }),
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let why = format!("it is larger than {MAX_FILE} bytes");
        return Err(std::io::Error::other(why));
    }
    Ok(text)
}
