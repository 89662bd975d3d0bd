//! The chain of HTTP filters: what each does with a request on its way in, and with the response
//! on its way out, in reverse order. The router is the last and is not a filter here.
//!
//! - `chain`: runs the filters over a request and its response; `wait`: what a filter may wait for
//! - `rbac`, `fault`, `local_ratelimit` with `descriptor`, `cors`, `header_mutation`,
//!   `stateful_session`: a file per filter
//! - `throttle`: a response's body at the rate that a filter sets
//!
//! Filters are an enum and are called directly: a chain costs what its filters do, and only a filter
//! that really waits has a future of its own. What a filter keeps for one stream stands in
//! [`StreamFilters`], which allocates only when something is kept.

mod chain;
mod cors;
mod descriptor;
mod fault;
mod header_mutation;
mod local_ratelimit;
pub(crate) mod rbac;
mod stateful_session;
mod throttle;
mod wait;

use std::sync::Arc;

pub use self::chain::on_response;
pub use self::local_ratelimit::ConnectionBuckets;
pub use self::throttle::Throttle;
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
    /// KiB a second that the response's body may take.
    response_rate: Option<u64>,
}

/// State that a filter keeps for a stream.
enum FilterState {
    Fault(#[expect(dead_code, reason = "a guard, held while the fault lasts")] fault::ActiveFault),
    Cors(cors::Allowed),
    LocalRateLimit(local_ratelimit::CheckedLimit),
    StatefulSession(stateful_session::StreamSession),
}

impl StreamFilters {
    /// Sets up the state of a request's chain for `route`.
    fn enter(info: &mut StreamInfo, route: Option<&Route>) {
        let draw = info.draw;
        info.filters.overrides = route.and_then(|route| overrides(route, draw)).cloned();
    }

    fn state(&self, place: usize) -> Option<&FilterState> {
        let of_filter = self.states.iter().find(|(at, _)| *at == place);
        of_filter.map(|(_, state)| state)
    }

    fn set_metadata(&mut self, filter: &Name, fields: &Object) {
        let metadata = self.metadata.get_or_insert_default();
        metadata.merge(filter, fields);
    }

    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// KiB a second that the response's body may take.
    pub fn response_rate(&self) -> Option<u64> {
        self.response_rate
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
