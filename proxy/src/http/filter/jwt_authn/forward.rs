//! What a verified token leaves in the request, for its upstream, and in the metadata.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::check::CheckedToken;
use super::locate::{TokenPlace, remove_param};
use super::verify::Verification;
use crate::config::filter::JwtProvider;
use crate::http::request::stream_info::StreamInfo;
use crate::message::head::Heads;
use crate::metadata::{Object, Value};
use crate::telemetry::format;

/// Takes from the request the headers that tokens of the provider set.
pub fn sanitise(provider: &JwtProvider, info: &mut StreamInfo, heads: &Heads) {
    let payload = provider.payload_header.iter().map(|header| &header.name);
    let claims = provider.claim_headers.iter().map(|header| &header.name);
    for name in payload.chain(claims) {
        let mut values = info.request.get_all_named(name.id, name.name.as_bytes());
        if values.next().is_some() {
            info.keep_authorised_head(heads);
            info.request.remove_named(name.name.as_bytes());
        }
    }
}

impl<'a> Verification<'a, '_> {
    /// `place`: where the token stands.
    pub(super) fn pass(&mut self, token: CheckedToken<'a>, place: TokenPlace<'a>) {
        let CheckedToken { provider, verified } = token;
        let jwt = &verified.token;
        if provider.edits_requests() {
            self.info.keep_authorised_head(self.heads);
        }
        if let Some(header) = &provider.payload_header {
            let name = header.name.name.as_bytes();
            let text = jwt.payload_text();
            match header.padded {
                false => self.info.request.append_named(name, text.as_bytes()),
                true => self
                    .info
                    .request
                    .append_named(name, padded(text).as_bytes()),
            }
        }
        let is_claim_set = self.claims(provider, &jwt.payload);
        if !provider.forward {
            match place {
                TokenPlace::Header(name) => {
                    self.info.request.remove_named(name.name.as_bytes());
                }
                TokenPlace::Param(name) => {
                    let head = &mut self.info.request;
                    self.path
                        .get_or_insert_with(|| head.path_and_query().to_vec());
                    remove_param(name, head);
                }
                TokenPlace::Cookie => {}
            }
        }
        if let Some(key) = &provider.header_metadata {
            let header = Value::Object(jwt.header.clone());
            self.metadata.insert(key.clone(), header);
        }
        if let Some(key) = &provider.payload_metadata {
            self.metadata.insert(key.clone(), verified.metadata.clone());
        }
        let may_change_route = is_claim_set || provider.payload_metadata.is_some();
        self.clears_route |= provider.clear_route_cache && may_change_route;
    }

    /// Whether a header was set.
    fn claims(&mut self, provider: &'a JwtProvider, payload: &Object) -> bool {
        let mut is_set = false;
        for header in &provider.claim_headers {
            let Some(text) = claim(payload, &header.path) else {
                continue;
            };
            if !is_field_value(&text) {
                self.unusable = Some(&header.name);
                continue;
            }
            let name = header.name.name.as_bytes();
            self.info.request.append_named(name, text.as_bytes());
            is_set = true;
        }
        is_set
    }
}

/// As Envoy, which accepts no other values of headers. Left out or replaced, a character of a claim could
/// make one user another.
fn is_field_value(text: &str) -> bool {
    let is_control = |byte: u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    !text.bytes().any(is_control)
}

fn padded(text: &str) -> String {
    let missing = text.len().wrapping_neg() % 4;
    let mut padded = String::with_capacity(text.len().saturating_add(missing));
    padded.push_str(text);
    padded.extend(std::iter::repeat_n('=', missing));
    padded
}

/// The text of a claim; `None`: it is not there, or has none.
fn claim<'o>(payload: &'o Object, path: &[Box<str>]) -> Option<std::borrow::Cow<'o, str>> {
    let (last, above) = path.split_last()?;
    let mut fields = payload;
    for key in above {
        let Value::Object(inner) = fields.get(key)? else {
            return None;
        };
        fields = inner;
    }
    let text: std::borrow::Cow<'o, str> = match fields.get(last)? {
        Value::Null => return None,
        Value::String(text) => (&**text).into(),
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Number(number) => decimal(*number).into(),
        value @ (Value::List(_) | Value::Object(_)) => {
            let mut json = Vec::new();
            format::json(value, &mut json);
            STANDARD.encode(json).into()
        }
    };
    Some(text).filter(|text| !text.is_empty())
}

/// Whole numbers as such, others with six places, as Envoy writes them.
fn decimal(number: f64) -> String {
    let mut text = String::new();
    let is_whole = (0.0..u64::MAX as f64).contains(&number) && number.fract() == 0.0;
    // Writing to a string does not fail.
    let _ = match is_whole {
        true => write!(text, "{}", number as u64),
        false => write!(text, "{number:.6}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn claims_are_written_as_envoy_writes_them() {
        let inner = Object::from([("c.d".into(), Value::String("deep".into()))]);
        let payload = Object::from([
            ("text".into(), Value::String("é".into())),
            ("empty".into(), Value::String("".into())),
            ("null".into(), Value::Null),
            ("yes".into(), Value::Bool(true)),
            ("whole".into(), Value::Number(12345678901.0)),
            ("part".into(), Value::Number(1.5)),
            ("below".into(), Value::Number(-3.0)),
            ("huge".into(), Value::Number(1e25)),
            ("list".into(), Value::List(vec![Value::Number(1.0)])),
            ("a.b".into(), Value::Object(Arc::new(inner))),
        ]);
        for (path, wanted) in [
            (&["text"][..], Some("é")),
            (&["empty"], None),
            (&["null"], None),
            (&["yes"], Some("true")),
            (&["whole"], Some("12345678901")),
            (&["part"], Some("1.500000")),
            (&["below"], Some("-3.000000")),
            (&["huge"], Some("10000000000000000905969664.000000")),
            (&["list"], Some("WzFd")),
            (&["a.b"], Some("eyJjLmQiOiJkZWVwIn0=")),
            (&["a.b", "c.d"], Some("deep")),
            (&["a.b", "c"], None),
            (&["text", "x"], None),
            (&[], None),
        ] {
            let path: Vec<Box<str>> = path.iter().map(|key| (*key).into()).collect();
            assert_eq!(claim(&payload, &path).as_deref(), wanted, "{path:?}");
        }
        assert_eq!(
            ["YQ", "YWI", "YWJj", ""].map(padded),
            ["YQ==", "YWI=", "YWJj", ""]
        );
        assert!(is_field_value("a\tb é") && !is_field_value("a\u{1}") && !is_field_value("\r\n"));
    }
}
