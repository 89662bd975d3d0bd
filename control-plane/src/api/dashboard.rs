//! The dashboard: one page without a build step, and a policy under which the browser runs
//! exactly the script and style that are in it, and connects to no other origin.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, StatusCode};

use super::reply::{self, Reply};

const PAGE: &str = include_str!("dashboard.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = hash("<script>", "</script>");
    let style = hash("<style>", "</style>");
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// CSP's hash of what stands between the page's only pair of these tags.
fn hash(open: &str, close: &str) -> String {
    let inner = PAGE
        .split_once(open)
        .and_then(|(_, rest)| rest.split_once(close));
    let inner = inner.map_or("", |(inner, _)| inner);
    let digest = digest::digest(&digest::SHA256, inner.as_bytes());
    format!("sha256-{}", STANDARD.encode(digest))
}

pub fn page() -> Reply {
    let mut reply = reply::bytes(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let headers = reply.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_asks_no_other_host() {
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        // The name space of SVG is a name and no request.
        let elsewhere = PAGE.replace("http://www.w3.org/2000/svg", "");
        for forbidden in [
            "http:",
            "https:",
            "src=",
            "@import",
            "url(",
            " style=",
            "onclick=",
            "innerHTML",
        ] {
            assert!(!elsewhere.contains(forbidden), "the page has {forbidden}");
        }
        assert!(POLICY.contains("script-src 'sha256-") && !POLICY.contains("unsafe"));
    }
}
