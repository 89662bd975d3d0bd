//! The chain of HTTP filters: what each does with a request on its way in, and with the response
//! on its way out, in reverse order. The router is the last and is not a filter here.
//!
//! - `chain`: runs the filters over a request and its response; `wait`: what a filter may wait for
//! - `rbac`, `fault`, `local_ratelimit` with `descriptor`, `cors`, `csrf`, `header_mutation`,
//!   `header_to_metadata`, `health_check`, `compressor` with `accept_encoding` and `encoder`,
//!   `decompressor` with `decoder`, `stateful_session`, `jwt_authn`: a file or folder per filter
//! - `body`: a body through the filters that change it; `throttle`: at the rate that one sets
//!
//! Filters are an enum and are called directly: a chain costs what its filters do, and only a filter
//! that really waits has a future of its own. What a filter keeps for one stream stands in
//! [`StreamFilters`], which allocates only when something is kept.

mod accept_encoding;
mod body;
mod chain;
mod compressor;
mod cors;
mod csrf;
pub mod decoder;
mod decompressor;
mod descriptor;
mod encoder;
mod fault;
mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
pub(crate) mod rbac;
mod stateful_session;
mod throttle;
mod wait;

use std::sync::Arc;

pub use self::body::{BodyFilters, Pulled};
pub use self::chain::on_response;
pub use self::local_ratelimit::ConnectionBuckets;
use super::request::stream_info::StreamInfo;
use crate::config::Name;
use crate::config::filter::FilterOverrides;
use crate::config::route::{Action, Route};
use crate::metadata::{Metadata, Object};

/// The filters' state for one stream.
#[derive(Default)]
pub struct StreamFilters {
    /// The route's overrides of filters.
    overrides: Option<Arc<FilterOverrides>>,
    /// By the filter's place in the chain.
    states: Vec<(usize, FilterState)>,
    /// Dynamic metadata, read by RBAC rules, logs and other filters.
    metadata: Option<Box<Metadata>>,
    /// What the request's body passes through; `None`: it passes as it is.
    pub request_body: Option<Box<BodyFilters>>,
    /// The same for the response's.
    pub response_body: Option<Box<BodyFilters>>,
}

/// State that a filter keeps for a stream.
enum FilterState {
    Fault(#[expect(dead_code, reason = "a guard, held while the fault lasts")] fault::ActiveFault),
    Cors(cors::Allowed),
    LocalRateLimit(local_ratelimit::CheckedLimit),
    Compressor(accept_encoding::AcceptEncoding),
    StatefulSession(stateful_session::StreamSession),
    /// The request is a health check of this proxy.
    HealthCheck {
        /// By this proxy, not by the upstream.
        is_answered: bool,
    },
}

impl StreamFilters {
    /// Sets up the state of a request's chain for `route`. Gives the route's overrides.
    fn enter(info: &mut StreamInfo, route: Option<&Route>) -> Option<Arc<FilterOverrides>> {
        let draw = info.draw;
        info.filters.overrides = route.and_then(|route| overrides(route, draw)).cloned();
        info.filters.overrides.clone()
    }

    fn state(&self, place: usize) -> Option<&FilterState> {
        let of_filter = self.states.iter().find(|(at, _)| *at == place);
        of_filter.map(|(_, state)| state)
    }

    fn set_metadata(&mut self, filter: &Name, fields: &Object) {
        let metadata = self.metadata.get_or_insert_default();
        metadata.merge(filter, fields);
    }

    /// Whether a filter has found the request to be a health check of this proxy.
    pub fn is_health_check(&self) -> bool {
        let of_check =
            |(_, state): &(usize, FilterState)| matches!(state, FilterState::HealthCheck { .. });
        self.states.iter().any(of_check)
    }

    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Whether the response's body is changed, and so has an unknown length.
    pub fn changes_response(&self) -> bool {
        let body = self.response_body.as_deref();
        body.is_some_and(BodyFilters::changes_body)
    }
}

/// The filter overrides of a route, or of the weighted cluster that `draw` chooses.
pub fn overrides(route: &Route, draw: u64) -> Option<&Arc<FilterOverrides>> {
    let weighted = match &route.action {
        Action::Forward(forward) => super::request::plan::weighted(forward, draw),
        Action::Redirect(_) | Action::Direct { .. } => None,
    };
    let own = weighted.and_then(|entry| entry.filters.as_ref());
    own.or(route.filters.as_ref())
}
