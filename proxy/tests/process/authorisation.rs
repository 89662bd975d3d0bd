//! RBAC against hosts and headers in every spelling, over real sockets: nothing that was meant to be
//! refused reaches the upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::proxy::{Proxy, Settings, ask, http_manager, mirror, upstream};

/// An RBAC filter with one policy for any principal; `permission` as YAML.
fn rbac(action: &str, permission: &str) -> String {
    format!(
        r#"{{ name: rbac, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC,
          rules: {{ action: {action}, policies: {{ one: {{
            permissions: [{permission}], principals: [{{ any: true }}] }} }} }} }} }},"#
    )
}

/// A proxy with that filter, and how many connections its upstream has had.
fn start(filter: &str) -> (Proxy, Arc<AtomicUsize>) {
    let reached = Arc::new(AtomicUsize::new(0));
    let count = reached.clone();
    let upstream = upstream(move |tcp| {
        count.fetch_add(1, Relaxed);
        mirror(tcp);
    });
    let settings = Settings {
        filters: &http_manager(filter, ", normalize_path: true, merge_slashes: true"),
        ..Settings::default()
    };
    (Proxy::start(upstream, &settings), reached)
}

/// The status of the answer to this head.
fn status(proxy: &Proxy, head: &str) -> u16 {
    let answer = ask(proxy.front, &format!("{head}connection: close\r\n\r\n")).unwrap();
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok());
    status.unwrap_or_else(|| panic!("{head:?}: {answer:?}"))
}

#[test]
fn a_host_in_any_spelling_is_the_host() {
    let deny = rbac(
        "DENY",
        r#"{ header: { name: ":authority", string_match: { exact: admin.shop } } }"#,
    );
    let (proxy, reached) = start(&deny);
    for head in [
        "GET / HTTP/1.1\r\nHost: admin.shop\r\n",
        "GET / HTTP/1.1\r\nHost: ADMIN.Shop\r\n",
        "GET / HTTP/1.1\r\nHOST:\tadmin.shop \r\n",
        "GET http://admin.shop/ HTTP/1.1\r\nHost: admin.shop\r\n",
        "GET http://admin.shop/ HTTP/1.1\r\nHost: public.shop\r\n",
        "GET http://ADMIN.shop HTTP/1.1\r\nHost: public.shop\r\n",
    ] {
        assert_eq!(status(&proxy, head), 403, "{head:?}");
    }
    for head in [
        "GET / HTTP/1.1\r\nHost: public.shop\r\nHost: admin.shop\r\n",
        "GET / HTTP/1.1\r\nHost: public.shop, admin.shop\r\n",
        "GET / HTTP/1.1\r\nHost: admin.shop@public.shop\r\n",
        "GET / HTTP/1.1\r\nHost: public.shop/admin.shop\r\n",
        "GET / HTTP/1.1\r\n",
    ] {
        assert_eq!(status(&proxy, head), 400, "{head:?}");
    }
    assert_eq!(reached.load(Relaxed), 0);
    assert_eq!(
        status(&proxy, "GET / HTTP/1.1\r\nHost: public.shop\r\n"),
        200
    );
}

#[test]
fn every_value_of_a_repeated_header_is_evaluated() {
    let deny = rbac(
        "DENY",
        r#"{ header: { name: x-role, string_match: { exact: guest } } }"#,
    );
    let (proxy, reached) = start(&deny);
    for roles in [
        "X-Role: guest\r\n",
        "x-role: admin\r\nX-ROLE: guest\r\n",
        "x-role: guest\r\nx-role: admin\r\n",
        "x-role: a\r\nx-role: guest\r\nx-role: b\r\n",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: shop\r\n{roles}");
        assert_eq!(status(&proxy, &head), 403, "{roles:?}");
    }
    let allow = rbac(
        "ALLOW",
        r#"{ header: { name: x-role, string_match: { exact: admin } } }"#,
    );
    let (proxy_that_allows, never) = start(&allow);
    for roles in [
        "",
        "x-role: guest\r\n",
        "x-role: admin\r\nx-role: guest\r\n",
        "x-role: guest\r\nx-role: admin\r\n",
        "x-role: admin,guest\r\n",
        "x-role: adminx\r\n",
        "x-role:\r\n",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: shop\r\n{roles}");
        assert_eq!(status(&proxy_that_allows, &head), 403, "{roles:?}");
    }
    assert_eq!((reached.load(Relaxed), never.load(Relaxed)), (0, 0));
    let admin = "GET / HTTP/1.1\r\nHost: shop\r\nx-role: admin\r\n";
    assert_eq!(status(&proxy_that_allows, admin), 200);
}

#[test]
fn a_path_in_any_spelling_is_matched_by_the_policy() {
    let deny = rbac("DENY", r#"{ url_path: { path: { prefix: "/admin" } } }"#);
    let (proxy, reached) = start(&deny);
    for path in [
        "/admin",
        "/admin/x",
        "//admin",
        "///admin//x",
        "/./admin",
        "/x/../admin",
        "/x/y/../../admin",
        "/%2e/admin",
        "/x/%2e%2E/admin",
        "/admin?q=/x",
        "http://shop/x/../admin",
        "http://shop//admin",
        "/\\admin",
        "/%61dmin",
        "/%61%64%6D%69%6E/x",
        "/admin%2fx",
        "/x%2f..%2fadmin",
        "/x%5c..%5cadmin",
        "/admin;x",
        "/;x/admin",
        "/x/..;/admin",
        "/x/%2e%2e;y/admin",
        "/x/..%3b/admin",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n");
        assert_eq!(status(&proxy, &head), 403, "{path}");
    }
    // What is ambiguous is refused, and what is kept unchanged is evaluated unchanged.
    for path in ["/x#/admin", "/x y", "admin", "/\u{1}admin"] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n");
        assert_eq!(status(&proxy, &head), 400, "{path}");
    }
    assert_eq!(reached.load(Relaxed), 0);
    for path in [
        "/%c0%af/admin",
        "/x;admin",
        "/x%20admin",
        "/x?/admin",
        "/%2561dmin",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n");
        let answer = ask(proxy.front, &format!("{head}connection: close\r\n\r\n")).unwrap();
        // Evaluated and forwarded in the same form.
        assert!(
            answer.contains(&format!("GET {path} HTTP/1.1\r\n")),
            "{path}: {answer}"
        );
    }
}
