//! Our own bootstrap extensions (anyam.bootstrap.v1), checked.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use xds_proto::anyam::bootstrap::v1 as pb;
use xds_proto::envoy::config::core::v3::TypedExtensionConfig;

use crate::config::cidr::Cidr;
use crate::config::compile::support::{
    At, CompileError, decode, ignored, port, positive, required, type_name,
};
use crate::identity;
use crate::probe::settings as probe;
use crate::tls::SpiffeId;

/// Kubernetes' default, used for the mesh's services elsewhere too.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// The default of how long connections wait for on-demand resources.
const WAIT: Duration = Duration::from_secs(5);
const MISS_TTL: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(5);

/// The settings of our own extensions. A stock Envoy bootstrap has none of them.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    pub identity: Option<IdentityConfig>,
    pub dns: Option<Dns>,
    pub inspect: Option<Inspect>,
    pub on_demand: Option<OnDemand>,
    pub probes: Option<Probes>,
    pub connections: Option<Connections>,
    pub status: Option<probe::StatusPortSettings>,
}

/// The static secrets `default` and `ROOTCA`, which come by CSR.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    pub settings: identity::IdentitySettings,
    /// The CA service's cluster.
    pub cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    pub listen: SocketAddr,
    /// Empty: names outside the mesh are refused.
    pub upstream: Vec<SocketAddr>,
    pub search: Vec<String>,
    pub cluster_domain: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspect {
    pub cluster: String,
    pub report_interval: Duration,
}

/// Resources are subscribed to by name, on first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDemand {
    pub wait: Duration,
    pub miss_ttl: Duration,
    pub unknown: Unknown,
    /// Where every address is the mesh's own: never passed through unknown.
    pub mesh: Vec<Cidr>,
}

/// What is done with destinations that the control plane does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    Passthrough,
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    pub metrics: Option<SocketAddr>,
    pub health: Option<SocketAddr>,
}

/// A bound on a listener's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    pub listener: String,
    /// `None`: as many as fit.
    pub most: Option<u64>,
}

/// All of `bootstrap_extensions`; an extension that is not ours is refused.
pub(super) fn extensions(
    at: At<'_>,
    list: &[TypedExtensionConfig],
) -> Result<Extensions, CompileError> {
    let mut found = Extensions::default();
    for (index, extension) in list.iter().enumerate() {
        let at = at.index("bootstrap_extensions", index);
        let TypedExtensionConfig { name, typed_config } = extension;
        ignored!("the type says what the extension is", name);
        let any = required!(at, typed_config);
        let at = at.field("typed_config");
        let twice = match type_name(any) {
            "anyam.bootstrap.v1.Identity" => found
                .identity
                .replace(identity(at, decode(at, any)?)?)
                .is_some(),
            "anyam.bootstrap.v1.DnsProxy" => {
                found.dns.replace(dns(at, decode(at, any)?)?).is_some()
            }
            "anyam.bootstrap.v1.InspectAgent" => found
                .inspect
                .replace(inspect(at, decode(at, any)?)?)
                .is_some(),
            "anyam.bootstrap.v1.OnDemand" => found
                .on_demand
                .replace(on_demand(at, decode(at, any)?)?)
                .is_some(),
            "anyam.bootstrap.v1.Probes" => found
                .probes
                .replace(probes(at, decode(at, any)?)?)
                .is_some(),
            "anyam.bootstrap.v1.ConnectionLimit" => found
                .connections
                .replace(connections(at, decode(at, any)?)?)
                .is_some(),
            "anyam.bootstrap.v1.StatusPort" => found
                .status
                .replace(super::status::status(at, decode(at, any)?)?)
                .is_some(),
            other => {
                let why =
                    format_args!("the bootstrap extension {other} is not supported; remove it");
                return at.fail(why);
            }
        };
        if twice {
            return at.fail(format_args!("{} is given twice", type_name(any)));
        }
    }
    Ok(found)
}

fn identity(at: At<'_>, message: pb::Identity) -> Result<IdentityConfig, CompileError> {
    let pb::Identity {
        spiffe_id,
        ca_cluster,
        token_file,
        state_dir,
        certificate_ttl,
        ca_file,
    } = message;
    let spiffe_id =
        SpiffeId::parse(&spiffe_id).map_err(|error| at.field("spiffe_id").error(error))?;
    if state_dir.is_empty() {
        return at
            .field("state_dir")
            .fail("is required: key and certificate are kept there");
    }
    let ttl = match certificate_ttl {
        None => None,
        some => Some(positive(
            at.field("certificate_ttl"),
            &some,
            Duration::ZERO,
        )?),
    };
    Ok(IdentityConfig {
        settings: identity::IdentitySettings {
            spiffe_id,
            token_file: (!token_file.is_empty()).then(|| PathBuf::from(token_file)),
            ca_file: (!ca_file.is_empty()).then(|| PathBuf::from(ca_file)),
            state_dir: state_dir.into(),
            ttl,
        },
        cluster: cluster(at.field("ca_cluster"), ca_cluster)?,
    })
}

