//! How calls choose endpoints: fields of BackendPolicy.

use schemars::JsonSchema;
use serde::Deserialize;

use super::object::FieldError;
use super::schema;
use super::values::{HeaderName, Span};

/// Entries of `hashOn`.
pub const MAX_HASH_RULES: usize = 8;
/// Characters of a cookie's path, and of a query parameter's name.
const MAX_TEXT: usize = 256;

/// Policy by which calls are spread over endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
pub enum LoadBalancer {
    LeastRequest,
    RoundRobin,
    Random,
    /// By hash: calls with the same `hashOn` go to the same endpoint. Few of them move when endpoints
    /// come and go.
    RingHash,
    /// As RingHash, more evenly spread, with a larger table; more calls move.
    Maglev,
}

impl LoadBalancer {
    pub fn hashes(self) -> bool {
        matches!(self, LoadBalancer::RingHash | LoadBalancer::Maglev)
    }
}

/// What is hashed of a call: exactly one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::rule(
    "[has(self.header), has(self.cookie), has(self.queryParameter), has(self.sourceIP)]\
        .filter(given, given).size() == 1",
    "must have exactly one setting",
)))]
pub struct HashOn {
    /// The values of a request header.
    #[serde(default)]
    pub header: Option<HeaderName>,
    /// A cookie, which is made for clients that have none.
    #[serde(default)]
    pub cookie: Option<HashCookie>,
    /// The value of a parameter in the query.
    #[serde(default)]
    #[schemars(length(min = 1, max = MAX_TEXT))]
    pub query_parameter: Option<String>,
    /// The caller's address.
    #[serde(default, rename = "sourceIP")]
    pub source_ip: Option<SourceIp>,
}

/// No settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceIp {}

/// A cookie to hash by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashCookie {
    /// Of the cookie.
    pub name: HeaderName,
    /// For how long clients keep it. Default: until they end.
    #[serde(default)]
    pub ttl: Option<Span>,
    /// Default: the directory of the request's path.
    #[serde(default)]
    #[schemars(regex(pattern = r"^/[!-:<-~]{0,255}$"))]
    pub path: Option<String>,
}

impl HashOn {
    fn check(&self, at: &str, errors: &mut Vec<FieldError>) {
        let given = [
            self.header.is_some(),
            self.cookie.is_some(),
            self.query_parameter.is_some(),
            self.source_ip.is_some(),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            errors.push(FieldError::new(at, "must have exactly one setting"));
        }
        let parameter = self.query_parameter.as_deref();
        if parameter.is_some_and(|name| !(1..=MAX_TEXT).contains(&name.chars().count())) {
            let message = format!("must have between 1 and {MAX_TEXT} characters");
            errors.push(FieldError::new(format!("{at}.queryParameter"), message));
        }
        let path = self
            .cookie
            .as_ref()
            .and_then(|cookie| cookie.path.as_deref());
        if path.is_some_and(|path| !is_cookie_path(path)) {
            let message = "is no path of a cookie: a slash, then visible characters without `;`";
            errors.push(FieldError::new(format!("{at}.cookie.path"), message));
        }
    }
}

/// Whether a cookie may have this path.
pub fn is_cookie_path(path: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    path.starts_with('/') && path.len() <= MAX_TEXT && path.bytes().all(fits)
}

/// Checks `hashOn` beside `loadBalancer`.
pub(super) fn check(
    balancer: Option<LoadBalancer>,
    hash_on: &[HashOn],
    errors: &mut Vec<FieldError>,
) {
    if hash_on.len() > MAX_HASH_RULES {
        let message = format!("may have {MAX_HASH_RULES} entries at most");
        errors.push(FieldError::new("spec.hashOn", message));
    }
    if !hash_on.is_empty() && !balancer.is_some_and(LoadBalancer::hashes) {
        let message = "needs loadBalancer: RingHash or Maglev";
        errors.push(FieldError::new("spec.hashOn", message));
    }
    for (index, rule) in hash_on.iter().enumerate() {
        rule.check(&format!("spec.hashOn[{index}]"), errors);
    }
}
