//! The choice of a request's virtual host, route and cluster.
//!
//! [`host`] and [`routes`] are the matchers themselves, also for `explain`: it takes the result of
//! every route, the data path the first route that matches.
//!
//! As in Envoy a route is chosen before the filters run, on a head that no filter has edited and on no
//! dynamic metadata. A filter may have it chosen again (`clear_route_cache`), on what there is then.

use std::sync::Arc;

use super::matching;
use super::stream_info::StreamInfo;
use crate::config::balancing::SubsetCriteria;
use crate::config::route::{
    Action, ClusterSpecifier, PathMatch, PlaintextRequests, Route, RouteAction, RouteMatch,
    RouteTable, VirtualHost, WeightedCluster,
};
use crate::matcher::HeaderName;
use crate::message::head::{Head, HeaderId, Method, TargetForm};
use crate::metadata::Metadata;
use crate::snapshot::RouteConfig;
use crate::snapshot::{ClusterLinks, Snapshot};
use crate::upstream::cluster::Cluster;

/// Why a route does not match a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteMismatch<'a> {
    Path,
    /// This header does not match.
    Header(&'a HeaderName),
    /// This query parameter does not match.
    Query(&'a str),
    /// The dynamic metadata does not match.
    Metadata,
    /// Only gRPC requests.
    NotGrpc,
    /// The runtime fraction excluded it.
    Fraction,
    /// The request came over TLS, or an internal client sent it.
    NotPlaintext,
    /// An earlier route took the request.
    Earlier,
}

/// The virtual host for a canonical authority (see [`crate::message::authority`]).
pub fn host<'t>(table: &'t RouteTable, authority: &str) -> Option<(u32, &'t VirtualHost)> {
    let name = if table.ignore_port {
        without_port(authority)
    } else {
        authority
    };
    let wild = |list: &[(Box<str>, u32)], fits: &dyn Fn(&str) -> bool| {
        list.iter()
            .find(|(part, _)| name.len() > part.len() && fits(part))
            .map(|(_, index)| *index)
    };
    let index = table
        .exact
        .get(name)
        .copied()
        .or_else(|| wild(&table.suffix, &|part| name.ends_with(part)))
        .or_else(|| wild(&table.prefix, &|part| name.starts_with(part)))
        .or(table.any)?;
    let at = usize::try_from(index).ok()?;
    Some((index, table.virtual_hosts.get(at)?))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

/// Every route of a virtual host in order, with why it does not match; `Ok` for those that match.
/// `metadata`: what filters have set.
/// `draw`: the request's own, uniform over all of `u64`.
pub fn routes<'a>(
    host: &'a VirtualHost,
    head: &'a Head,
    metadata: Option<&'a Metadata>,
    draw: u64,
) -> impl Iterator<Item = (&'a Arc<Route>, Result<(), RouteMismatch<'a>>)> {
    let share = share(draw);
    host.routes
        .iter()
        .map(move |route| (route, fits(&route.matches, head, metadata, share)))
}

/// Whether a rule that has no share of requests holds for a request.
pub fn matches(rule: &RouteMatch, head: &Head) -> bool {
    fits(rule, head, None, 0).is_ok()
}

/// Parts per million, of the upper half of `draw`: the choice among weighted clusters depends on
/// the lower half.
fn share(draw: u64) -> u32 {
    // Of 32 bits and 20: nothing is lost, and the result is below a million.
    ((draw >> 32).wrapping_mul(1_000_000) >> 32) as u32
}

fn fits<'a>(
    matches: &'a RouteMatch,
    head: &Head,
    metadata: Option<&Metadata>,
    drawn: u32,
) -> Result<(), RouteMismatch<'a>> {
    if matches
        .plaintext
        .is_some_and(|which| !is_plaintext(which, head))
    {
        return Err(RouteMismatch::NotPlaintext);
    }
    if !path_fits(matches, head) {
        return Err(RouteMismatch::Path);
    }
    if matches.fraction.is_some_and(|share| drawn >= share) {
        return Err(RouteMismatch::Fraction);
    }
    if matches.grpc && !matching::is_grpc(head) {
        return Err(RouteMismatch::NotGrpc);
    }
    for header in &matches.headers {
        if !matching::header(header, head) {
            return Err(RouteMismatch::Header(&header.name));
        }
    }
    for query in &matches.query {
        if !matching::query(query, head.query()) {
            return Err(RouteMismatch::Query(&query.name));
        }
    }
    if !matches.metadata.iter().all(|one| one.matches(metadata)) {
        return Err(RouteMismatch::Metadata);
    }
    Ok(())
}

fn is_plaintext(which: PlaintextRequests, head: &Head) -> bool {
    let is_secure = head.get(HeaderId::XForwardedProto) == Some(b"https");
    let is_internal = head.get(HeaderId::XEnvoyInternal) == Some(b"true");
    !is_secure && (which == PlaintextRequests::All || !is_internal)
}

