//! Small values of the core API: addresses, ranges, data sources, shares, metadata.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::r#type::v3 as kind;
use xds_proto::google::protobuf as pb;

use super::support::{
    At, CompileError, decode, duration, ignored, known, required, type_name, unsupported,
};
use crate::config::Name;
use crate::config::cidr::Cidr;
use crate::config::listener::{ListenerKey, SocketProtocol};
use crate::metadata::{Object, Value};

/// Bytes a file named by configuration may have.
const MAX_FILE: u64 = 4 << 20;
/// Envoy's default for `initial_fetch_timeout`.
pub const FETCH: Duration = Duration::from_secs(15);
/// In place of 0, which Envoy reads as for ever.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Host and port of a TCP address, the host not yet looked at.
pub fn host_port<'m>(
    at: At<'_>,
    address: &'m core::Address,
) -> Result<(&'m str, u16), CompileError> {
    let (SocketProtocol::Tcp, host, port) = protocol_host_port(at, address)?;
    Ok((host, port))
}

fn protocol_host_port<'m>(
    at: At<'_>,
    address: &'m core::Address,
) -> Result<(SocketProtocol, &'m str, u16), CompileError> {
    use core::address::Address as Kind;
    use core::socket_address::{PortSpecifier, Protocol};
    let core::Address { address } = address;
    let socket = match required!(at, address) {
        Kind::SocketAddress(socket) => socket,
        Kind::Pipe(_) => return at.field("pipe").fail("is not supported by this proxy"),
        Kind::EnvoyInternalAddress(_) => {
            return at
                .field("envoy_internal_address")
                .fail("is not supported by this proxy");
        }
    };
    let at = at.field("socket_address");
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    unsupported!(at, resolver_name, network_namespace_filepath);
    ignored!(
        "IPv6 sockets are bound with the system's own setting",
        ipv4_compat
    );
    let protocol = match known(at.field("protocol"), *protocol)? {
        Protocol::Tcp => SocketProtocol::Tcp,
        Protocol::Udp => return at.field("protocol").fail("only TCP is supported"),
    };
    let port = match required!(at, port_specifier) {
        PortSpecifier::PortValue(port) => super::support::port(at.field("port_value"), *port)?,
        PortSpecifier::NamedPort(_) => {
            return at
                .field("named_port")
                .fail("is not supported by this proxy");
        }
    };
    Ok((protocol, address, port))
}

/// The socket of a listener. Its address has to be numeric.
pub fn listener_key(at: At<'_>, address: &core::Address) -> Result<ListenerKey, CompileError> {
    let (protocol, host, port) = protocol_host_port(at, address)?;
    let ip = ip(at.field("socket_address").field("address"), host)?;
    let address = SocketAddr::new(ip, port);
    Ok(ListenerKey { protocol, address })
}

pub fn ip(at: At<'_>, text: &str) -> Result<IpAddr, CompileError> {
    text.parse()
        .or_else(|_| at.fail(format_args!("`{text}` is not an IP address")))
}

/// A range; its host bits are cleared, as Envoy does.
pub fn cidr(at: At<'_>, range: &core::CidrRange) -> Result<Cidr, CompileError> {
    let core::CidrRange {
        address_prefix,
        prefix_len,
    } = range;
    let address = ip(at.field("address_prefix"), address_prefix)?;
    let bits = super::support::u32_or(prefix_len, 0);
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match u8::try_from(bits) {
        Ok(bits) if bits <= most => bits,
        _ => {
            return at
                .field("prefix_len")
                .fail(format_args!("{bits} is more than {most}"));
        }
    };
    let address = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    };
    Ok(Cidr { address, bits })
}

/// The bytes of a file. Neither a FIFO, for which a reader waits, nor a device, which may have no
/// end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(io::Error::other("is larger than 4 MiB")),
        false => Ok(bytes),
    }
}

