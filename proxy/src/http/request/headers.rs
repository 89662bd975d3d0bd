//! Strips internal headers of untrusted peers; sets XFF, XFCC and request id; applies configured
//! edits. Source: Envoy's "HTTP header manipulation" and "HTTP header sanitizing".

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use super::client_cert;
use super::request_id::request_id;
use super::stream_info::StreamInfo;
use crate::config::access_log::Part;
use crate::config::http::HttpConnectionManager;
use crate::config::listener::FilterChain;
use crate::config::route::{
    AppendAction, HeaderAppend, HeaderEdits, Route, RouteTable, VirtualHost,
};
use crate::message::head::{FieldRef, Head, HeaderId, IdSet};
use crate::telemetry::format::render_value;
use crate::tls::ConnectionInfo;

/// Headers by which Envoys control each other. They are accepted from no peer.
const INTERNAL: IdSet = IdSet::of(&[
    HeaderId::XAnyamHeaderCase,
    HeaderId::XEnvoyExpectedRqTimeoutMs,
    HeaderId::XEnvoyForceTrace,
    HeaderId::XEnvoyHedgeOnPerTryTimeout,
    HeaderId::XEnvoyInternal,
    HeaderId::XEnvoyIpTags,
    HeaderId::XEnvoyMaxRetries,
    HeaderId::XEnvoyOriginalHost,
    HeaderId::XEnvoyOriginalPath,
    HeaderId::XEnvoyRetriableHeaderNames,
    HeaderId::XEnvoyRetriableStatusCodes,
    HeaderId::XEnvoyRetryGrpcOn,
    HeaderId::XEnvoyRetryOn,
    HeaderId::XEnvoyUpstreamAltStatName,
    HeaderId::XEnvoyUpstreamRqPerTryTimeoutMs,
    HeaderId::XEnvoyUpstreamRqTimeoutAltResponse,
    HeaderId::XEnvoyUpstreamRqTimeoutMs,
]);
/// Further internal headers, which an edge proxy removes.
const EDGE: IdSet = IdSet::of(&[
    HeaderId::XEnvoyDecoratorOperation,
    HeaderId::XEnvoyDownstreamServiceCluster,
    HeaderId::XEnvoyDownstreamServiceNode,
    HeaderId::XEnvoyExternalAddress,
]);

/// Headers that the proxy vouches for or that frame messages. An app that turns names into
/// variables (CGI, WSGI) must not get another value for them from a name spelled with underscores.
const PROTECTED: IdSet = IdSet::of(&[
    HeaderId::Connection,
    HeaderId::ContentLength,
    HeaderId::Host,
    HeaderId::TransferEncoding,
    HeaderId::Upgrade,
    HeaderId::XForwardedClientCert,
    HeaderId::XForwardedFor,
    HeaderId::XForwardedHost,
    HeaderId::XForwardedPort,
    HeaderId::XForwardedProto,
    HeaderId::XRequestId,
]);

/// Who sent a request, as far as its headers depend on it.
pub struct Sender<'a> {
    pub peer: SocketAddr,
    pub tls: Option<&'a ConnectionInfo>,
    pub chain: &'a FilterChain,
    pub client_cert: &'a client_cert::Element,
}

/// Removes headers that the client may not set and adds those about the client. Returns the client's
/// address.
pub fn sanitise(
    head: &mut Head,
    manager: &HttpConnectionManager,
    sender: &Sender<'_>,
) -> SocketAddr {
    head.remove_all(INTERNAL);
    remove_lookalikes(head);
    if manager.use_remote_address {
        head.remove_all(EDGE);
    }
    let client = forwarded_for(head, manager, sender.peer);
    let scheme: &[u8] = if sender.tls.is_some() {
        b"https"
    } else {
        b"http"
    };
    let trust_proto = !manager.use_remote_address || manager.xff_num_trusted_hops > 0;
    if !trust_proto || !head.has(HeaderId::XForwardedProto) {
        head.set(HeaderId::XForwardedProto, scheme);
    }
    if head.scheme().is_empty() {
        let said = head.get(HeaderId::XForwardedProto);
        let https = said.is_some_and(|said| said.eq_ignore_ascii_case(b"https"));
        head.set_scheme(if https { b"https" } else { b"http" });
    }
    client_cert::forward(head, manager, sender);
    if manager.use_remote_address {
        let address = client.ip().to_canonical().to_string();
        head.set(HeaderId::XEnvoyExternalAddress, address.as_bytes());
    }
    if let Some(via) = &manager.via {
        append_to_list(head, HeaderId::Via, via.as_bytes());
    }
    request_id(head, manager);
    client
}