fn path_fits(matches: &RouteMatch, head: &Head) -> bool {
    let connect = head.method() == Method::Connect;
    if connect && head.form() == TargetForm::Authority {
        return matches!(matches.path, PathMatch::Connect);
    }
    if head.form() == TargetForm::Asterisk {
        // `OPTIONS *` is about the server as a whole: only a route for every path matches it.
        return matches!(&matches.path, PathMatch::Prefix(all) if matches!(&**all, "" | "/"));
    }
    let path = head.path();
    let equal = |a: &[u8], b: &[u8]| {
        if matches.case_sensitive {
            a == b
        } else {
            a.eq_ignore_ascii_case(b)
        }
    };
    let starts = |prefix: &str| {
        path.get(..prefix.len())
            .is_some_and(|start| equal(start, prefix.as_bytes()))
    };
    match &matches.path {
        PathMatch::Prefix(prefix) => starts(prefix),
        PathMatch::SeparatedPrefix(prefix) => {
            starts(prefix) && matches!(path.get(prefix.len()), None | Some(b'/'))
        }
        PathMatch::Exact(exact) => equal(path, exact.as_bytes()),
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::Connect => connect,
    }
}

/// The cluster a forward goes to, and the weighted entry that brought it there.
pub struct Chosen<'a> {
    /// `None`: not known, or the header that should name it is absent.
    pub cluster: Option<Arc<Cluster>>,
    pub weighted: Option<&'a WeightedCluster>,
}

/// The weighted cluster that `draw` chooses; `None`: the route has none.
pub fn weighted(forward: &RouteAction, draw: u64) -> Option<&WeightedCluster> {
    let ClusterSpecifier::Weighted { total, clusters } = &forward.target else {
        return None;
    };
    let ticket = draw.checked_rem(*total).unwrap_or(0);
    clusters.iter().find(|entry| ticket < entry.bound)
}

/// The name of the cluster that a request goes to, whether or not it is known.
pub fn cluster_name<'a>(route: &'a Route, info: &'a StreamInfo, draw: u64) -> Option<&'a [u8]> {
    let Action::Forward(forward) = &route.action else {
        return None;
    };
    let linked = match &forward.target {
        ClusterSpecifier::Cluster(reference) => reference,
        ClusterSpecifier::Weighted { .. } => &weighted(forward, draw)?.cluster,
        ClusterSpecifier::ClusterHeader(name) => {
            let mut values = info.request.get_all_named(name.id, name.name.as_bytes());
            return values.next();
        }
    };
    let links = &info.route_config.as_ref()?.clusters;
    let link = links.get(usize::try_from(linked.0).ok()?)?;
    Some(link.name.as_bytes())
}

/// Chooses among a route's clusters. `draw` is uniform over all of `u64`.
pub fn cluster<'a>(
    forward: &'a RouteAction,
    links: &ClusterLinks,
    head: &Head,
    snapshot: &Snapshot,
    draw: u64,
) -> Chosen<'a> {
    let linked = |at: u32| links.get(usize::try_from(at).ok()?)?.target.clone();
    match &forward.target {
        ClusterSpecifier::Cluster(reference) => Chosen {
            cluster: linked(reference.0),
            weighted: None,
        },
        ClusterSpecifier::Weighted { .. } => {
            let weighted = weighted(forward, draw);
            Chosen {
                cluster: weighted.and_then(|entry| linked(entry.cluster.0)),
                weighted,
            }
        }
        ClusterSpecifier::ClusterHeader(name) => Chosen {
            cluster: head
                .get_all_named(name.id, name.name.as_bytes())
                .next()
                .and_then(|value| std::str::from_utf8(value).ok())
                .and_then(|name| snapshot.clusters.get(name))
                .cloned(),
            weighted: None,
        },
    }
}

/// What a request asks of its endpoint's metadata.
pub fn subset<'a>(
    forward: &'a RouteAction,
    weighted: Option<&'a WeightedCluster>,
) -> Option<&'a Arc<SubsetCriteria>> {
    let own = weighted.and_then(|entry| entry.subset.as_ref());
    own.or(forward.subset.as_ref())
}

/// What [`host`] and [`routes`] decided for one request.
pub struct Matched {
    pub config: Arc<RouteConfig>,
    pub host: u32,
    pub route: Arc<Route>,
}

/// The first route that takes the request; `draw` as for [`routes`]. `Err` has the virtual host, if there was one.
pub fn plan(
    config: &Arc<RouteConfig>,
    authority: &str,
    head: &Head,
    metadata: Option<&Metadata>,
    draw: u64,
) -> Result<Matched, Option<u32>> {
    let (index, found) = host(&config.table, authority).ok_or(None)?;
    let route = routes(found, head, metadata, draw)
        .find(|(_, verdict)| verdict.is_ok())
        .map(|(route, _)| route.clone())
        .ok_or(Some(index))?;
    Ok(Matched {
        config: config.clone(),
        host: index,
        route,
    })
}
