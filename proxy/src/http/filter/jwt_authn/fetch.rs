//! Keys that have to be fetched before the tokens of a request can be verified.

use std::sync::Arc;
use std::time::Duration;

use super::check::{NamedProvider, TokenChecks};
use super::locate;
use crate::config::filter::{
    JwtAuthn, JwtProvider, JwtRequirement, KeySource, RequirementKind, TokenLocations,
};
use crate::http::h1::Framing;
use crate::http::request::error::Failure;
use crate::http::request::handle::Exchange;
use crate::http::request::stream_info::StreamInfo;
use crate::jwt::remote::RemoteKeys;
use crate::jwt::{Jwks, JwtStatus};
use crate::message::head::Head;
use crate::worker::Worker;

/// What a request waits for beyond the longest that a fetch may take.
const SLACK: Duration = Duration::from_secs(1);

/// The keys, or why there are none.
type FetchEnd = Result<Arc<Jwks>, JwtStatus>;

/// What became of the fetches that a request has waited for.
#[derive(Default)]
pub struct FetchedKeySets(Vec<FetchedKeySet>);

type FetchedKeySet = (Arc<RemoteKeys>, Result<Arc<Jwks>, JwtStatus>);

impl FetchedKeySets {
    /// `None`: it was not waited for.
    pub fn of(&self, remote: &Arc<RemoteKeys>) -> Option<&FetchEnd> {
        let found = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, remote));
        found.map(|(_, fetched)| fetched)
    }
}

/// Key sets that are not there, or have expired, and that the tokens of a request need.
pub fn missing(
    own: &JwtAuthn,
    requirement: &JwtRequirement,
    info: &StreamInfo,
    worker: &Worker,
) -> Vec<Arc<RemoteKeys>> {
    let mut remote = requirement.remote.iter();
    if !remote.any(|index| {
        own.providers
            .get(*index)
            .is_some_and(|one| stale(one).is_some())
    }) {
        return Vec::new();
    }
    let none = FetchedKeySets::default();
    let checks = TokenChecks {
        counts: false,
        ..TokenChecks::new(own, &worker.jwts, &none)
    };
    let mut missing = Vec::new();
    checks.is_met(&requirement.kind, &info.request, &mut missing);
    missing
}

fn stale(provider: &JwtProvider) -> Option<&Arc<RemoteKeys>> {
    match &provider.keys {
        KeySource::Remote(remote) if remote.fresh().is_none() => Some(remote),
        _ => None,
    }
}

impl<'a> TokenChecks<'a> {
    /// Whether the request has what is required, without keys that are missing; adds those that could
    /// change that. Nothing is changed by it.
    fn is_met(
        &self,
        kind: &'a RequirementKind,
        head: &Head,
        missing: &mut Vec<Arc<RemoteKeys>>,
    ) -> bool {
        match kind {
            RequirementKind::Nothing => true,
            RequirementKind::Provider {
                provider,
                audiences,
            } => {
                let Some(provider) = self.own.providers.get(*provider) else {
                    return false;
                };
                let audiences = audiences.as_ref();
                let named = NamedProvider {
                    provider,
                    audiences,
                };
                self.are_verified(&provider.locations, Some(named), head, missing)
            }
            RequirementKind::Allow(_) => {
                self.are_verified(&self.own.locations, None, head, missing)
            }
            RequirementKind::All(of) => {
                let mut all = of.iter();
                all.all(|kind| {
                    let before = missing.len();
                    self.is_met(kind, head, missing) || missing.len() > before
                })
            }
            RequirementKind::Any { of, .. } => {
                let before = missing.len();
                let is_met = of.iter().any(|kind| self.is_met(kind, head, missing));
                if is_met {
                    missing.truncate(before);
                }
                is_met
            }
        }
    }

    fn are_verified(
        &self,
        locations: &TokenLocations,
        named: Option<NamedProvider<'a>>,
        head: &Head,
        missing: &mut Vec<Arc<RemoteKeys>>,
    ) -> bool {
        let found = locate::tokens(locations, head);
        let mut are_verified = !found.is_empty();
        for token in &found {
            let Err(refusal) = self.check(token, named) else {
                continue;
            };
            are_verified = false;
            let remote = refusal.provider.and_then(stale);
            if refusal.status == JwtStatus::FetchFailed
                && let Some(remote) = remote
                && !missing.iter().any(|known| Arc::ptr_eq(known, remote))
            {
                missing.push(remote.clone());
            }
        }
        are_verified
    }
}

impl Exchange<'_, '_> {
    /// Waits for key sets, which are fetched at once.
    ///
    /// # Errors
    /// When the request must end before that.
    pub(in crate::http::filter) async fn fetch_keys(
        &mut self,
        missing: Vec<Arc<RemoteKeys>>,
        framing: &Framing,
    ) -> Result<FetchedKeySets, Failure> {
        let longest = missing.iter().map(|remote| remote.settings.longest()).max();
        let longest = longest.unwrap_or_default().saturating_add(SLACK);
        let each = missing.iter().map(|remote| remote.fetched());
        let timers = self.conn.worker.timers.clone();
        let fetching = timers.timeout(longest, futures_util::future::join_all(each));
        let fetched = self.await_for(fetching, framing).await?;
        let failed = || {
            missing
                .iter()
                .map(|_| Err(JwtStatus::FetchFailed))
                .collect()
        };
        let fetched = fetched.unwrap_or_else(|_| failed());
        Ok(FetchedKeySets(missing.into_iter().zip(fetched).collect()))
    }
}
