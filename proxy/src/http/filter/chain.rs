//! Runs the filters over a request, and in reverse order over its response.

use super::jwt_authn::FetchedKeySets;
use super::{
    StreamFilters, compressor, cors, csrf, decompressor, fault, header_mutation,
    header_to_metadata, health_check, jwt_authn, local_ratelimit, rbac, stateful_session,
};
use crate::config::filter::{FilterConfig, HttpFilter};
use crate::config::route::Route;
use crate::http::h1::{BodyLength, Framing, TunnelRequest};
use crate::http::request::error::Failure;
use crate::http::request::handle::Exchange;
use crate::http::request::headers::HeadSide;
use crate::http::request::local_reply::Reply;
use crate::http::request::stream_info::{RouteChoice, StreamInfo};

/// One filter of a request's chain.
struct FilterStep<'a> {
    /// Index in the chain.
    place: usize,
    filter: &'a HttpFilter,
    /// The route's configuration for the filter.
    of_route: Option<&'a FilterConfig>,
    route: Option<&'a Route>,
}

impl Exchange<'_, '_> {
    /// Passes the request through the filters. Without a route they run as the chain configures
    /// them. `Some`: a filter answers the request, with the head in `info`. A filter may have the route
    /// chosen again; the filters after it then run by that one.
    ///
    /// # Errors
    /// When a filter refuses the request, or what a filter waited for did not come.
    pub(in crate::http) async fn filter_request(
        &mut self,
        framing: &mut Framing,
    ) -> Result<Option<Reply>, Failure> {
        let resolved = self.resolved.clone();
        let mut route = self.info.route.clone();
        let mut overrides = StreamFilters::enter(&mut self.info, route.as_deref());
        for (place, filter) in resolved.manager.filters.iter().enumerate() {
            let Some((_, of_route)) = filter.on_route(overrides.as_deref()) else {
                continue;
            };
            let step = FilterStep {
                place,
                filter,
                of_route,
                route: route.as_deref(),
            };
            let reply = self.step(step, framing).await?;
            if reply.is_some() {
                return Ok(reply);
            }
            if self.info.route_choice == RouteChoice::Cleared {
                route = self.plan()?;
                self.info.route_choice = RouteChoice::AfterFilters;
                if self.refuses_upgrade(route.as_deref(), framing) {
                    return Err(Failure::UpgradeRefused);
                }
                overrides = StreamFilters::enter(&mut self.info, route.as_deref());
            }
        }
        Ok(None)
    }

    async fn step(
        &mut self,
        step: FilterStep<'_>,
        framing: &mut Framing,
    ) -> Result<Option<Reply>, Failure> {
        let of_route = step.of_route;
        match &step.filter.config {
            FilterConfig::Rbac(own) => {
                self.info.set_authorised_head(&self.conn.worker.heads);
                rbac::check(rbac::rules(own, of_route), &self.info)?;
                Ok(None)
            }
            FilterConfig::Fault(own) => {
                let mut fault = fault::Injector {
                    fault: fault::settings(own, of_route),
                    active: &own.active,
                    name: step.filter.name.shared(),
                    place: step.place,
                };
                if !fault.matches(&self.info, step.route) {
                    return Ok(None);
                }
                if let Some(delay) = fault.delay(&mut self.info) {
                    Box::pin(self.delay(delay, framing)).await?;
                }
                Ok(fault.abort(&mut self.info))
            }
            FilterConfig::Buffer(own) => {
                self.buffer(*own, of_route, framing).await?;
                Ok(None)
            }
            FilterConfig::JwtAuthn(own) => {
                let (info, worker) = (&mut self.info, &self.conn.worker);
                let requirement = match jwt_authn::required(own, of_route, info, worker) {
                    Ok(Some(requirement)) => requirement,
                    Ok(None) => return Ok(None),
                    Err(reply) => return Ok(Some(reply)),
                };
                let missing = jwt_authn::missing(own, requirement, info, worker);
                let fetched = match missing.is_empty() {
                    true => FetchedKeySets::default(),
                    false => Box::pin(self.fetch_keys(missing, framing)).await?,
                };
                let (info, worker) = (&mut self.info, &self.conn.worker);
                Ok(jwt_authn::verify(own, requirement, &fetched, info, worker))
            }
            _ => Ok(self.step_at_once(step, framing)),
        }
    }

