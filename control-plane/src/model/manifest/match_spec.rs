//! Matches of HTTPRoute and GRPCRoute as Gateway API v1 writes them.

use serde::Deserialize;

use super::object::{FieldError, Kind};
use super::route::{GrpcNames, Match, PathMatch, ValueMatch, ValueTest};
use super::values::{HeaderName, HeaderText, PathText, Pattern};

/// A match of an HTTPRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    #[serde(default)]
    path: Option<PathSpec>,
    #[serde(default)]
    headers: Vec<HeaderMatchSpec>,
    #[serde(default)]
    query_params: Vec<QuerySpec>,
    #[serde(default)]
    method: Option<Method>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathSpec {
    #[serde(default, rename = "type")]
    kind: PathKind,
    #[serde(default = "root")]
    value: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Clone, Copy, Default, Deserialize)]
enum PathKind {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Clone, Copy, Default, Deserialize)]
enum ValueKind {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderMatchSpec {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    name: HeaderName,
    value: HeaderText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuerySpec {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    name: HeaderName,
    value: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

/// A match of a GRPCRoute.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    #[serde(default)]
    method: Option<GrpcMethod>,
    #[serde(default)]
    headers: Vec<HeaderMatchSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrpcMethod {
    #[serde(default, rename = "type")]
    kind: ValueKind,
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    method: Option<String>,
}

/// A match of either kind.
pub trait MatchSpec {
    const KIND: Kind;

    /// # Errors
    /// Fields below `path` that contradict each other.
    fn read(self, path: &str) -> Result<Match, FieldError>;
}

impl MatchSpec for HttpMatch {
    const KIND: Kind = Kind::HttpRoute;

    fn read(self, at: &str) -> Result<Match, FieldError> {
        let path = match self.path {
            None => PathMatch::default(),
            Some(spec) => spec.read(&format!("{at}.path.value"))?,
        };
        Ok(Match {
            path,
            method: self
                .method
                .map(|method| format!("{method:?}").to_uppercase()),
            headers: headers(self.headers, at)?,
            query: query(self.query_params, at)?,
            grpc: None,
        })
    }
}

impl PathSpec {
    fn read(self, at: &str) -> Result<PathMatch, FieldError> {
        let wrong = |message| FieldError::new(at, message);
        let path = |text: &str| text.parse::<PathText>().map_err(wrong);
        Ok(match self.kind {
            PathKind::Exact => PathMatch::Exact(path(&self.value)?.0),
            PathKind::PathPrefix => {
                PathMatch::Prefix(path(&self.value)?.0.trim_end_matches('/').to_owned())
            }
            PathKind::RegularExpression => PathMatch::Regex(self.value.parse().map_err(wrong)?),
        })
    }
}

impl MatchSpec for GrpcMatch {
    const KIND: Kind = Kind::GrpcRoute;

    fn read(self, at: &str) -> Result<Match, FieldError> {
        let grpc = self.method.as_ref().map(GrpcMethod::names);
        let path = match self.method {
            None => PathMatch::default(),
            Some(method) => method.read(&format!("{at}.method"))?,
        };
        Ok(Match {
            path,
            headers: headers(self.headers, at)?,
            grpc,
            ..Match::default()
        })
    }
}

impl GrpcMethod {
    fn names(&self) -> GrpcNames {
        let characters = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        GrpcNames {
            regex: matches!(self.kind, ValueKind::RegularExpression),
            service: characters(&self.service),
            method: characters(&self.method),
        }
    }

    fn read(self, at: &str) -> Result<PathMatch, FieldError> {
        let text = |field: &str, value: Option<String>| match value {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => match self.kind {
                ValueKind::Exact if !is_grpc_name(&value) => Err(FieldError::new(
                    format!("{at}.{field}"),
                    format!("`{}` is no gRPC {field}", value.escape_debug()),
                )),
                ValueKind::RegularExpression => match value.parse::<Pattern>() {
                    Ok(pattern) => Ok(Some(pattern.0)),
                    Err(error) => Err(FieldError::new(format!("{at}.{field}"), error)),
                },
                ValueKind::Exact => Ok(Some(value)),
            },
        };
        let service = text("service", self.service)?;
        let method = text("method", self.method)?;
        let pattern = |text: String| PathMatch::Regex(Pattern(text));
        Ok(match (self.kind, service, method) {
            (_, None, None) => {
                return Err(FieldError::new(at, "one of service and method is required"));
            }
            (ValueKind::Exact, Some(service), Some(method)) => {
                PathMatch::Exact(format!("/{service}/{method}"))
            }
            (ValueKind::Exact, Some(service), None) => PathMatch::Prefix(format!("/{service}")),
            (ValueKind::Exact, None, Some(method)) => {
                pattern(format!("/[^/]+/{}", regex::escape(&method)))
            }
            (ValueKind::RegularExpression, service, method) => {
                let part = |text: Option<String>| {
                    text.map_or("[^/]+".to_owned(), |text| format!("(?:{text})"))
                };
                pattern(format!("/{}/{}", part(service), part(method)))
            }
        })
    }
}

fn is_grpc_name(text: &str) -> bool {
    text.len() <= 1024
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.' || b == b'-')
}

/// Of entries with the same name, the first counts (Gateway API).
fn headers(specs: Vec<HeaderMatchSpec>, at: &str) -> Result<Vec<ValueMatch>, FieldError> {
    let mut all: Vec<ValueMatch> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = format!("{at}.headers[{index}].value");
        push(
            &mut all,
            spec.name.lower(),
            value(spec.kind, spec.value.0, &at)?,
        );
    }
    Ok(all)
}

fn query(specs: Vec<QuerySpec>, at: &str) -> Result<Vec<ValueMatch>, FieldError> {
    let mut all: Vec<ValueMatch> = Vec::new();
    for (index, spec) in specs.into_iter().enumerate() {
        let at = format!("{at}.queryParams[{index}].value");
        push(&mut all, spec.name.0, value(spec.kind, spec.value, &at)?);
    }
    Ok(all)
}

fn push(all: &mut Vec<ValueMatch>, name: String, value: ValueTest) {
    if !all.iter().any(|other| other.name == name) {
        all.push(ValueMatch { name, value });
    }
}

fn value(kind: ValueKind, text: String, at: &str) -> Result<ValueTest, FieldError> {
    Ok(match kind {
        ValueKind::Exact => ValueTest::Exact(text),
        ValueKind::RegularExpression => {
            ValueTest::Regex(text.parse().map_err(|e: String| FieldError::new(at, e))?)
        }
    })
}
