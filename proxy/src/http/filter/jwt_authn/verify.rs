//! Whether a request has the tokens that are required.

use std::sync::LazyLock;

use smallvec::SmallVec;

use super::check::{CheckedToken, NamedProvider, TokenChecks, TokenRefusal};
use super::fetch::FetchedKeySets;
use super::locate::TokenPlace;
use super::{forward, locate, refuse, refuse_claim};
use crate::config::Name;
use crate::config::filter::{
    Allowance, JwtAuthn, JwtProvider, JwtRequirement, RequirementKind, TokenLocations,
};
use crate::http::request::local_reply::Reply;
use crate::http::request::stream_info::{RouteChoice, StreamInfo};
use crate::jwt::JwtStatus;
use crate::matcher::HeaderName;
use crate::message::head::Heads;
use crate::metadata::{Object, Value};
use crate::worker::Worker;

/// The namespace of the metadata, whatever the filter is called.
static NAMESPACE: LazyLock<Name> = LazyLock::new(|| "envoy.filters.http.jwt_authn".into());

/// Verifies the tokens of a request. `Some`: it does not have those required, and is refused.
pub fn verify(
    own: &JwtAuthn,
    requirement: &JwtRequirement,
    fetched: &FetchedKeySets,
    info: &mut StreamInfo,
    worker: &Worker,
) -> Option<Reply> {
    let mut verification = Verification {
        checks: TokenChecks::new(own, &worker.jwts, fetched),
        info,
        heads: &worker.heads,
        metadata: Object::new(),
        clears_route: false,
        unusable: None,
        path: None,
    };
    let verified = verification.requirement(&requirement.kind);
    let Verification {
        info,
        metadata,
        clears_route,
        unusable,
        path,
        ..
    } = verification;
    if !metadata.is_empty() {
        info.filters.set_metadata(&NAMESPACE, &metadata);
    }
    if let Err(status) = verified {
        return Some(refuse(own, status, path.as_deref(), info));
    }
    if let Some(header) = unusable {
        return Some(refuse_claim(own, &header.name, info));
    }
    own.metrics.allowed.inc();
    if clears_route {
        info.route_choice = RouteChoice::Cleared;
    }
    None
}

/// A request whose tokens are being verified.
pub struct Verification<'a, 'i> {
    checks: TokenChecks<'a>,
    pub(super) info: &'i mut StreamInfo,
    pub(super) heads: &'a Heads,
    /// What tokens leave there, and refusals.
    pub(super) metadata: Object,
    /// The route is to be chosen again.
    pub(super) clears_route: bool,
    /// A header whose claim it cannot have.
    pub(super) unusable: Option<&'a HeaderName>,
    /// Path and query as they came, where a token was taken out of them.
    pub(super) path: Option<Vec<u8>>,
}

impl<'a> Verification<'a, '_> {
    fn requirement(&mut self, kind: &'a RequirementKind) -> Result<(), JwtStatus> {
        match kind {
            RequirementKind::Nothing => Ok(()),
            RequirementKind::Provider {
                provider,
                audiences,
            } => {
                let provider = self.checks.own.providers.get(*provider);
                let provider = provider.ok_or(JwtStatus::UnknownIssuer)?;
                let audiences = audiences.as_ref();
                self.by_provider(NamedProvider {
                    provider,
                    audiences,
                })
            }
            RequirementKind::All(of) => of.iter().try_for_each(|kind| self.requirement(kind)),
            RequirementKind::Any { of, allow } => self.any(of, *allow),
            RequirementKind::Allow(allow) => self.allowed(*allow),
        }
    }

    fn any(
        &mut self,
        of: &'a [RequirementKind],
        allow: Option<Allowance>,
    ) -> Result<(), JwtStatus> {
        let mut last = JwtStatus::Missing;
        for kind in of {
            let Err(status) = self.requirement(kind) else {
                return Ok(());
            };
            // The clearest of the reasons: that there is none, or none of the issuer, are not.
            let is_vague = matches!(status, JwtStatus::Missing | JwtStatus::UnknownIssuer);
            if !is_vague || last == JwtStatus::Missing {
                last = status;
            }
        }
        match (allow, last) {
            (Some(Allowance::MissingOrFailed), _)
            | (Some(Allowance::Missing), JwtStatus::Missing) => Ok(()),
            (_, status) => Err(status),
        }
    }

    /// All tokens where the provider looks for its own must be its own, and there must be one.
    fn by_provider(&mut self, named: NamedProvider<'a>) -> Result<(), JwtStatus> {
        let provider = named.provider;
        forward::sanitise(provider, self.info, self.heads);
        let Outcome { passed, refused } = self.check(&provider.locations, Some(named));
        for (token, place) in passed {
            self.pass(token, place);
        }
        match refused {
            None => Ok(()),
            Some(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// Tokens of any provider. Those that are right are passed on; one that is not is refused, whatever the
    /// others are, unless failed ones are allowed.
    fn allowed(&mut self, allow: Allowance) -> Result<(), JwtStatus> {
        super::sanitise(self.checks.own, self.info, self.heads);
        let Outcome { passed, refused } = self.check(&self.checks.own.locations, None);
        for (token, place) in passed {
            self.pass(token, place);
        }
        let Some(refusal) = refused else {
            return Ok(());
        };
        let status = self.refused(&refusal);
        match allow {
            Allowance::MissingOrFailed => Ok(()),
            Allowance::Missing if status == JwtStatus::Missing => Ok(()),
            Allowance::Missing => Err(status),
        }
    }

    /// The tokens of the request, from the last to the first: up to the first that is refused, where
    /// `named` is the provider for all of them.
    fn check(
        &self,
        locations: &'a TokenLocations,
        named: Option<NamedProvider<'a>>,
    ) -> Outcome<'a> {
        let found = locate::tokens(locations, &self.info.request);
        let mut outcome = Outcome::default();
        if found.is_empty() {
            outcome.refused = Some(TokenRefusal {
                status: JwtStatus::Missing,
                provider: None,
            });
        }
        for token in found.iter().rev() {
            match self.checks.check(token, named) {
                Ok(checked) => outcome.passed.push((checked, token.place)),
                Err(refusal) => {
                    outcome.refused = Some(refusal);
                    if named.is_some() {
                        break;
                    }
                }
            }
        }
        outcome
    }

    /// Notes why a token was refused in the metadata, where that is configured.
    fn refused(&mut self, refusal: &TokenRefusal<'a>) -> JwtStatus {
        let status = refusal.status;
        let only: Option<&JwtProvider> = match self.checks.own.providers.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let provider = refusal.provider.or(only);
        if let Some(key) = provider.and_then(|provider| provider.failure_metadata.as_ref()) {
            let fields = Object::from([
                ("code".into(), Value::Number(status.code().into())),
                ("message".into(), Value::String(status.message().into())),
            ]);
            let fields = Value::Object(std::sync::Arc::new(fields));
            self.metadata.insert(key.clone(), fields);
        }
        status
    }
}

/// What was found of the tokens in a request.
#[derive(Default)]
struct Outcome<'a> {
    passed: SmallVec<[(CheckedToken<'a>, TokenPlace<'a>); 1]>,
    refused: Option<TokenRefusal<'a>>,
}
