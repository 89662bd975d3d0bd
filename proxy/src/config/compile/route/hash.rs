//! Hash policies.

use std::sync::Arc;

use xds_proto::envoy::config::route::v3::route_action as pb;

use super::rewrite::substitution;
use crate::config::compile::matcher::header_name;
use crate::config::compile::support::{At, CompileError, duration, ignored, required};
use crate::config::hash::{HashCookie, HashInput, HashPolicy, HashRule, HeaderRewrite, SetCookie};

/// `hash_policy`; `None`: there is none.
pub fn hash_policy(
    at: At<'_>,
    rules: &[pb::HashPolicy],
) -> Result<Option<Arc<HashPolicy>>, CompileError> {
    let mut compiled = Vec::new();
    for (index, m) in rules.iter().enumerate() {
        let at = at.index("hash_policy", index);
        let pb::HashPolicy {
            terminal,
            policy_specifier,
        } = m;
        if let Some(by) = input(at, required!(at, policy_specifier))? {
            let terminal = *terminal;
            compiled.push(HashRule { by, terminal });
        }
    }
    Ok((!compiled.is_empty()).then(|| Arc::new(HashPolicy(compiled))))
}

/// `None`: it never gives a hash.
fn input(
    at: At<'_>,
    specifier: &pb::hash_policy::PolicySpecifier,
) -> Result<Option<HashInput>, CompileError> {
    use pb::hash_policy::{ConnectionProperties, FilterState, PolicySpecifier, QueryParameter};
    Ok(match specifier {
        PolicySpecifier::Header(m) => Some(header(at.field("header"), m)?),
        PolicySpecifier::Cookie(m) => Some(HashInput::Cookie(cookie(at.field("cookie"), m)?)),
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip }) => {
            source_ip.then_some(HashInput::SourceIp)
        }
        PolicySpecifier::QueryParameter(QueryParameter { name }) => {
            let at = at.field("query_parameter");
            if name.is_empty() {
                return at.field("name").fail("is required");
            }
            Some(HashInput::QueryParameter(name.as_str().into()))
        }
        PolicySpecifier::FilterState(FilterState { key }) => {
            ignored!(
                "no filter here sets filter state, so that it never gives a hash",
                key
            );
            None
        }
    })
}

fn header(at: At<'_>, m: &pb::hash_policy::Header) -> Result<HashInput, CompileError> {
    let pb::hash_policy::Header {
        header_name: name,
        regex_rewrite,
    } = m;
    let rewrite = match regex_rewrite {
        Some(m) => {
            let (pattern, substitution) = substitution(at.field("regex_rewrite"), m)?;
            Some(HeaderRewrite {
                pattern,
                substitution,
            })
        }
        None => None,
    };
    Ok(HashInput::Header {
        name: header_name(at.field("header_name"), name)?,
        rewrite,
    })
}

fn cookie(at: At<'_>, m: &pb::hash_policy::Cookie) -> Result<HashCookie, CompileError> {
    let pb::hash_policy::Cookie {
        name,
        ttl,
        path,
        attributes,
    } = m;
    let attributes: Vec<_> = attributes
        .iter()
        .map(|pb::hash_policy::CookieAttribute { name, value }| (&**name, &**value))
        .collect();
    let made = match duration(at.field("ttl"), ttl)? {
        Some(ttl) => Some(set_cookie(at, name, ttl, path, &attributes)?),
        None => None,
    };
    if name.is_empty() {
        return at.field("name").fail("is required");
    }
    Ok(HashCookie {
        name: name.as_str().into(),
        made,
    })
}

/// A cookie to be made. Nothing in it may end its header or one of its attributes.
pub fn set_cookie(
    at: At<'_>,
    name: &str,
    ttl: std::time::Duration,
    path: &str,
    attributes: &[(&str, &str)],
) -> Result<SetCookie, CompileError> {
    let token = |text: &str| {
        let allowed = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&b);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let value = |text: &str| text.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b';');
    if !token(name) {
        return at.field("name").fail("is not the name of a cookie");
    }
    if !value(path) {
        return at
            .field("path")
            .fail("has characters that no cookie's path may have");
    }
    if let Some((name, _)) = attributes.iter().find(|(n, v)| !token(n) || !value(v)) {
        return at
            .field("attributes")
            .fail(format_args!("`{name}` is not a cookie's attribute"));
    }
    let attributes = attributes.iter().copied();
    Ok(SetCookie::new(name, ttl.as_secs(), path, attributes))
}
