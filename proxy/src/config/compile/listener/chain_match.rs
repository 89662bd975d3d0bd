//! filter_chain_match.

use xds_proto::envoy::config::listener::v3 as pb;

use crate::config::compile::support::{At, CompileError, each, known, port, unsupported};
use crate::config::compile::values::cidr;
use crate::config::listener::{ChainMatch, SourceType, TransportProtocol};

/// envoy.config.listener.v3.FilterChainMatch.
pub fn chain_match(at: At<'_>, m: &pb::FilterChainMatch) -> Result<ChainMatch, CompileError> {
    let pb::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = m;
    unsupported!(at, address_suffix, suffix_len);
    Ok(ChainMatch {
        destination_port: match destination_port {
            Some(number) => Some(port(at.field("destination_port"), number.value)?),
            None => None,
        },
        prefix_ranges: each(at, "prefix_ranges", prefix_ranges, cidr)?,
        server_names: each(at, "server_names", server_names, server_name)?,
        transport_protocol: match transport_protocol.as_str() {
            "" => None,
            "raw_buffer" => Some(TransportProtocol::RawBuffer),
            "tls" => Some(TransportProtocol::Tls),
            other => {
                let at = at.field("transport_protocol");
                return at.fail(format_args!("`{other}` is neither raw_buffer nor tls"));
            }
        },
        application_protocols: application_protocols
            .iter()
            .map(|p| p.as_bytes().into())
            .collect(),
        direct_source_prefix_ranges: each(
            at,
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
            cidr,
        )?,
        source_type: source(at, *source_type)?,
        source_prefix_ranges: each(at, "source_prefix_ranges", source_prefix_ranges, cidr)?,
        source_ports: each(at, "source_ports", source_ports, |at, number| {
            port(at, *number)
        })?,
    })
}

fn source(at: At<'_>, source: i32) -> Result<SourceType, CompileError> {
    use pb::filter_chain_match::ConnectionSourceType as Kind;
    Ok(match known(at.field("source_type"), source)? {
        Kind::Any => SourceType::Any,
        Kind::SameIpOrLoopback => SourceType::SameIpOrLoopback,
        Kind::External => SourceType::External,
    })
}

fn server_name(at: At<'_>, name: &String) -> Result<Box<str>, CompileError> {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.is_empty() || rest.contains('*') {
        return at.fail(format_args!(
            "`{name}`: a star stands only for the first label"
        ));
    }
    Ok(name.to_ascii_lowercase().into())
}