/// The bytes of a data source. Files are read now and, for the time being, only now.
pub fn data_source(at: At<'_>, source: &core::DataSource) -> Result<Vec<u8>, CompileError> {
    use core::data_source::Specifier;
    let core::DataSource {
        watched_directory,
        specifier,
    } = source;
    unsupported!(at, watched_directory);
    match required!(at, specifier) {
        Specifier::InlineBytes(bytes) => Ok(bytes.clone()),
        Specifier::InlineString(text) => Ok(text.clone().into_bytes()),
        Specifier::Filename(path) => {
            let at = at.field("filename");
            read(path.as_ref()).map_err(|e| at.error(format_args!("{path}: {e}")))
        }
        Specifier::EnvironmentVariable(name) => {
            std::env::var(name).map(String::into_bytes).map_err(|e| {
                at.field("environment_variable")
                    .error(format_args!("{name}: {e}"))
            })
        }
    }
}

/// Parts per million.
pub fn fraction(at: At<'_>, share: &kind::FractionalPercent) -> Result<u32, CompileError> {
    use kind::fractional_percent::DenominatorType as Of;
    let kind::FractionalPercent {
        numerator,
        denominator,
    } = share;
    let factor = match super::support::known(at.field("denominator"), *denominator)? {
        Of::Hundred => 10_000,
        Of::TenThousand => 100,
        Of::Million => 1,
    };
    Ok(numerator.saturating_mul(factor).min(1_000_000))
}

/// Parts per million of a share that runtime could change; there is no runtime layer, so the
/// default holds.
pub fn runtime_fraction(
    at: At<'_>,
    share: &core::RuntimeFractionalPercent,
) -> Result<u32, CompileError> {
    let core::RuntimeFractionalPercent {
        default_value,
        runtime_key,
    } = share;
    ignored!("there is no runtime layer; the default holds", runtime_key);
    match default_value {
        Some(share) => fraction(at.field("default_value"), share),
        None => Ok(0),
    }
}

/// Whole percent, 0 to 100.
pub fn percent(at: At<'_>, share: &kind::Percent) -> Result<u8, CompileError> {
    let kind::Percent { value } = share;
    if (0.0..=100.0).contains(value) {
        // In range; fractions of a percent do not matter where this is used.
        Ok(value.round() as u8)
    } else {
        at.fail(format_args!("{value} is not between 0 and 100"))
    }
}

/// Checks that a resource comes over ADS, the only supported source. Returns how long the first
/// fetch may take.
pub fn over_ads(at: At<'_>, source: &core::ConfigSource) -> Result<Duration, CompileError> {
    use core::config_source::ConfigSourceSpecifier as Source;
    let core::ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = source;
    unsupported!(at, authorities);
    ignored!("only v3 is supported", resource_api_version);
    let initial_fetch_timeout =
        fetch_timeout(at.field("initial_fetch_timeout"), initial_fetch_timeout)?;
    match required!(at, config_source_specifier) {
        Source::Ads(_) | Source::Self_(_) => Ok(initial_fetch_timeout),
        Source::Path(_) => at.field("path").fail("only ads is supported"),
        Source::PathConfigSource(_) => at.field("path_config_source").fail("only ads is supported"),
        Source::ApiConfigSource(_) => at.field("api_config_source").fail("only ads is supported"),
    }
}

/// `initial_fetch_timeout`; unset is Envoy's default, 0 is without end.
pub fn fetch_timeout(at: At<'_>, m: &Option<pb::Duration>) -> Result<Duration, CompileError> {
    Ok(match duration(at, m)? {
        None => FETCH,
        Some(Duration::ZERO) => FOR_EVER,
        Some(time) => time.min(FOR_EVER),
    })
}

/// The configuration of a typed extension.
pub fn extension<'m>(
    at: At<'_>,
    config: &'m core::TypedExtensionConfig,
) -> Result<&'m pb::Any, CompileError> {
    let core::TypedExtensionConfig { name, typed_config } = config;
    ignored!(
        "the type says what the extension is; only statistics of compressors are called by it",
        name
    );
    Ok(required!(at, typed_config))
}

