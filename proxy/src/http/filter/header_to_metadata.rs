//! Dynamic metadata by headers and cookies. Source: Envoy's "Header-To-Metadata" filter.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::config::Name;
use crate::config::filter::{
    FilterConfig, HeaderToMetadata, HeaderToMetadataRule, MetadataFromHeader, MetadataSource,
    MetadataText,
};
use crate::http::request::headers::{self, HeadSide};
use crate::http::request::stream_info::StreamInfo;
use crate::matcher::HeaderName;
use crate::message::cookie;
use crate::message::head::{Head, Heads};
use crate::metadata::{Object, Value};
use crate::metrics::HeaderToMetadataMetrics;

/// Bytes of a value; a longer one is not taken.
const LONGEST: usize = 8 * 1024 - 1;
/// With padding or without, as Envoy takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The rules that apply.
fn rules<'a>(
    own: &'a HeaderToMetadata,
    of_route: Option<&'a FilterConfig>,
) -> &'a HeaderToMetadata {
    match of_route {
        Some(FilterConfig::HeaderToMetadata(of_route)) => of_route,
        _ => own,
    }
}

pub fn on_request(
    own: &HeaderToMetadata,
    of_route: Option<&FilterConfig>,
    info: &mut StreamInfo,
    heads: &Heads,
) {
    let own = rules(own, of_route);
    for rule in &own.request {
        if let MetadataSource::Header { name, remove: true } = &rule.source
            && is_there(name, &info.request)
        {
            info.keep_authorised_head(heads);
        }
        let counts = own.metrics.as_deref();
        apply(rule, HeadSide::Request, counts, info);
    }
}

pub fn on_response(own: &HeaderToMetadata, of_route: Option<&FilterConfig>, info: &mut StreamInfo) {
    let own = rules(own, of_route);
    for rule in &own.response {
        let counts = own.metrics.as_deref();
        apply(rule, HeadSide::Response, counts, info);
    }
}

fn is_there(name: &HeaderName, head: &Head) -> bool {
    let mut values = head.get_all_named(name.id, name.name.as_bytes());
    values.next().is_some()
}

fn apply(
    rule: &HeaderToMetadataRule,
    side: HeadSide,
    counts: Option<&HeaderToMetadataMetrics>,
    info: &mut StreamInfo,
) {
    let counts = RuleCounts { counts, side };
    counts.processed();
    let head = match side {
        HeadSide::Request => &info.request,
        HeadSide::Response => &info.response,
    };
    let found = found(&rule.source, head);
    let is_found = found.is_some();
    let made = match (found, &rule.present, &rule.missing) {
        (Some(text), Some(present), _) => {
            made(present, text, &counts).map(|value| (present, value))
        }
        (None, _, Some(missing)) => {
            counts.not_found();
            made(missing, Cow::Borrowed(b""), &counts).map(|value| (missing, value))
        }
        _ => None,
    };
    if let MetadataSource::Header { name, remove: true } = &rule.source
        && is_found
    {
        headers::head(info, side).remove_named(name.name.as_bytes());
    }
    if let Some((of, value)) = made {
        counts.added();
        set(&of.namespace, &of.key, value, info);
    }
}

fn set(namespace: &Name, key: &str, value: Value, info: &mut StreamInfo) {
    let fields = Object::from([(key.into(), value)]);
    info.filters.set_metadata(namespace, &fields);
}

/// The values of a header, joined, or that of a cookie.
fn found<'h>(source: &MetadataSource, head: &'h Head) -> Option<Cow<'h, [u8]>> {
    match source {
        MetadataSource::Header { name, .. } => {
            let mut values = head.get_all_named(name.id, name.name.as_bytes());
            let first = values.next()?;
            let mut joined = Cow::Borrowed(first);
            for value in values {
                joined.to_mut().push(b',');
                joined.to_mut().extend_from_slice(value);
            }
            Some(joined)
        }
        MetadataSource::Cookie(name) => {
            let value = cookie::value(head, name.as_bytes());
            value.filter(|value| !value.is_empty()).map(Cow::Borrowed)
        }
    }
}

/// `None`: the text gives no value.
fn made(of: &MetadataFromHeader, text: Cow<'_, [u8]>, counts: &RuleCounts<'_>) -> Option<Value> {
    let text = match &of.value {
        MetadataText::Own => text,
        MetadataText::Fixed(value) => Cow::Borrowed(value.as_bytes()),
        MetadataText::Rewritten {
            pattern,
            substitution,
        } => {
            let rewritten = pattern.replace_all(&text, substitution.as_bytes());
            if rewritten.is_empty() && !text.is_empty() {
                counts.not_substituted();
            }
            Cow::Owned(rewritten.into_owned())
        }
    };
    if text.is_empty() {
        return None;
    }
    if text.len() > LONGEST {
        counts.too_long();
        return None;
    }
    let text = match of.base64 {
        false => text,
        true => match BASE64.decode(&text).ok().filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Cow::Owned(bytes),
            None => {
                counts.not_decoded();
                return None;
            }
        },
    };
    let text = String::from_utf8_lossy(&text);
    match of.number {
        true => number(text.trim()),
        false => Some(Value::String(text.into())),
    }
}

fn number(text: &str) -> Option<Value> {
    let number: f64 = text.parse().ok()?;
    number.is_finite().then_some(Value::Number(number))
}

/// The counters of a filter's direction, where it counts.
struct RuleCounts<'a> {
    counts: Option<&'a HeaderToMetadataMetrics>,
    side: HeadSide,
}

impl RuleCounts<'_> {
    fn processed(&self) {
        if let Some(counts) = self.counts {
            match self.side {
                HeadSide::Request => counts.request_rules_processed.inc(),
                HeadSide::Response => counts.response_rules_processed.inc(),
            }
        }
    }

    fn added(&self) {
        if let Some(counts) = self.counts {
            match self.side {
                HeadSide::Request => counts.request_metadata_added.inc(),
                HeadSide::Response => counts.response_metadata_added.inc(),
            }
        }
    }

    fn not_found(&self) {
        if let Some(counts) = self.counts {
            match self.side {
                HeadSide::Request => counts.request_header_not_found.inc(),
                HeadSide::Response => counts.response_header_not_found.inc(),
            }
        }
    }

    fn too_long(&self) {
        if let Some(counts) = self.counts {
            counts.header_value_too_long.inc();
        }
    }

    fn not_decoded(&self) {
        if let Some(counts) = self.counts {
            counts.base64_decode_failed.inc();
        }
    }

    fn not_substituted(&self) {
        if let Some(counts) = self.counts {
            counts.regex_substitution_failed.inc();
        }
    }
}
