//! How a cluster's endpoints are reached: transports by metadata, source address, keepalive, and
//! the digest of it all.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use prost::Message;
use xds_proto::envoy::config::cluster::v3 as pb;
use xds_proto::envoy::config::core::v3 as core;
use xds_proto::google::protobuf::Struct;

use crate::config::cluster::{BindSource, Keepalive, Transport, TransportMatch};
use crate::config::compile::refs::Fetches;
use crate::config::compile::support::{
    At, CompileError, bool_or, each, ignored, required, u32_or, unsupported,
};
use crate::config::compile::values::{ip, string_metadata};
use crate::config::compile::{Compiler, tls};

/// Digest of the settings that connections depend on: while it is the same, versions share them.
pub fn pool_key(m: &pb::Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut add = |bytes: Vec<u8>| bytes.hash(&mut hasher);
    let sockets = pb::Cluster {
        transport_socket: m.transport_socket.clone(),
        upstream_bind_config: m.upstream_bind_config.clone(),
        upstream_connection_options: m.upstream_connection_options,
        http_protocol_options: m.http_protocol_options.clone(),
        http2_protocol_options: m.http2_protocol_options.clone(),
        protocol_selection: m.protocol_selection,
        ..pb::Cluster::default()
    };
    add(sockets.encode_to_vec());
    for entry in &m.transport_socket_matches {
        add(entry.name.clone().into_bytes());
        add(entry
            .transport_socket
            .clone()
            .unwrap_or_default()
            .encode_to_vec());
        // Maps have no order on the wire.
        let criteria = entry
            .r#match
            .as_ref()
            .map(string_metadata)
            .unwrap_or_default();
        add(format!("{criteria:?}").into_bytes());
    }
    let typed: BTreeMap<_, _> = m.typed_extension_protocol_options.iter().collect();
    for (name, any) in typed {
        add(name.clone().into_bytes());
        add(any.encode_to_vec());
    }
    hasher.finish()
}

pub fn transports(
    compiler: &Compiler,
    at: At<'_>,
    matches: &[pb::cluster::TransportSocketMatch],
    otherwise: &Option<core::TransportSocket>,
) -> Result<(Vec<TransportMatch>, Fetches), CompileError> {
    let mut fetches = Fetches::default();
    let mut compiled = each(at, "transport_socket_matches", matches, |at, m| {
        let pb::cluster::TransportSocketMatch {
            name,
            r#match,
            transport_socket,
        } = m;
        let socket = required!(at, transport_socket);
        let criteria = criteria(at.field("match"), r#match)?;
        Ok(TransportMatch {
            name: name.as_str().into(),
            tunnel: criteria.iter().any(|(key, _)| &**key == "tunnel"),
            criteria,
            transport: tls::client(compiler, at.field("transport_socket"), socket, &mut fetches)?,
        })
    })?;
    // An endpoint that no entry matches uses the cluster's own socket, as in Envoy. Without one
    // that is plaintext, unless entries were given: then such an endpoint is not dialled.
    match otherwise {
        Some(m) => compiled.push(TransportMatch {
            name: "default".into(),
            criteria: Vec::new(),
            tunnel: false,
            transport: tls::client(compiler, at.field("transport_socket"), m, &mut fetches)?,
        }),
        None if matches.is_empty() => compiled.push(TransportMatch {
            name: "default".into(),
            criteria: Vec::new(),
            tunnel: false,
            transport: Transport::RawBuffer,
        }),
        None => {}
    }
    Ok((compiled, fetches))
}

type Criteria = Vec<(Box<str>, Box<str>)>;

fn criteria(at: At<'_>, m: &Option<Struct>) -> Result<Criteria, CompileError> {
    let Some(m) = m else {
        return Ok(Vec::new());
    };
    let pairs = string_metadata(m);
    if pairs.len() != m.fields.len() {
        return at.fail("only string values are supported");
    }
    Ok(pairs)
}

pub fn keepalive(
    at: At<'_>,
    m: &Option<pb::UpstreamConnectionOptions>,
) -> Result<Option<Keepalive>, CompileError> {
    let Some(m) = m else {
        return Ok(None);
    };
    let at = at.field("upstream_connection_options");
    let pb::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = m;
    unsupported!(at, set_local_interface_name_on_upstream_connections);
    ignored!("an endpoint has one address", happy_eyeballs_config);
    Ok(tcp_keepalive.as_ref().map(|m| {
        let core::TcpKeepalive {
            keepalive_probes,
            keepalive_time,
            keepalive_interval,
        } = m;
        // Linux' own defaults where nothing is said.
        Keepalive {
            time: Duration::from_secs(u64::from(u32_or(keepalive_time, 7200).max(1))),
            interval: Duration::from_secs(u64::from(u32_or(keepalive_interval, 75).max(1))),
            probes: u32_or(keepalive_probes, 9).max(1),
        }
    }))
}

pub fn bind_source(at: At<'_>, m: &Option<core::BindConfig>) -> Result<BindSource, CompileError> {
    let mut bind = BindSource::default();
    let Some(m) = m else {
        return Ok(bind);
    };
    let at = at.field("upstream_bind_config");
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = m;
    let freebind = &bool_or(freebind, false);
    unsupported!(
        at,
        freebind,
        socket_options,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    );
    if let Some(source) = source_address {
        bind.offer(source_ip(at.field("source_address"), source)?);
    }
    for (index, extra) in extra_source_addresses.iter().enumerate() {
        let at = at.index("extra_source_addresses", index);
        let core::ExtraSourceAddress {
            address,
            socket_options,
        } = extra;
        unsupported!(at, socket_options);
        let address = required!(at, address);
        bind.offer(source_ip(at.field("address"), address)?);
    }
    Ok(bind)
}

fn source_ip(at: At<'_>, source: &core::SocketAddress) -> Result<IpAddr, CompileError> {
    match source.port_specifier {
        None | Some(core::socket_address::PortSpecifier::PortValue(0)) => {}
        Some(_) => return at.field("port_value").fail("must be 0"),
    }
    ip(at.field("address"), &source.address)
}