    /// The step of a filter that waits for nothing, nor fails.
    fn step_at_once(&mut self, step: FilterStep<'_>, framing: &mut Framing) -> Option<Reply> {
        let FilterStep {
            place,
            filter,
            of_route,
            route,
        } = step;
        let info = &mut self.info;
        match &filter.config {
            FilterConfig::HeaderMutation(own) => {
                if header_mutation::edits_requests(own, of_route) {
                    info.keep_authorised_head(&self.conn.worker.heads);
                    header_mutation::apply(own, of_route, HeadSide::Request, info);
                }
                None
            }
            FilterConfig::Cors(own) => {
                cors::on_request(cors::policy(own, of_route), route, place, info)
            }
            FilterConfig::LocalRateLimit(own) => {
                let asked = local_ratelimit::LimitCheck {
                    limit: local_ratelimit::limit(own, of_route),
                    route,
                    draw: info.draw,
                    place,
                };
                local_ratelimit::on_request(asked, info, self.conn)
            }
            FilterConfig::Csrf(own) => csrf::on_request(own, of_route, info),
            FilterConfig::HeaderToMetadata(own) => {
                header_to_metadata::on_request(own, of_route, info, &self.conn.worker.heads);
                None
            }
            FilterConfig::StatefulSession(own) => {
                stateful_session::on_request(own, of_route, place, info);
                None
            }
            FilterConfig::HealthCheck(own) => {
                health_check::on_request(own, place, info, &self.conn.worker.store)
            }
            FilterConfig::Compressor(own) => {
                let filter = compressor::OnRoute::new(own, of_route);
                let body = body_length(framing);
                compressor::on_request(filter, place, body, info, &self.conn.worker.heads);
                None
            }
            FilterConfig::Decompressor(own) => {
                let body = body_length(framing);
                decompressor::on_request(own, body, info, &self.conn.worker.heads);
                None
            }
            // These wait, or fail.
            FilterConfig::Rbac(_)
            | FilterConfig::Fault(_)
            | FilterConfig::Buffer(_)
            | FilterConfig::JwtAuthn(_)
            // Only a route's.
            | FilterConfig::CompressorOfRoute(_)
            | FilterConfig::CsrfOfRoute(_)
            | FilterConfig::JwtAuthnOfRoute(_) => None,
        }
    }

    /// Waits for the request's whole body, of so many bytes at most.
    async fn buffer(
        &mut self,
        own: usize,
        of_route: Option<&FilterConfig>,
        framing: &mut Framing,
    ) -> Result<(), Failure> {
        let most = match of_route {
            Some(FilterConfig::Buffer(most)) => *most,
            _ => own,
        };
        match self.has_body(framing) {
            true => Box::pin(self.receive(most, framing)).await,
            false => Ok(()),
        }
    }
}

/// The length of the request's body, if it has one that filters may change.
fn body_length(framing: &mut Framing) -> Option<&mut BodyLength> {
    let has_body = framing.tunnel == TunnelRequest::None
        && !matches!(framing.body, BodyLength::None | BodyLength::Known(0));
    has_body.then_some(&mut framing.body)
}

/// Runs the filters, in reverse order, over the response's head in `info`. A filter that changes the
/// body leaves what it passes through in `info.filters`. `body`: the body as it is without filters.
pub fn on_response(info: &mut StreamInfo, mut body: BodyLength) {
    let seeing = |filter: &HttpFilter| filter.config.sees_responses();
    if !info.manager.filters.iter().any(seeing) {
        return;
    }
    let manager = info.manager.clone();
    let overrides = info.filters.overrides.clone();
    let on_route = |filter| HttpFilter::on_route(filter, overrides.as_deref());
    for (place, filter) in manager.filters.iter().enumerate().rev() {
        let Some((own, of_route)) = on_route(filter) else {
            continue;
        };
        match own {
            FilterConfig::HeaderMutation(own) => {
                header_mutation::apply(own, of_route, HeadSide::Response, info);
            }
            FilterConfig::HeaderToMetadata(own) => {
                header_to_metadata::on_response(own, of_route, info);
            }
            FilterConfig::Cors(_) => cors::on_response(place, info),
            FilterConfig::LocalRateLimit(_) => local_ratelimit::on_response(place, info),
            FilterConfig::StatefulSession(_) => stateful_session::on_response(place, info),
            FilterConfig::HealthCheck(own) => health_check::on_response(own, place, info),
            FilterConfig::Compressor(own) => {
                let all = manager.filters.iter().filter_map(on_route);
                let all = all.filter_map(|(config, _)| match config {
                    FilterConfig::Compressor(own) => Some(&**own),
                    _ => None,
                });
                let filter = compressor::OnRoute::new(own, of_route);
                compressor::on_response(filter, all, place, &mut body, info);
            }
            FilterConfig::Decompressor(own) => decompressor::on_response(own, &mut body, info),
            FilterConfig::Rbac(_)
            | FilterConfig::Fault(_)
            | FilterConfig::Buffer(_)
            | FilterConfig::Csrf(_)
            | FilterConfig::CsrfOfRoute(_)
            | FilterConfig::JwtAuthn(_)
            | FilterConfig::JwtAuthnOfRoute(_)
            | FilterConfig::CompressorOfRoute(_) => {}
        }
    }
}