fn remove_lookalikes(head: &mut Head) {
    let found = head.has(HeaderId::Other) && head.iter().any(is_lookalike);
    if found {
        head.retain(|field| !is_lookalike(field));
    }
}

fn is_lookalike(field: FieldRef<'_>) -> bool {
    if field.id != HeaderId::Other || memchr::memchr(b'_', field.name).is_none() {
        return false;
    }
    let id = HeaderId::of_variable(field.name);
    PROTECTED.contains(id)
        || INTERNAL.contains(id)
        || EDGE.contains(id)
        || RESERVED
            .iter()
            .any(|prefix| has_prefix_ignoring_separators(prefix, field.name))
}

/// Prefixes of names that Envoy and proxies reserve: a name with such a prefix in which hyphens are
/// underscores is dropped.
const RESERVED: [&[u8]; 2] = [b"x-envoy-", b"x-forwarded-"];

/// Whether a name begins with `prefix`, in any case, with underscores or hyphens.
fn has_prefix_ignoring_separators(prefix: &[u8], name: &[u8]) -> bool {
    let same = |(of_prefix, of_name): (&u8, &u8)| match of_name {
        b'_' => *of_prefix == b'-',
        other => of_prefix.eq_ignore_ascii_case(other),
    };
    name.len() >= prefix.len() && prefix.iter().zip(name).all(same)
}

/// Appends to `x-forwarded-for`; returns the client's address.
fn forwarded_for(head: &mut Head, manager: &HttpConnectionManager, peer: SocketAddr) -> SocketAddr {
    let hops = usize::try_from(manager.xff_num_trusted_hops).unwrap_or(usize::MAX);
    if !manager.use_remote_address {
        return address_in_list(head, hops).map_or(peer, |ip| SocketAddr::new(ip, 0));
    }
    // The peer itself counts as the last hop.
    let client = hops
        .checked_sub(1)
        .and_then(|skip| address_in_list(head, skip));
    if !manager.skip_xff_append {
        let ip = peer.ip().to_canonical().to_string();
        append_to_list(head, HeaderId::XForwardedFor, ip.as_bytes());
    }
    client.map_or(peer, |ip| SocketAddr::new(ip, 0))
}

/// The address that stands `skip` entries before the last in `x-forwarded-for`.
fn address_in_list(head: &Head, skip: usize) -> Option<IpAddr> {
    let mut addresses: Vec<&[u8]> = Vec::new();
    for value in head.get_all(HeaderId::XForwardedFor) {
        addresses.extend(value.split(|b| *b == b','));
    }
    let at = addresses.len().checked_sub(skip.checked_add(1)?)?;
    let text = std::str::from_utf8(addresses.get(at)?).ok()?;
    text.trim().parse().ok()
}

pub(super) fn append_to_list(head: &mut Head, id: HeaderId, value: &[u8]) {
    let mut joined = Vec::new();
    for known in head.get_all(id) {
        joined.extend_from_slice(known);
        joined.extend_from_slice(if id == HeaderId::Via { b", " } else { b"," });
    }
    joined.extend_from_slice(value);
    head.set(id, &joined);
}

/// The head that edits apply to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HeadSide {
    Request,
    Response,
}

/// Applies the edits of weighted cluster, route, virtual host and table, in the order configured.
pub fn edit(info: &mut StreamInfo, side: HeadSide, weighted: Option<&HeaderEdits>) {
    if !edits(info, side, weighted) {
        return;
    }
    let (Some(config), Some(route)) = (info.route_config.clone(), info.route.clone()) else {
        return;
    };
    let table = &config.table;
    let internal = match side {
        HeadSide::Request => table.internal_only_headers.len(),
        HeadSide::Response => 0,
    };
    let host = info
        .virtual_host
        .and_then(|index| table.virtual_hosts.get(usize::try_from(index).ok()?));
    let [of_route, of_host, of_table] = levels(table, host, &route, side);
    let mut levels = [weighted, of_route, of_host, of_table];
    if table.most_specific_wins {
        levels.reverse();
    }
    for edits in levels.into_iter().flatten() {
        apply(info, side, edits);
    }
    for name in table.internal_only_headers.iter().take(internal) {
        info.request.remove_named(name.name.as_bytes());
    }
}

