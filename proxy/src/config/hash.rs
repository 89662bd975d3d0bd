//! How requests are hashed for balancing, and the cookies that are made for it.

use crate::matcher::HeaderName;

/// envoy.config.route.v3.RouteAction.HashPolicy, all of a route.
pub struct HashPolicy(pub Vec<HashRule>);

pub struct HashRule {
    pub by: HashInput,
    /// Where it gives a hash, the rules after it are not evaluated.
    pub terminal: bool,
}

/// What is hashed. What is absent gives no hash.
pub enum HashInput {
    /// All values of the header, sorted.
    Header {
        name: HeaderName,
        rewrite: Option<HeaderRewrite>,
    },
    Cookie(HashCookie),
    /// The client's address, without its port.
    SourceIp,
    /// The first value of the parameter.
    QueryParameter(Box<str>),
}

/// What of a header's value is hashed: every match is replaced.
pub struct HeaderRewrite {
    pub pattern: Box<regex::bytes::Regex>,
    /// In the regex crate's syntax (`${1}`).
    pub substitution: Box<str>,
}

pub struct HashCookie {
    pub name: Box<str>,
    /// The cookie that a client without one is given; `None`: it is not.
    pub made: Option<SetCookie>,
}

/// A `set-cookie` header without the cookie's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    /// The name, `=` and a quote.
    before: Box<str>,
    /// A quote, and the attributes.
    after: Box<str>,
}

impl SetCookie {
    /// In the form that Envoy gives it. `seconds`: `Max-Age`, left out where 0; `path`: left out
    /// where empty; `attributes`: further ones, whose value may be empty.
    pub fn new<'a>(
        name: &str,
        seconds: u64,
        path: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let mut after = "\"".to_owned();
        if seconds > 0 {
            after.push_str(&format!("; Max-Age={seconds}"));
        }
        if !path.is_empty() {
            after.push_str("; Path=");
            after.push_str(path);
        }
        for (name, value) in attributes {
            after.push_str("; ");
            after.push_str(name);
            if !value.is_empty() {
                after.push('=');
                after.push_str(value);
            }
        }
        after.push_str("; HttpOnly");
        Self {
            before: format!("{name}=\"").into(),
            after: after.into(),
        }
    }

    /// The whole header's value.
    pub fn with(&self, value: &str) -> Box<[u8]> {
        let parts = [&*self.before, value, &*self.after];
        parts.concat().into_bytes().into()
    }
}
