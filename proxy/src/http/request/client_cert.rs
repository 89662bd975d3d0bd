//! `x-forwarded-client-cert`: the client's certificate, forwarded to the app. Source: Envoy's
//! documentation of the header.

use std::cell::RefCell;
use std::sync::Arc;

use super::headers::{Sender, append_to_list};
use crate::config::http::{ForwardClientCert, HttpConnectionManager};
use crate::message::head::{Head, HeaderId};
use crate::tls::{ConnectionInfo, Identity, Rotating};

/// The element that this hop adds, formatted once per connection, and its inputs.
#[derive(Default)]
pub struct Element(RefCell<Option<Box<Spelled>>>);

struct Spelled {
    own: Option<Arc<Identity>>,
    uri: bool,
    text: Box<str>,
}

/// Removes, forwards or extends the client's header, as `manager` is configured.
pub fn forward(head: &mut Head, manager: &HttpConnectionManager, sender: &Sender<'_>) {
    use ForwardClientCert as F;
    let mode = manager.forward_client_cert;
    let tls = sender.tls.filter(|tls| tls.peer_verified);
    let Some(tls) = tls.filter(|_| mode != F::Sanitize) else {
        if mode != F::AlwaysForwardOnly {
            head.remove(HeaderId::XForwardedClientCert);
        }
        return;
    };
    if matches!(mode, F::ForwardOnly | F::AlwaysForwardOnly) {
        return;
    }
    let own = sender.chain.tls.as_ref();
    let own = own.map(|context| &*context.options().identity);
    let element = sender.client_cert;
    element.with(own, manager.client_cert_uri, tls, |element| match mode {
        F::AppendForward => append_to_list(head, HeaderId::XForwardedClientCert, element),
        _ => head.set(HeaderId::XForwardedClientCert, element),
    });
}

impl Element {
    /// Calls `then` with the element. `own`: our identity; `uri`: whether the client's URI SAN is
    /// included.
    fn with(
        &self,
        own: Option<&Rotating<Identity>>,
        uri: bool,
        tls: &ConnectionInfo,
        then: impl FnOnce(&[u8]),
    ) {
        let holds = |known: &Spelled| match (&known.own, own) {
            (Some(known), Some(live)) => live.is_current(known),
            (None, own) => own.is_none(),
            (Some(_), None) => false,
        };
        let mut spelled = self.0.borrow_mut();
        let known = spelled.take();
        let known = known.filter(|known| known.uri == uri && holds(known));
        let known = known.unwrap_or_else(|| {
            let own = own.and_then(Rotating::load);
            let text = spell(own.as_deref(), uri, tls);
            Box::new(Spelled { own, uri, text })
        });
        then(spelled.insert(known).text.as_bytes());
    }
}

/// `By`, `Hash` and `URI`, as Envoy writes them.
fn spell(own: Option<&Identity>, uri: bool, tls: &ConnectionInfo) -> Box<str> {
    let own = own.and_then(Identity::spiffe_id);
    let certificate = tls.peer_certificate.as_ref();
    let parts = [
        ("By", own.map(|id| id.as_str())),
        ("Hash", certificate.map(|shown| shown.fingerprint())),
        (
            "URI",
            tls.peer.as_ref().filter(|_| uri).map(|peer| peer.as_str()),
        ),
    ];
    let mut element = String::new();
    for (key, value) in parts {
        let Some(value) = value else { continue };
        element.push_str(if element.is_empty() { "" } else { ";" });
        element.push_str(key);
        element.push('=');
        element.push_str(value);
    }
    element.into()
}
