//! Short constructors for verbose protobufs.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use prost::Message;
use xds_proto::any;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::r#type::matcher::v3 as matcher;
use xds_proto::google::protobuf::{self as pb, value::Kind};

use crate::model::manifest::values::{Cidr, Glob};

pub fn u32v(value: u32) -> Option<pb::UInt32Value> {
    Some(pb::UInt32Value { value })
}

pub fn boolv(value: bool) -> Option<pb::BoolValue> {
    Some(pb::BoolValue { value })
}

pub fn duration(value: Duration) -> Option<pb::Duration> {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    // Below 10^9, which fits.
    Some(pb::Duration {
        seconds,
        nanos: value.subsec_nanos() as i32,
    })
}

pub fn typed<M: Message + prost::Name>(message: &M) -> pb::Any {
    any::pack(message)
}

pub fn address(at: SocketAddr) -> core::Address {
    let port = core::socket_address::PortSpecifier::PortValue(u32::from(at.port()));
    let socket = core::SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(port),
        ..core::SocketAddress::default()
    };
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket)),
    }
}

pub fn inline(text: &str) -> core::DataSource {
    core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.to_owned())),
        ..core::DataSource::default()
    }
}

pub fn cidr(range: &Cidr) -> core::CidrRange {
    core::CidrRange {
        address_prefix: range.address.to_string(),
        prefix_len: u32v(u32::from(range.bits)),
    }
}

pub fn host_range(ip: IpAddr) -> core::CidrRange {
    cidr(&Cidr {
        address: ip,
        bits: if ip.is_ipv4() { 32 } else { 128 },
    })
}

/// Discovery over the stream this resource came by.
pub fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..core::ConfigSource::default()
    })
}

pub fn extension<M: Message + prost::Name>(name: &str, message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(typed(message)),
    }
}

pub fn transport_socket<M: Message + prost::Name>(
    name: &str,
    message: &M,
) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(typed(
            message,
        ))),
    }
}

pub fn text(text: impl Into<String>) -> pb::Value {
    pb::Value {
        kind: Some(Kind::StringValue(text.into())),
    }
}

pub fn structure(value: pb::Struct) -> pb::Value {
    pb::Value {
        kind: Some(Kind::StructValue(value)),
    }
}

pub fn list(values: Vec<pb::Value>) -> pb::Value {
    pb::Value {
        kind: Some(Kind::ListValue(pb::ListValue { values })),
    }
}

fn map<V: Clone>(entries: &[(&str, V)]) -> HashMap<String, V> {
    let entries = entries.iter();
    entries
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

pub fn fields(entries: &[(&str, pb::Value)]) -> pb::Struct {
    pb::Struct {
        fields: map(entries),
    }
}

pub fn metadata(entries: &[(&str, pb::Struct)]) -> core::Metadata {
    core::Metadata {
        filter_metadata: map(entries),
        ..core::Metadata::default()
    }
}

pub fn exact(value: impl Into<String>) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::Exact(value.into()))
}

pub fn prefix(value: impl Into<String>) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::Prefix(value.into()))
}

pub fn safe_regex(regex: impl Into<String>) -> matcher::StringMatcher {
    pattern(matcher::string_matcher::MatchPattern::SafeRegex(
        regex_matcher(regex),
    ))
}

pub fn regex_matcher(regex: impl Into<String>) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: regex.into(),
        engine_type: None,
    }
}

fn pattern(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ignore_case: false,
    }
}

/// `None`: anything that is there at all.
pub fn glob(glob: &Glob) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern as P;
    Some(pattern(match glob {
        Glob::Any => return None,
        Glob::Exact(text) => P::Exact(text.clone()),
        Glob::Prefix(text) => P::Prefix(text.clone()),
        Glob::Suffix(text) => P::Suffix(text.clone()),
    }))
}
