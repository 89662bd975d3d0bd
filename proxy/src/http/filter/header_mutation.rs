//! Header mutations: the filter's own, then those of each level of routes.

use crate::config::filter::{FilterConfig, HeaderMutation, Mutation, Mutations};
use crate::http::request::headers;
use crate::http::request::headers::HeadSide;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::HeaderId;

pub fn apply(
    own: &HeaderMutation,
    of_route: Option<&FilterConfig>,
    side: HeadSide,
    info: &mut StreamInfo,
) {
    for level in &own.levels {
        mutate(level, side, info);
    }
    let Some(FilterConfig::HeaderMutation(of_route)) = of_route else {
        return;
    };
    if own.most_specific_wins {
        for level in of_route.levels.iter().rev() {
            mutate(level, side, info);
        }
    } else {
        for level in &of_route.levels {
            mutate(level, side, info);
        }
    }
}

/// Whether a request may be changed.
pub fn edits_requests(own: &HeaderMutation, of_route: Option<&FilterConfig>) -> bool {
    let of_route = match of_route {
        Some(FilterConfig::HeaderMutation(of_route)) => &*of_route.levels,
        _ => &[],
    };
    let mut levels = own.levels.iter().chain(of_route);
    levels.any(|level| !level.request.is_empty())
}

fn mutate(mutations: &Mutations, side: HeadSide, info: &mut StreamInfo) {
    let list = match side {
        HeadSide::Request => &mutations.request,
        HeadSide::Response => &mutations.response,
    };
    for mutation in list {
        match mutation {
            Mutation::Append(append) => headers::append(info, side, append),
            Mutation::Remove(name) => {
                headers::head(info, side).remove_named(name.name.as_bytes());
            }
            // The host is not a field that can be taken away.
            Mutation::RemoveOnMatch(matcher) => headers::head(info, side).retain(|field| {
                field.id == HeaderId::Host || !matcher.matches(&field.name.to_ascii_lowercase())
            }),
        }
    }
}