/// Whether [`edit`] may change the request.
pub fn edits_request(info: &StreamInfo, weighted: Option<&HeaderEdits>) -> bool {
    edits(info, HeadSide::Request, weighted)
}

fn edits(info: &StreamInfo, side: HeadSide, weighted: Option<&HeaderEdits>) -> bool {
    let (Some(config), Some(route)) = (&info.route_config, &info.route) else {
        return false;
    };
    let table = &config.table;
    let of_routes = levels(table, info.virtual_host(), route, side);
    let mut all = of_routes.iter().flatten().copied().chain(weighted);
    side == HeadSide::Request && !table.internal_only_headers.is_empty()
        || !all.all(HeaderEdits::is_empty)
}

/// The edits of route, virtual host and table.
fn levels<'a>(
    table: &'a RouteTable,
    host: Option<&'a VirtualHost>,
    route: &'a Route,
    side: HeadSide,
) -> [Option<&'a HeaderEdits>; 3] {
    match side {
        HeadSide::Request => [
            Some(&route.request_headers),
            host.map(|host| &host.request_headers),
            Some(&table.request_headers),
        ],
        HeadSide::Response => [
            Some(&route.response_headers),
            host.map(|host| &host.response_headers),
            Some(&table.response_headers),
        ],
    }
}

/// Applies one list of edits.
pub fn apply(info: &mut StreamInfo, side: HeadSide, edits: &HeaderEdits) {
    for name in &edits.remove {
        head(info, side).remove_named(name.name.as_bytes());
    }
    for one in &edits.append {
        append(info, side, one);
    }
}

/// Adds one header, by its append action.
pub fn append(info: &mut StreamInfo, side: HeadSide, append: &HeaderAppend) {
    let mut value: SmallVec<[u8; 64]> = SmallVec::new();
    match append.value.0.as_slice() {
        [Part::Literal(text)] => value.extend_from_slice(text.as_bytes()),
        _ => render_value(&append.value, &info.record(), &mut value),
    }
    if !value.is_empty() || append.keep_empty_value {
        add(head(info, side), append, &value);
    }
}

/// The head of a side.
pub fn head(info: &mut StreamInfo, side: HeadSide) -> &mut Head {
    match side {
        HeadSide::Request => &mut info.request,
        HeadSide::Response => &mut info.response,
    }
}

/// Adds a value that was rendered, by its append action.
pub(crate) fn add(head: &mut Head, append: &HeaderAppend, value: &[u8]) {
    let name = append.name.name.as_bytes();
    // Pseudo-headers are parts of the start line.
    match append.name.id {
        HeaderId::PseudoAuthority | HeaderId::Host => return head.set_authority(value),
        HeaderId::PseudoPath => return head.set_path_and_query(value),
        HeaderId::PseudoMethod => return head.set_method(value),
        HeaderId::PseudoScheme => return head.set_scheme(value),
        id if id.is_pseudo() => return,
        _ => {}
    }
    let present = head.get_all_named(append.name.id, name).next().is_some();
    let spelling = append.spelling.as_bytes();
    match (append.action, present) {
        (AppendAction::AppendIfExistsOrAdd, _) | (AppendAction::AddIfAbsent, false) => {
            head.append_named(spelling, value);
        }
        (AppendAction::OverwriteIfExistsOrAdd, _) | (AppendAction::OverwriteIfExists, true) => {
            head.remove_named(name);
            head.append_named(spelling, value);
        }
        (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_count_from_the_end() {
        let mut head = Head::new();
        head.append(HeaderId::XForwardedFor, b"1.1.1.1, 2.2.2.2");
        head.append(HeaderId::XForwardedFor, b"3.3.3.3");
        let at = |skip| address_in_list(&head, skip).map(|ip| ip.to_string());
        assert_eq!(at(0).as_deref(), Some("3.3.3.3"));
        assert_eq!(at(2).as_deref(), Some("1.1.1.1"));
        assert_eq!(at(3), None);
    }
}
