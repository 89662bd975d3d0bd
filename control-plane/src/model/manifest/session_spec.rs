//! Session persistence of routes as Gateway API writes it (GEP-1619), into [`super::route`].

use serde::Deserialize;

use super::object::FieldError;
use super::route::{Backend, SessionCarrier, SessionPersistence};
use super::values::{HeaderName, Span};

/// Gateway API's bound.
const MAX_NAME: usize = 128;
/// Headers that frame or route a message.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "cookie",
    "host",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// `sessionPersistence` of a rule.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSpec {
    #[serde(default)]
    session_name: Option<HeaderName>,
    #[serde(default)]
    absolute_timeout: Option<Span>,
    #[serde(default)]
    idle_timeout: Option<Span>,
    #[serde(default, rename = "type")]
    kind: SessionKind,
    #[serde(default)]
    cookie_config: CookieConfig,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
enum SessionKind {
    #[default]
    Cookie,
    Header,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CookieConfig {
    #[serde(default)]
    lifetime_type: Option<Lifetime>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
enum Lifetime {
    Session,
    Permanent,
}

impl SessionSpec {
    /// `backends`: of the rule.
    pub fn read(
        self,
        at: &str,
        backends: &[Backend],
        errors: &mut Vec<FieldError>,
    ) -> SessionPersistence {
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::new(format!("{at}{field}"), message));
        };
        if backends.iter().filter(|backend| backend.weight > 0).count() > 1 {
            wrong(
                "",
                "is not supported where a rule has several backends: each request is assigned anew by weight",
            );
        }
        if self.idle_timeout.is_some() {
            wrong(".idleTimeout", "is not supported");
        }
        let name = self.session_name.map(|name| name.0);
        if name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
            wrong(".sessionName", "may have 128 characters at most");
        }
        let is_permanent = self.cookie_config.lifetime_type == Some(Lifetime::Permanent);
        let carrier = match self.kind {
            SessionKind::Header => {
                if self.cookie_config.lifetime_type.is_some() {
                    wrong(".cookieConfig", "is only for type Cookie");
                }
                if self.absolute_timeout.is_some() {
                    wrong(".absoluteTimeout", "is not supported for type Header");
                }
                let lower = name.as_deref().map(str::to_ascii_lowercase);
                if lower.is_some_and(|name| FRAMING.contains(&&*name)) {
                    wrong(".sessionName", "is a header that cannot carry a session");
                }
                SessionCarrier::Header
            }
            SessionKind::Cookie => {
                match (is_permanent, self.absolute_timeout) {
                    (true, None) => wrong(
                        ".cookieConfig.lifetimeType",
                        "Permanent needs an absoluteTimeout",
                    ),
                    (false, Some(_)) => wrong(
                        ".absoluteTimeout",
                        "is only supported with cookieConfig.lifetimeType: Permanent",
                    ),
                    _ => {}
                }
                let lasts = self.absolute_timeout.filter(|_| is_permanent);
                SessionCarrier::Cookie {
                    lasts: lasts.map(|span| span.0),
                }
            }
        };
        SessionPersistence { name, carrier }
    }
}
