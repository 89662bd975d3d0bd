//! What a route changes in a request's target, and redirects.

use xds_proto::envoy::config::route::v3 as pb;
use xds_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use crate::config::compile::matcher::{header_name, part_regex};
use crate::config::compile::support::{At, CompileError, known, port, required};
use crate::config::route::{HostRewrite, PathRewrite, Redirect};

pub fn path_rewrite_of(
    at: At<'_>,
    prefix: &str,
    regex: &Option<RegexMatchAndSubstitute>,
) -> Result<PathRewrite, CompileError> {
    match (prefix, regex) {
        ("", None) => Ok(PathRewrite::None),
        (prefix, None) => Ok(PathRewrite::Prefix(prefix.into())),
        ("", Some(m)) => regex_rewrite(at.field("regex_rewrite"), m),
        _ => at
            .field("regex_rewrite")
            .fail("stands beside prefix_rewrite; only one may be set"),
    }
}

fn regex_rewrite(at: At<'_>, m: &RegexMatchAndSubstitute) -> Result<PathRewrite, CompileError> {
    let (pattern, substitution) = substitution(at, m)?;
    Ok(PathRewrite::Regex {
        pattern,
        substitution,
    })
}

/// RE2's `\1` becomes `${1}`.
pub fn substitution(
    at: At<'_>,
    m: &RegexMatchAndSubstitute,
) -> Result<(Box<regex::bytes::Regex>, Box<str>), CompileError> {
    let RegexMatchAndSubstitute {
        pattern,
        substitution,
    } = m;
    let regex = part_regex(at.field("pattern"), required!(at, pattern))?;
    let at = at.field("substitution");
    let mut out = String::new();
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => out.push('\\'),
                Some(digit)
                    if digit
                        .to_digit(10)
                        .is_some_and(|d| (d as usize) < regex.captures_len()) =>
                {
                    out.push_str(&format!("${{{digit}}}"));
                }
                _ => return at.fail("a backslash stands before a group's number or a backslash"),
            },
            '\r' | '\n' | '\0' => return at.fail("has control characters"),
            c => out.push(c),
        }
    }
    Ok((regex, out.into()))
}

pub fn host_rewrite(
    at: At<'_>,
    specifier: &Option<pb::route_action::HostRewriteSpecifier>,
) -> Result<HostRewrite, CompileError> {
    use pb::route_action::HostRewriteSpecifier as Spec;
    Ok(match specifier {
        None => HostRewrite::None,
        Some(Spec::HostRewriteLiteral(host)) => HostRewrite::Literal(host.as_str().into()),
        Some(Spec::AutoHostRewrite(on)) if on.value => HostRewrite::Auto,
        Some(Spec::AutoHostRewrite(_)) => HostRewrite::None,
        Some(Spec::HostRewriteHeader(name)) => {
            HostRewrite::Header(header_name(at.field("host_rewrite_header"), name)?)
        }
        Some(Spec::HostRewritePathRegex(m)) => {
            let (pattern, substitution) = substitution(at.field("host_rewrite_path_regex"), m)?;
            HostRewrite::PathRegex {
                pattern,
                substitution,
            }
        }
        Some(Spec::HostRewrite(_)) => {
            return at
                .field("host_rewrite")
                .fail("is not supported by this proxy");
        }
    })
}

pub fn redirect(at: At<'_>, m: &pb::RedirectAction) -> Result<Redirect, CompileError> {
    use pb::redirect_action::{
        PathRewriteSpecifier as Path, RedirectResponseCode as Code,
        SchemeRewriteSpecifier as Scheme,
    };
    let pb::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = m;
    let text = |text: &str| -> Option<Box<str>> { (!text.is_empty()).then(|| text.into()) };
    Ok(Redirect {
        keeps_port: false,
        status: match known(at.field("response_code"), *response_code)? {
            Code::MovedPermanently => 301,
            Code::Found => 302,
            Code::SeeOther => 303,
            Code::TemporaryRedirect => 307,
            Code::PermanentRedirect => 308,
        },
        scheme: match scheme_rewrite_specifier {
            Some(Scheme::HttpsRedirect(true)) => Some("https".into()),
            Some(Scheme::SchemeRedirect(scheme)) => text(scheme),
            None | Some(Scheme::HttpsRedirect(false)) => None,
        },
        host: text(host_redirect),
        port: match *port_redirect {
            0 => None,
            given => Some(port(at.field("port_redirect"), given)?),
        },
        path: match path_rewrite_specifier {
            None => PathRewrite::None,
            Some(Path::PathRedirect(path)) => PathRewrite::Full(path.as_str().into()),
            Some(Path::PrefixRewrite(prefix)) => PathRewrite::Prefix(prefix.as_str().into()),
            Some(Path::RegexRewrite(m)) => regex_rewrite(at.field("regex_rewrite"), m)?,
            Some(Path::PathRewrite(_)) => {
                return at
                    .field("path_rewrite")
                    .fail("is not supported by this proxy");
            }
        },
        strip_query: *strip_query,
    })
}
