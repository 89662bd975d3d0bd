//! What the path of a request asks for.
//!
//! | path below `/apis/inspect.mesh.anyam.dev/v1alpha1` | |
//! |---|---|
//! | `[/namespaces/NS]/workloads/-/{proxies,edges,stat,routes,objects,check}` | read |
//! | `[/namespaces/NS]/workloads/-/explain`, `…/session` | explained, or a login for the dashboard |
//! | `/namespaces/NS/workloads/NAME/dump/PAGE` | a page of a proxy |
//! | `/namespaces/NS/workloads/NAME/tap`, `[/namespaces/NS]/workloads/-/tap?workload=` | live requests |
//!
//! A tap's path has `/watch` before all that: the API server ends other requests after a minute.

use crate::kubernetes::access_review::{GROUP, RESOURCE};

/// In place of a workload's name: all of them.
pub const ALL: &str = "-";

/// What is read, by GET.
pub const READ: [&str; 6] = ["proxies", "edges", "stat", "routes", "objects", "check"];

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InspectPath {
    /// `/apis`: the groups.
    Groups,
    /// The group with its versions.
    Group,
    /// The version with its resources.
    Version,
    Health,
    Workloads(WorkloadsPath),
}

/// A subresource of workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadsPath {
    /// Empty: all.
    pub namespace: String,
    /// Empty: all.
    pub workload: String,
    pub what: String,
    /// The path after that, as `stats/prometheus`.
    pub rest: String,
}

impl InspectPath {
    /// `None`: there is nothing.
    pub fn parse(path: &str) -> Option<Self> {
        match path {
            "/healthz" | "/livez" | "/readyz" => return Some(InspectPath::Health),
            "/apis" | "/apis/" => return Some(InspectPath::Groups),
            _ => {}
        }
        let parts: Vec<&str> = path.strip_prefix("/apis/")?.split('/').collect();
        let (group, rest) = parts.split_first()?;
        if *group != GROUP {
            return None;
        }
        let (version, rest) = match rest {
            [] | [""] => return Some(InspectPath::Group),
            [version, rest @ ..] => (*version, rest),
        };
        if version != super::VERSION {
            return None;
        }
        let rest = match rest {
            [] | [""] => return Some(InspectPath::Version),
            ["watch", rest @ ..] if rest.last() == Some(&"tap") => rest,
            rest => rest,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if is_name(namespace) => (*namespace, rest),
            rest => ("", rest),
        };
        match rest {
            [resource, workload, what, rest @ ..] if *resource == RESOURCE => {
                let workload = match *workload {
                    ALL => "",
                    name if is_name(name) => name,
                    _ => return None,
                };
                Some(InspectPath::Workloads(WorkloadsPath {
                    namespace: namespace.to_owned(),
                    workload: workload.to_owned(),
                    what: (*what).to_owned(),
                    rest: rest.join("/"),
                }))
            }
            _ => None,
        }
    }
}

/// RFC 1123, roughly: no character that means something in a path.
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let ends = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    !name.is_empty() && !ends && name.len() <= 253 && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/apis/inspect.mesh.anyam.dev/v1alpha1";

    fn parse(rest: &str) -> Option<InspectPath> {
        InspectPath::parse(&format!("{BASE}{rest}"))
    }

    fn workloads(namespace: &str, workload: &str, what: &str, rest: &str) -> Option<InspectPath> {
        Some(InspectPath::Workloads(WorkloadsPath {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            what: what.to_owned(),
            rest: rest.to_owned(),
        }))
    }

    #[test]
    fn paths_name_namespace_workload_and_what() {
        for (path, expected) in [
            ("/workloads/-/proxies", workloads("", "", "proxies", "")),
            (
                "/namespaces/shop/workloads/-/edges",
                workloads("shop", "", "edges", ""),
            ),
            (
                "/namespaces/shop/workloads/web-0/dump/stats/prometheus",
                workloads("shop", "web-0", "dump", "stats/prometheus"),
            ),
            (
                "/watch/namespaces/shop/workloads/web-0/tap",
                workloads("shop", "web-0", "tap", ""),
            ),
            ("/watch/workloads/-/tap", workloads("", "", "tap", "")),
            (
                "/namespaces/shop/workloads/a/tap",
                workloads("shop", "a", "tap", ""),
            ),
        ] {
            assert_eq!(parse(path), expected, "{path}");
        }
        assert_eq!(parse(""), Some(InspectPath::Version));
        assert_eq!(parse("/"), Some(InspectPath::Version));
        let group = InspectPath::parse("/apis/inspect.mesh.anyam.dev");
        assert_eq!(group, Some(InspectPath::Group));
        assert_eq!(InspectPath::parse("/apis"), Some(InspectPath::Groups));
        assert_eq!(InspectPath::parse("/livez"), Some(InspectPath::Health));
    }

    #[test]
    fn other_paths_are_nothing() {
        for path in [
            "/workloads",
            "/workloads/-",
            "/pods/-/proxies",
            "/namespaces/shop",
            "/namespaces//workloads/-/proxies",
            "/namespaces/../workloads/-/proxies",
            "/namespaces/a%2fb/workloads/-/proxies",
            "/namespaces/-/workloads/-/proxies",
            "/namespaces/shop/workloads/../tap",
            "/namespaces/shop/workloads/WEB/tap",
            "/watch/workloads/-/proxies",
            "//workloads/-/proxies",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
        for path in [
            "/",
            "/api/v1/proxies",
            "/apis/mesh.anyam.dev/v1alpha1/workloads/-/proxies",
            "/apis/inspect.mesh.anyam.dev/v1/workloads/-/proxies",
            "/openapi/v2",
            "/metrics",
        ] {
            assert_eq!(InspectPath::parse(path), None, "{path}");
        }
    }
}
