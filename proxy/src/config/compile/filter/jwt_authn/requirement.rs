//! Requirements: trees of providers.

use xds_proto::envoy::extensions::filters::http::jwt_authn::v3 as pb;

use crate::config::compile::support::{At, CompileError, each};
use crate::config::filter::{
    Allowance, Audiences, JwtProvider, JwtRequirement, KeySource, RequirementKind,
};

/// Nesting of any and all.
const MAX_DEPTH: u32 = 32;

/// The providers, sorted by name.
#[derive(Clone, Copy)]
pub struct Providers<'a>(pub &'a [JwtProvider]);

impl Providers<'_> {
    fn find(self, at: At<'_>, name: &str) -> Result<usize, CompileError> {
        self.0
            .binary_search_by(|known| (*known.name).cmp(name))
            .or_else(|_| at.fail(format_args!("`{name}` is not a provider")))
    }

    fn is_remote(self, index: usize) -> bool {
        let provider = self.0.get(index);
        provider.is_some_and(|provider| matches!(provider.keys, KeySource::Remote(_)))
    }
}

pub fn requirement(
    at: At<'_>,
    m: &pb::JwtRequirement,
    providers: Providers<'_>,
) -> Result<JwtRequirement, CompileError> {
    let kind = kind(at, m, providers, 0)?;
    let mut remote = Vec::new();
    remote_of(&kind, providers, &mut remote);
    Ok(JwtRequirement { kind, remote })
}

fn remote_of(kind: &RequirementKind, providers: Providers<'_>, remote: &mut Vec<usize>) {
    let mut add = |index: usize| {
        if providers.is_remote(index) && !remote.contains(&index) {
            remote.push(index);
        }
    };
    match kind {
        RequirementKind::Nothing => {}
        RequirementKind::Provider { provider, .. } => add(*provider),
        RequirementKind::Allow(_) => (0..providers.0.len()).for_each(add),
        RequirementKind::Any { of, .. } | RequirementKind::All(of) => {
            of.iter()
                .for_each(|kind| remote_of(kind, providers, remote));
        }
    }
}

fn kind(
    at: At<'_>,
    m: &pb::JwtRequirement,
    providers: Providers<'_>,
    depth: u32,
) -> Result<RequirementKind, CompileError> {
    use pb::jwt_requirement::RequiresType as Kind;
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let pb::JwtRequirement { requires_type } = m;
    Ok(match requires_type {
        None => RequirementKind::Nothing,
        Some(Kind::ProviderName(name)) => RequirementKind::Provider {
            provider: providers.find(at.field("provider_name"), name)?,
            audiences: None,
        },
        Some(Kind::ProviderAndAudiences(m)) => {
            let at = at.field("provider_and_audiences");
            let pb::ProviderWithAudiences {
                provider_name,
                audiences,
            } = m;
            let own = Audiences::new(audiences.iter().map(String::as_str));
            RequirementKind::Provider {
                provider: providers.find(at.field("provider_name"), provider_name)?,
                audiences: (!audiences.is_empty()).then_some(own),
            }
        }
        Some(Kind::RequiresAny(m)) => {
            let at = at.field("requires_any");
            let pb::JwtRequirementOrList { requirements } = m;
            any(several(at, requirements, providers, depth)?)
        }
        Some(Kind::RequiresAll(m)) => {
            let at = at.field("requires_all");
            let pb::JwtRequirementAndList { requirements } = m;
            RequirementKind::All(several(at, requirements, providers, depth)?)
        }
        Some(Kind::AllowMissing(_)) => RequirementKind::Allow(Allowance::Missing),
        Some(Kind::AllowMissingOrFailed(_)) => RequirementKind::Allow(Allowance::MissingOrFailed),
        Some(Kind::ExtractOnlyWithoutValidation(_)) => {
            return at
                .field("extract_only_without_validation")
                .fail("is not supported by this proxy");
        }
    })
}

fn several(
    at: At<'_>,
    list: &[pb::JwtRequirement],
    providers: Providers<'_>,
    depth: u32,
) -> Result<Vec<RequirementKind>, CompileError> {
    if list.len() < 2 {
        return at.field("requirements").fail("must be two or more");
    }
    each(at, "requirements", list, |at, m| {
        kind(at, m, providers, depth + 1)
    })
}

/// What is allowed besides the tokens of some, holds when none of these is there or right.
fn any(of: Vec<RequirementKind>) -> RequirementKind {
    let mut allow = None;
    let mut rest = Vec::new();
    for kind in of {
        match kind {
            RequirementKind::Allow(Allowance::Missing) => {
                allow = allow.or(Some(Allowance::Missing));
            }
            RequirementKind::Allow(more) => allow = Some(more),
            kind => rest.push(kind),
        }
    }
    match (rest.is_empty(), allow) {
        (true, Some(allow)) => RequirementKind::Allow(allow),
        _ => RequirementKind::Any { of: rest, allow },
    }
}
