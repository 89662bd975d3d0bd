//! Matchers of dynamic metadata.

use xds_proto::envoy::r#type::matcher::v3 as pb;
use xds_proto::envoy::r#type::v3::DoubleRange;

use super::matcher::string;
use super::support::{At, CompileError, each, required};
use crate::matcher::{MetadataMatch, MetadataTest};

/// Nesting of lists and alternatives.
const MAX_DEPTH: u32 = 16;

pub fn metadata(at: At<'_>, m: &pb::MetadataMatcher) -> Result<MetadataMatch, CompileError> {
    use pb::metadata_matcher::{PathSegment, path_segment::Segment};
    let pb::MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = m;
    if filter.is_empty() {
        return at.field("filter").fail("is required");
    }
    let value = required!(at, value);
    Ok(MetadataMatch {
        namespace: filter.as_str().into(),
        path: each(at, "path", path, |at, m| {
            let PathSegment { segment } = m;
            let Segment::Key(key) = required!(at, segment);
            Ok(key.as_str().into())
        })?,
        test: test(at.field("value"), value, 0)?,
        invert: *invert,
    })
}

fn test(at: At<'_>, m: &pb::ValueMatcher, depth: u32) -> Result<MetadataTest, CompileError> {
    use pb::value_matcher::{MatchPattern as Kind, NullMatch};
    if depth > MAX_DEPTH {
        return at.fail("is nested too deep");
    }
    let pb::ValueMatcher { match_pattern } = m;
    Ok(match required!(at, match_pattern) {
        Kind::NullMatch(NullMatch {}) => MetadataTest::Null,
        Kind::DoubleMatch(m) => double(at.field("double_match"), m)?,
        Kind::StringMatch(m) => MetadataTest::String(string(at.field("string_match"), m)?),
        Kind::BoolMatch(value) => MetadataTest::Bool(*value),
        Kind::PresentMatch(value) => MetadataTest::Present(*value),
        Kind::ListMatch(m) => {
            let at = at.field("list_match");
            let pb::ListMatcher { match_pattern } = &**m;
            let pb::list_matcher::MatchPattern::OneOf(m) = required!(at, match_pattern);
            MetadataTest::OneOf(Box::new(test(at.field("one_of"), m, depth + 1)?))
        }
        Kind::OrMatch(m) => {
            let at = at.field("or_match");
            let pb::OrMatcher { value_matchers } = m;
            let any = each(at, "value_matchers", value_matchers, |at, m| {
                test(at, m, depth + 1)
            })?;
            MetadataTest::Or(any)
        }
    })
}

fn double(at: At<'_>, m: &pb::DoubleMatcher) -> Result<MetadataTest, CompileError> {
    use pb::double_matcher::MatchPattern as Kind;
    let pb::DoubleMatcher { match_pattern } = m;
    Ok(match required!(at, match_pattern) {
        Kind::Exact(number) => MetadataTest::Exact(*number),
        Kind::Range(DoubleRange { start, end }) => MetadataTest::Range {
            start: *start,
            end: *end,
        },
    })
}
