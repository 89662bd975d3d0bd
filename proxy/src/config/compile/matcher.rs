//! String, header and query matchers.

use regex::bytes::{Regex, RegexBuilder};
use xds_proto::envoy::config::route::v3 as route;
use xds_proto::envoy::r#type::matcher::v3 as matcher;

use super::support::{At, CompileError, ignored, required};
use crate::matcher::{HeaderMatch, HeaderName, QueryMatch, StringMatch, ValueMatch};

/// Bytes a compiled pattern may take.
const REGEX_SIZE: usize = 1 << 20;

pub fn string(at: At<'_>, m: &matcher::StringMatcher) -> Result<StringMatch, CompileError> {
    use matcher::string_matcher::MatchPattern;
    let matcher::StringMatcher {
        ignore_case,
        match_pattern,
    } = m;
    let ignore_case = *ignore_case;
    let value = |text: &String| -> Box<str> {
        match ignore_case {
            true => text.to_ascii_lowercase().into(),
            false => text.as_str().into(),
        }
    };
    Ok(match required!(at, match_pattern) {
        MatchPattern::Exact(text) => StringMatch::Exact {
            value: value(text),
            ignore_case,
        },
        MatchPattern::Prefix(text) => StringMatch::Prefix {
            value: value(text),
            ignore_case,
        },
        MatchPattern::Suffix(text) => StringMatch::Suffix {
            value: value(text),
            ignore_case,
        },
        MatchPattern::Contains(text) => StringMatch::Contains {
            value: value(text),
            ignore_case,
        },
        // As Envoy: ignore_case has no effect on a regex.
        MatchPattern::SafeRegex(pattern) => {
            StringMatch::Regex(whole_regex(at.field("safe_regex"), pattern)?)
        }
        MatchPattern::Custom(_) => {
            return at.field("custom").fail("is not supported by this proxy");
        }
    })
}

/// A pattern that has to match the whole input.
pub fn whole_regex(at: At<'_>, m: &matcher::RegexMatcher) -> Result<Box<Regex>, CompileError> {
    let pattern = pattern(m);
    // On its own first: `a)(b` must not become valid by the group around it.
    build(at, pattern)?;
    build(at, &format!(r"\A(?:{pattern})\z"))
}

/// A pattern that is searched for.
pub fn part_regex(at: At<'_>, m: &matcher::RegexMatcher) -> Result<Box<Regex>, CompileError> {
    build(at, pattern(m))
}

fn pattern(m: &matcher::RegexMatcher) -> &str {
    let matcher::RegexMatcher { regex, engine_type } = m;
    ignored!(
        "the engine is linear-time and its memory bounded, whatever is named",
        engine_type
    );
    regex
}

fn build(at: At<'_>, pattern: &str) -> Result<Box<Regex>, CompileError> {
    let build = |unicode| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_SIZE)
            .build()
    };
    // By bytes where possible: quicker, and a byte that is no UTF-8 cannot slip past a `.`.
    build(false)
        .or_else(|_| build(true))
        .map(Box::new)
        .map_err(|e| at.field("regex").error(format_args!("`{pattern}`: {e}")))
}

/// A header's name: a token, or a pseudo-header.
pub fn header_name(at: At<'_>, name: &str) -> Result<HeaderName, CompileError> {
    HeaderName::parse(name).map_or_else(
        || {
            at.fail(format_args!(
                "`{}` is not a header name",
                name.escape_debug()
            ))
        },
        Ok,
    )
}

pub fn header(at: At<'_>, m: &route::HeaderMatcher) -> Result<HeaderMatch, CompileError> {
    use route::header_matcher::HeaderMatchSpecifier as Spec;
    let route::HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = m;
    let plain = |value: &String| value.as_str().into();
    let string_match = |m| ValueMatch::String(m);
    let ignore_case = false;
    let test = match header_match_specifier {
        None => ValueMatch::Present,
        Some(Spec::PresentMatch(true)) => ValueMatch::Present,
        Some(Spec::PresentMatch(false)) => ValueMatch::Absent,
        Some(Spec::ExactMatch(value)) => string_match(StringMatch::Exact {
            value: plain(value),
            ignore_case,
        }),
        Some(Spec::PrefixMatch(value)) => string_match(StringMatch::Prefix {
            value: plain(value),
            ignore_case,
        }),
        Some(Spec::SuffixMatch(value)) => string_match(StringMatch::Suffix {
            value: plain(value),
            ignore_case,
        }),
        Some(Spec::ContainsMatch(value)) => string_match(StringMatch::Contains {
            value: plain(value),
            ignore_case,
        }),
        Some(Spec::SafeRegexMatch(pattern)) => string_match(StringMatch::Regex(whole_regex(
            at.field("safe_regex_match"),
            pattern,
        )?)),
        Some(Spec::StringMatch(m)) => string_match(string(at.field("string_match"), m)?),
        Some(Spec::RangeMatch(range)) => ValueMatch::Range {
            start: range.start,
            end: range.end,
        },
    };
    Ok(HeaderMatch {
        name: header_name(at.field("name"), name)?,
        test,
        invert: *invert_match,
        treat_missing_as_empty: *treat_missing_header_as_empty,
    })
}

pub fn query(at: At<'_>, m: &route::QueryParameterMatcher) -> Result<QueryMatch, CompileError> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Spec;
    let route::QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = m;
    let test = match query_parameter_match_specifier {
        None | Some(Spec::PresentMatch(true)) => ValueMatch::Present,
        Some(Spec::PresentMatch(false)) => ValueMatch::Absent,
        Some(Spec::StringMatch(m)) => ValueMatch::String(string(at.field("string_match"), m)?),
    };
    Ok(QueryMatch {
        name: name.as_str().into(),
        test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use matcher::string_matcher::MatchPattern;

    fn regex(pattern: &str) -> Result<StringMatch, CompileError> {
        let m = matcher::StringMatcher {
            ignore_case: false,
            match_pattern: Some(MatchPattern::SafeRegex(matcher::RegexMatcher {
                regex: pattern.into(),
                engine_type: None,
            })),
        };
        string(At::root("m"), &m)
    }

    #[test]
    fn a_regex_matches_the_whole_value_and_every_byte() {
        let any = regex("/admin/.*|x").unwrap();
        assert!(any.matches(b"/admin/\xff\xfe"));
        assert!(!any.matches(b"xy"));
        assert!(!any.matches(b"a/admin/"));
    }

    #[test]
    fn bad_and_huge_patterns_are_refused_by_path() {
        for pattern in ["a)(b", "(", "(?x)a # b", r"(\w{1000}){1000}", r"(a)\1"] {
            let error = regex(pattern).unwrap_err();
            assert_eq!(error.path, "m.safe_regex.regex", "{pattern}");
        }
    }

    #[test]
    fn header_names_are_tokens() {
        let at = At::root("h");
        assert_eq!(&*header_name(at, "X-Shop").unwrap().name, "x-shop");
        assert_eq!(&*header_name(at, ":path").unwrap().name, ":path");
        for bad in ["", "a b", "a:b", "x\r\n", "é"] {
            assert!(header_name(at, bad).is_err(), "{bad}");
        }
    }
}
