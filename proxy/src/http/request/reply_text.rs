//! What a response to a failure says to people.
//!
//! A proxy that runs another control plane's configuration says what Envoy says, to the byte. Our own
//! control plane's listeners ask for sentences that name the reason and who declared the port
//! (`anyam: {local_replies: reasons}` in their metadata).

use std::borrow::Cow;

use super::error::Failure;
use crate::message::fault::Fault;

/// Envoy's text for a failure; empty where Envoy's response has no body. `retried`: it is not that of
/// the first attempt.
pub fn of_envoy(failure: &Failure, retried: bool) -> Cow<'static, str> {
    match failure {
        Failure::NoRoute | Failure::NoCluster(_) | Failure::UpgradeRefused => "".into(),
        Failure::ClientGone | Failure::ClientReset => "".into(),
        Failure::BadRequest(fault) => bad_request(*fault).into(),
        Failure::RequestTimeout(late) => late.text().into(),
        Failure::TooLarge => "Payload Too Large".into(),
        Failure::Idle { .. } => "stream timeout".into(),
        Failure::StreamDuration { .. } => "downstream duration timeout".into(),
        Failure::Denied(_) => "RBAC: access denied".into(),
        Failure::Overloaded => "envoy overloaded".into(),
        Failure::Unsupported(what) => (*what).into(),
        Failure::NoEndpoint | Failure::SessionEndpointGone(_) => "no healthy upstream".into(),
        Failure::ResponseTimeout | Failure::PerTryTimeout => "upstream request timeout".into(),
        Failure::Overflow(_) => reset("overflow", retried),
        Failure::Connect(_) => reset("remote connection failure", retried),
        Failure::ConnectTimeout => reset("connection timeout", retried),
        Failure::Terminated => reset("connection termination", retried),
        Failure::Reset { .. } => reset("remote reset", retried),
        Failure::Refused => reset("remote refused stream reset", retried),
        Failure::BadResponse(_) | Failure::Protocol(_) => reset("protocol error", retried),
    }
}

fn reset(reason: &str, retried: bool) -> Cow<'static, str> {
    let retried = match retried {
        true => "retried and the latest ",
        false => "",
    };
    format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {reason}"
    )
    .into()
}

/// What Envoy's codec refuses gets the reason phrase; what its connection manager refuses, nothing.
fn bad_request(fault: Fault) -> &'static str {
    if fault.is_of_manager() {
        return "";
    }
    let status = http::StatusCode::from_u16(fault.request_status()).ok();
    status
        .and_then(|status| status.canonical_reason())
        .unwrap_or("")
}
