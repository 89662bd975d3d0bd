//! The stateful session filter.

use std::sync::Arc;

use xds_proto::envoy::extensions::filters::http::stateful_session::v3 as pb;
use xds_proto::envoy::extensions::http::stateful_session as states;
use xds_proto::envoy::r#type::http::v3 as kind;
use xds_proto::google::protobuf::Any;

use crate::config::compile::headers::editable;
use crate::config::compile::route::hash::set_cookie;
use crate::config::compile::support::{
    At, CompileError, decode, duration, ignored, required, type_name, unknown_type,
};
use crate::config::compile::values::extension;
use crate::config::filter::{
    FilterConfig, FilterOverride, SessionCookie, SessionState, StatefulSession,
};

pub fn filter(at: At<'_>, m: &pb::StatefulSession) -> Result<FilterConfig, CompileError> {
    let pb::StatefulSession {
        session_state,
        strict,
        stat_prefix,
        status_on_strict_destination_not_found,
    } = m;
    ignored!("statistics are kept by edge", stat_prefix);
    let status = match u16::try_from(*status_on_strict_destination_not_found) {
        Ok(0) => 503,
        Ok(status @ 200..=599) => status,
        _ => {
            return at
                .field("status_on_strict_destination_not_found")
                .fail("is not between 200 and 599");
        }
    };
    let Some(config) = session_state else {
        return Ok(FilterConfig::StatefulSession(None));
    };
    let strict = strict.then_some(status);
    let at = at.field("session_state");
    let state = state(at, extension(at, config)?)?;
    let session = StatefulSession { state, strict };
    Ok(FilterConfig::StatefulSession(Some(Arc::new(session))))
}

pub fn per_route(
    at: At<'_>,
    m: &pb::StatefulSessionPerRoute,
) -> Result<FilterOverride, CompileError> {
    use pb::stateful_session_per_route::Override;
    let pb::StatefulSessionPerRoute { r#override } = m;
    match required!(at, r#override) {
        Override::Disabled(true) => Ok(FilterOverride::Disabled),
        Override::Disabled(false) => at.field("disabled").fail("must be true"),
        Override::StatefulSession(m) => {
            filter(at.field("stateful_session"), m).map(FilterOverride::Config)
        }
    }
}

fn state(at: At<'_>, any: &Any) -> Result<SessionState, CompileError> {
    let inner = at.field("typed_config");
    match type_name(any) {
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState" => {
            let m: states::cookie::v3::CookieBasedSessionState = decode(inner, any)?;
            let states::cookie::v3::CookieBasedSessionState { cookie } = &m;
            let cookie = required!(inner, cookie);
            session_cookie(inner.field("cookie"), cookie).map(SessionState::Cookie)
        }
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState" => {
            let m: states::header::v3::HeaderBasedSessionState = decode(inner, any)?;
            let states::header::v3::HeaderBasedSessionState { name } = &m;
            editable(inner.field("name"), name).map(SessionState::Header)
        }
        _ => unknown_type(at, any),
    }
}

fn session_cookie(at: At<'_>, m: &kind::Cookie) -> Result<SessionCookie, CompileError> {
    let kind::Cookie {
        name,
        ttl,
        path,
        attributes,
    } = m;
    let attributes: Vec<_> = attributes
        .iter()
        .map(|kind::CookieAttribute { name, value }| (&**name, &**value))
        .collect();
    let ttl = duration(at.field("ttl"), ttl)?.unwrap_or_default();
    Ok(SessionCookie {
        set: set_cookie(at, name, ttl, path, &attributes)?,
        name: name.as_str().into(),
        path: path.as_str().into(),
        ttl: ttl.as_secs(),
    })
}
