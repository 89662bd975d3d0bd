//! Descriptors of a request: built by its route's rate limits, and matched with a limit's own.

use std::borrow::Cow;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::local_ratelimit::LimitCheck;
use crate::config::filter::{DescriptorMatch, RateLimit, RateLimitAction, VhRateLimits};
use crate::config::route::{Action, Route};
use crate::http::request::matching;
use crate::http::request::plan;
use crate::http::request::stream_info::StreamInfo;
use crate::metadata::Value;

type Entries<'a> = SmallVec<[(&'a str, Cow<'a, [u8]>); 4]>;

/// The indices of the limit's descriptors that match the request, the strictest first.
pub fn fitting(asked: &LimitCheck<'_>, info: &StreamInfo, places: &mut SmallVec<[usize; 4]>) {
    let mut add = |list: &[RateLimit]| {
        for rate_limit in list.iter().filter(|one| one.stage == asked.limit.stage) {
            let Some(made) = made(rate_limit, asked, info) else {
                continue;
            };
            let fits = |known: &[(Box<str>, Box<str>)]| {
                known.len() == made.len()
                    && known
                        .iter()
                        .zip(&made)
                        .all(|((key, value), (k, v))| **key == **k && *value.as_bytes() == **v)
            };
            let mut all = asked.limit.descriptors.iter();
            places.extend(all.position(|descriptor| fits(&descriptor.entries)));
        }
    };
    if !asked.limit.rate_limits.is_empty() {
        add(&asked.limit.rate_limits);
    } else {
        let of_route = asked.route.and_then(of_route);
        let own = of_route.map_or(&[][..], |limits| &limits.own);
        add(own);
        let include = of_route.is_some_and(|limits| limits.include_virtual_host)
            || match asked.limit.virtual_host {
                VhRateLimits::Override => own.is_empty(),
                VhRateLimits::Include => true,
                VhRateLimits::Ignore => false,
            };
        if include && let Some(host) = info.virtual_host() {
            add(&host.rate_limits);
        }
    }
    let rate = |at: &usize| {
        let descriptor = asked.limit.descriptors.get(*at);
        descriptor.map_or(0.0, |descriptor| descriptor.refill.rate())
    };
    places.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
}

fn of_route(route: &Route) -> Option<&crate::config::filter::RouteRateLimits> {
    match &route.action {
        Action::Forward(forward) => Some(&forward.rate_limits),
        Action::Redirect(_) | Action::Direct { .. } => None,
    }
}

/// The entries of a descriptor; `None`: an action without an entry makes the descriptor void.
fn made<'a>(
    rate_limit: &'a RateLimit,
    asked: &LimitCheck<'a>,
    info: &'a StreamInfo,
) -> Option<Entries<'a>> {
    let mut entries = Entries::new();
    for action in &rate_limit.actions {
        match entry(action, asked, info) {
            Made::Entry(key, value) => entries.push((key, value)),
            Made::Skipped => {}
            Made::Void => return None,
        }
    }
    (!entries.is_empty()).then_some(entries)
}

enum Made<'a> {
    Entry(&'a str, Cow<'a, [u8]>),
    /// No entry; the other actions still apply.
    Skipped,
    /// The whole descriptor is void.
    Void,
}

impl<'a> Made<'a> {
    fn of(key: &'a str, value: Option<Cow<'a, [u8]>>, skip_if_absent: bool) -> Self {
        match value {
            Some(value) => Self::Entry(key, value),
            None if skip_if_absent => Self::Skipped,
            None => Self::Void,
        }
    }
}

fn entry<'a>(
    action: &'a RateLimitAction,
    asked: &LimitCheck<'a>,
    info: &'a StreamInfo,
) -> Made<'a> {
    match action {
        RateLimitAction::DestinationCluster => {
            let cluster = asked
                .route
                .and_then(|route| plan::cluster_name(route, info, asked.draw));
            Made::of("destination_cluster", cluster.map(Cow::Borrowed), false)
        }
        RateLimitAction::RemoteAddress => {
            let text = info.client.ip().to_string();
            Made::Entry("remote_address", Cow::Owned(text.into_bytes()))
        }
        RateLimitAction::MaskedRemoteAddress { v4, v6 } => {
            let text = masked(info.client.ip(), *v4, *v6);
            Made::Entry("masked_remote_address", Cow::Owned(text.into_bytes()))
        }
        RateLimitAction::RequestHeader {
            key,
            name,
            skip_if_absent,
        } => {
            let mut values = info.request.get_all_named(name.id, name.name.as_bytes());
            let value = values.next().map(Cow::Borrowed);
            Made::of(key, value, *skip_if_absent)
        }
        RateLimitAction::QueryParameter {
            key,
            name,
            skip_if_absent,
        } => {
            let value = matching::query_value(name, info.request.query());
            Made::of(key, value.map(Cow::Borrowed), *skip_if_absent)
        }
        RateLimitAction::GenericKey { key, value } => {
            Made::Entry(key, Cow::Borrowed(value.as_bytes()))
        }
        RateLimitAction::Match {
            key,
            value,
            expect,
            matches,
        } => {
            let all = match matches {
                DescriptorMatch::Headers(list) => {
                    list.iter().all(|one| matching::header(one, &info.request))
                }
                DescriptorMatch::Query(list) => list
                    .iter()
                    .all(|one| matching::query(one, info.request.query())),
            };
            let value = (all == *expect).then_some(Cow::Borrowed(value.as_bytes()));
            Made::of(key, value, false)
        }
        RateLimitAction::Metadata {
            key,
            namespace,
            path,
            default,
            skip_if_absent,
        } => {
            let known = info.filters.metadata();
            let value = match known.and_then(|known| known.get(namespace, path)) {
                Some(Value::String(text)) => Some(&**text),
                _ => default.as_deref(),
            };
            let value = value.map(|text| Cow::Borrowed(text.as_bytes()));
            Made::of(key, value, *skip_if_absent)
        }
    }
}

/// The network that an address lies in, as a range.
fn masked(address: IpAddr, v4: u8, v6: u8) -> String {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX
                .checked_shl(32u32.saturating_sub(v4.into()))
                .unwrap_or(0);
            let network = std::net::Ipv4Addr::from(u32::from(address) & mask);
            format!("{network}/{v4}")
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX
                .checked_shl(128u32.saturating_sub(v6.into()))
                .unwrap_or(0);
            let network = std::net::Ipv6Addr::from(u128::from(address) & mask);
            format!("{network}/{v6}")
        }
    }
}
