//! A request's path and authority: made one value each, which routes, policies, logs and the app
//! see; and names of headers that are not to be seen. `explain` calls the same functions.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::config::http::{HttpConnectionManager, StripPort, UnderscoresInNames};
use crate::http::h1::TunnelRequest;
use crate::message::authority::{self, AuthorityOptions, Memo, PortRule};
use crate::message::fault::Fault;
use crate::message::head::{FieldRef, Head, HeaderId, Method, TargetForm};
use crate::message::path::{self, PathOutcome};

/// Drops or refuses headers whose names have an underscore, and normalises the path in place. `local`: the client's destination address, which is the authority of
/// a request that names none. `Some`: redirect there.
///
/// # Errors
/// When the target is refused.
pub fn normalise(
    head: &mut Head,
    manager: &HttpConnectionManager,
    local: SocketAddr,
    tunnel: TunnelRequest,
) -> Result<Option<Vec<u8>>, Fault> {
    underscores(head, manager.underscores)?;
    // Only HTTP/1.0 allows a request without a host.
    if head.authority().is_empty() {
        head.set_authority(local.to_string().as_bytes());
    }
    match path::normalise(head, &manager.path)? {
        PathOutcome::Forward => {}
        PathOutcome::Redirect => return Ok(Some(head.path_and_query().to_vec())),
    }
    if tunnel == TunnelRequest::None && head.form() == TargetForm::Authority {
        return Err(Fault::InvalidTarget);
    }
    Ok(None)
}

fn underscores(head: &mut Head, action: UnderscoresInNames) -> Result<(), Fault> {
    // No name that is known has one.
    if action == UnderscoresInNames::Allow || !head.has(HeaderId::Other) {
        return Ok(());
    }
    let has_one = |field: FieldRef<'_>| memchr::memchr(b'_', field.name).is_some();
    if !head.iter().any(has_one) {
        return Ok(());
    }
    match action {
        UnderscoresInNames::Reject => Err(Fault::UnderscoreInName),
        UnderscoresInNames::Drop | UnderscoresInNames::Allow => {
            head.retain(|field| !has_one(field));
            Ok(())
        }
    }
}

/// The authority by which virtual hosts are chosen. What configuration strips of it is stripped of
/// `head`, too.
///
/// # Errors
/// When it is no authority.
pub fn authority(
    head: &mut Head,
    manager: &HttpConnectionManager,
    local: SocketAddr,
    memo: &mut Memo,
) -> Result<Rc<str>, Fault> {
    let strip_port = match manager.strip_port {
        StripPort::Keep => PortRule::Keep,
        StripPort::Matching => PortRule::Matching(local.port()),
        StripPort::Any => PortRule::Any,
    };
    let options = AuthorityOptions {
        strip_port,
        strip_trailing_dot: manager.strip_trailing_host_dot,
    };
    let name = memo.canonical(head.authority(), options)?;
    // As Envoy, which forwards what it matched. The authority of CONNECT is the
    // address to connect to.
    if head.method() != Method::Connect
        && let Some(stripped) = authority::stripped(head.authority(), options)
    {
        head.set_authority(&stripped);
    }
    Ok(name)
}