/// The message in an extension; `None`: it is of another type.
pub fn of_type<M: prost::Name + Default>(
    at: At<'_>,
    any: &pb::Any,
) -> Result<Option<M>, CompileError> {
    match type_name(any) == M::full_name() {
        true => decode(at, any).map(Some),
        false => Ok(None),
    }
}

/// Region, zone and sub-zone, as endpoints carry them.
pub fn locality(m: &core::Locality) -> Name {
    let core::Locality {
        region,
        zone,
        sub_zone,
    } = m;
    format!("{region}/{zone}/{sub_zone}").into()
}

/// Metadata by filter. Typed metadata only extensions read that are not here.
pub fn filter_metadata(m: &core::Metadata) -> &HashMap<String, pb::Struct> {
    let core::Metadata {
        filter_metadata,
        typed_filter_metadata,
    } = m;
    ignored!(
        "only extensions read it that are refused",
        typed_filter_metadata
    );
    filter_metadata
}

/// String values of `filter_metadata[filter]`, sorted by key.
pub fn string_metadata(fields: &pb::Struct) -> Vec<(Box<str>, Box<str>)> {
    let mut pairs: Vec<_> = fields
        .fields
        .iter()
        .filter_map(|(key, value)| Some((key.as_str().into(), text(value)?.into())))
        .collect();
    pairs.sort();
    pairs
}

/// Deepest nesting of objects and lists; it bounds recursion.
const MAX_DEPTH: u32 = 16;

/// A struct as metadata has it.
pub fn object(at: At<'_>, fields: &pb::Struct) -> Result<Object, CompileError> {
    fields_of(at, fields, 0)
}

fn fields_of(at: At<'_>, fields: &pb::Struct, depth: u32) -> Result<Object, CompileError> {
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let compiled = fields.fields.iter().map(|(key, value)| {
        let value = value_of(at.field(key), value, depth)?;
        Ok((key.as_str().into(), value))
    });
    compiled.collect()
}

fn value_of(at: At<'_>, value: &pb::Value, depth: u32) -> Result<Value, CompileError> {
    use pb::value::Kind;
    Ok(match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::Number(*number),
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        Some(Kind::StringValue(text)) => Value::String(text.as_str().into()),
        Some(Kind::StructValue(fields)) => {
            Value::Object(Arc::new(fields_of(at, fields, depth + 1)?))
        }
        Some(Kind::ListValue(_)) if depth > MAX_DEPTH => return at.fail("is nested too deep"),
        Some(Kind::ListValue(list)) => {
            let item = |value| value_of(at, value, depth + 1);
            Value::List(list.values.iter().map(item).collect::<Result<_, _>>()?)
        }
    })
}

/// Our control plane's words about who declared a resource, for errors.
pub fn declared_by(m: &core::Metadata) -> Option<Arc<str>> {
    let ours = filter_metadata(m).get("anyam")?;
    ours.fields.get("declared_by").and_then(text).map(Arc::from)
}

/// Whether local replies are to give reasons in sentences.
pub fn gives_reasons(m: &core::Metadata) -> bool {
    let ours = filter_metadata(m).get("anyam");
    let wanted = ours.and_then(|ours| ours.fields.get("local_replies"));
    wanted.and_then(text) == Some("reasons")
}

/// Whether our control plane means a route's back-off to be the least that a retry waits for, which
/// Envoy's own settings cannot express.
pub fn is_minimum_back_off(m: &core::Metadata) -> bool {
    let ours = filter_metadata(m).get("anyam");
    let meant = ours.and_then(|ours| ours.fields.get("retry_back_off"));
    meant.and_then(text) == Some("minimum")
}

/// The string in a value; numbers and booleans have no text.
pub fn text(value: &pb::Value) -> Option<&str> {
    match &value.kind {
        Some(pb::value::Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}
