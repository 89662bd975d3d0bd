//! The query parameters of a page.

use regex::{Regex, RegexBuilder};

/// Compiled size of a regular expression, bytes. The engine takes linear time.
const MAX_REGEX: usize = 1 << 20;

/// The decoded parameters of a URL.
pub(super) struct AdminQuery(Vec<(String, String)>);

/// Why a page cannot be served.
#[derive(Debug, PartialEq, Eq)]
pub struct PageError {
    pub status: http::StatusCode,
    pub why: String,
}

impl PageError {
    pub(super) fn bad(why: impl Into<String>) -> Self {
        let status = http::StatusCode::BAD_REQUEST;
        let why = why.into();
        Self { status, why }
    }

    pub(super) fn missing(why: impl Into<String>) -> Self {
        let status = http::StatusCode::NOT_FOUND;
        let why = why.into();
        Self { status, why }
    }
}

impl AdminQuery {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        Self(pairs.collect())
    }

    /// The first value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// # Errors
    /// The parameter is no regular expression, or too large a one.
    pub(super) fn regex(&self, name: &str) -> Result<Option<Regex>, PageError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let regex = RegexBuilder::new(text).size_limit(MAX_REGEX).build();
        let wrong = |error| PageError::bad(format!("Error while parsing {name}: {error}"));
        regex.map(Some).map_err(wrong)
    }
}

/// Percent-decoded (RFC 3986 2.1); what is no escape stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        let escaped = digit(0).zip(digit(1)).filter(|_| byte == b'%');
        match escaped.and_then(|(high, low)| u8::try_from((high << 4) | low).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_found() {
        let query = AdminQuery::parse("a=%5Ex%7c&&b&a=2&%63=%zz%4");
        assert_eq!(query.get("a"), Some("^x|"));
        assert_eq!(query.get("b"), Some(""));
        assert_eq!(query.get("c"), Some("%zz%4"));
        assert!(!query.has("d"));
        assert!(AdminQuery::parse("f=%28").regex("f").is_err());
        let huge = format!("f={}", "(a{1000}){1000}");
        assert!(AdminQuery::parse(&huge).regex("f").is_err());
        assert!(AdminQuery::parse("f=").regex("f").unwrap().is_none());
    }
}
