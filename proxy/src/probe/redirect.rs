//! Where a redirect leads: the kubelet follows redirects within the host that it called.

use std::net::IpAddr;

use http::Uri;
use http::uri::PathAndQuery;

use super::settings::AppResource;

/// What a probe does with a response that has `Location`.
pub(super) enum RedirectTarget {
    Follow(AppResource),
    /// To another host: the response is the probe's result.
    Elsewhere,
}

/// # Errors
/// The location is not a URL.
pub(super) fn next(
    from: &AppResource,
    app: IpAddr,
    location: &str,
) -> Result<RedirectTarget, String> {
    let wrong = || format!("it redirects to {location:?}, which is no URL");
    let location = location.split('#').next().unwrap_or_default();
    let scheme = if from.https { "https" } else { "http" };
    let absolute = match location.starts_with("//") {
        true => format!("{scheme}:{location}"),
        false => location.to_owned(),
    };
    let mut next = from.clone();
    if !absolute.contains("://") {
        next.path = resolve(&from.path, location).ok_or_else(wrong)?;
        return Ok(RedirectTarget::Follow(next));
    }
    let uri: Uri = absolute.parse().map_err(|_| wrong())?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse() != Ok(app) {
        return Ok(RedirectTarget::Elsewhere);
    }
    next.https = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let default = if next.https { 443 } else { 80 };
    next.port = uri.port_u16().unwrap_or(default);
    next.path = uri
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    // The probe's Host header is kept only where the location is relative, as in Go's client.
    next.headers.remove(http::header::HOST);
    Ok(RedirectTarget::Follow(next))
}

/// Resolves a relative reference against a path (RFC 3986 5.2).
fn resolve(base: &PathAndQuery, reference: &str) -> Option<PathAndQuery> {
    let (path, query) = match reference.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (reference, None),
    };
    let merged = match (path.is_empty(), path.starts_with('/')) {
        (true, _) => base.path().to_owned(),
        (false, true) => path.to_owned(),
        (false, false) => {
            let folder = base
                .path()
                .rsplit_once('/')
                .map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        }
    };
    let mut segments: Vec<&str> = Vec::new();
    for segment in merged.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    if merged.ends_with("/.") || merged.ends_with("/..") {
        segments.push("");
    }
    let path = format!("/{}", segments.join("/"));
    let query = query.or_else(|| base.query().filter(|_| reference.is_empty()));
    let whole = query.map_or(path.clone(), |query| format!("{path}?{query}"));
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(location: &str) -> Option<String> {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", "web.example".parse().unwrap());
        let from = AppResource {
            https: false,
            port: 8080,
            path: "/a/b?x=1".parse().unwrap(),
            headers,
        };
        match next(&from, [10, 0, 0, 7].into(), location).unwrap() {
            RedirectTarget::Elsewhere => None,
            RedirectTarget::Follow(next) => {
                let scheme = if next.https { "https" } else { "http" };
                let host = next
                    .headers
                    .get("host")
                    .map_or("-", |h| h.to_str().unwrap());
                Some(format!("{scheme} {} {} {host}", next.port, next.path))
            }
        }
    }

    #[test]
    fn within_the_host_and_elsewhere() {
        for (location, expected) in [
            ("/ok", Some("http 8080 /ok web.example")),
            ("ok?y=2", Some("http 8080 /a/ok?y=2 web.example")),
            ("../c/./d", Some("http 8080 /c/d web.example")),
            ("?y", Some("http 8080 /a/b?y web.example")),
            ("", Some("http 8080 /a/b?x=1 web.example")),
            ("/ok#there", Some("http 8080 /ok web.example")),
            ("http://10.0.0.7:9/x", Some("http 9 /x -")),
            ("https://10.0.0.7", Some("https 443 / -")),
            ("//10.0.0.7/x", Some("http 80 /x -")),
            ("http://10.0.0.8/x", None),
            ("http://web.example/x", None),
        ] {
            assert_eq!(followed(location).as_deref(), expected, "{location:?}");
        }
    }
}