fn dns(at: At<'_>, message: pb::DnsProxy) -> Result<Dns, CompileError> {
    let pb::DnsProxy {
        listen_address,
        listen_port,
        upstream,
        search,
        cluster_domain,
    } = message;
    let address = ip(at.field("listen_address"), &listen_address)?;
    let listen = SocketAddr::new(address, port(at.field("listen_port"), listen_port)?);
    let mut resolvers = Vec::new();
    for (index, text) in upstream.iter().enumerate() {
        let wrong = |_| {
            at.index("upstream", index)
                .error(format_args!("{text:?} is no address:port"))
        };
        resolvers.push(text.parse().map_err(wrong)?);
    }
    Ok(Dns {
        listen,
        upstream: resolvers,
        search,
        cluster_domain: match cluster_domain.trim_matches('.') {
            "" => CLUSTER_DOMAIN.to_owned(),
            domain => domain.to_ascii_lowercase(),
        },
    })
}

fn inspect(at: At<'_>, message: pb::InspectAgent) -> Result<Inspect, CompileError> {
    let pb::InspectAgent {
        cluster: name,
        report_interval,
    } = message;
    Ok(Inspect {
        cluster: cluster(at.field("cluster"), name)?,
        report_interval: positive(at.field("report_interval"), &report_interval, REPORT)?,
    })
}

fn on_demand(at: At<'_>, message: pb::OnDemand) -> Result<OnDemand, CompileError> {
    let pb::OnDemand {
        wait,
        miss_ttl,
        unknown,
        mesh_cidrs,
    } = message;
    let unknown = match pb::on_demand::Unknown::try_from(unknown) {
        Ok(pb::on_demand::Unknown::Passthrough) => Unknown::Passthrough,
        Ok(pb::on_demand::Unknown::Block) => Unknown::Block,
        Err(_) => return at.field("unknown").fail("is not a known value"),
    };
    let mut mesh = Vec::new();
    for (index, text) in mesh_cidrs.iter().enumerate() {
        let wrong = || {
            let why = format_args!("{text:?} is no address range such as 240.240.0.0/16");
            at.index("mesh_cidrs", index).error(why)
        };
        mesh.push(cidr(text).ok_or_else(wrong)?);
    }
    Ok(OnDemand {
        wait: positive(at.field("wait"), &wait, WAIT)?,
        miss_ttl: positive(at.field("miss_ttl"), &miss_ttl, MISS_TTL)?,
        unknown,
        mesh,
    })
}

fn probes(at: At<'_>, message: pb::Probes) -> Result<Probes, CompileError> {
    let pb::Probes {
        listen_address,
        metrics_port,
        health_port,
    } = message;
    let address = ip(at.field("listen_address"), &listen_address)?;
    let listen = |at: At<'_>, number: u32| -> Result<Option<SocketAddr>, CompileError> {
        let port = port(at, number)?;
        Ok((port != 0).then(|| SocketAddr::new(address, port)))
    };
    Ok(Probes {
        metrics: listen(at.field("metrics_port"), metrics_port)?,
        health: listen(at.field("health_port"), health_port)?,
    })
}

fn connections(at: At<'_>, message: pb::ConnectionLimit) -> Result<Connections, CompileError> {
    let pb::ConnectionLimit {
        listener,
        max_connections,
    } = message;
    if listener.is_empty() {
        return at.field("listener").fail("is required: a listener's name");
    }
    Ok(Connections {
        listener,
        most: Some(max_connections).filter(|most| *most > 0),
    })
}

fn cluster(at: At<'_>, name: String) -> Result<String, CompileError> {
    if name.is_empty() {
        return at.fail("is required: the name of a cluster in static_resources.clusters");
    }
    Ok(name)
}

pub(super) fn ip(at: At<'_>, text: &str) -> Result<IpAddr, CompileError> {
    text.parse()
        .map_err(|_| at.error(format_args!("{text:?} is not an IP address")))
}

/// `address/bits`, with the host's bits zeroed.
fn cidr(text: &str) -> Option<Cidr> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let address = match address {
        IpAddr::V4(address) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
        _ => return None,
    };
    Some(Cidr { address, bits })
}
