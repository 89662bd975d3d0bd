//! What of the API's answers is of one namespace. An edge is of both its ends' namespaces.
//!
//! Empty names no namespace: everything is kept.

use crate::types::{Finding, Objects, Proxies, Routes};

fn is_of(namespace: &str, of: &str) -> bool {
    namespace.is_empty() || namespace == of
}

pub fn proxies(all: &mut Proxies, namespace: &str) {
    all.proxies.retain(|it| is_of(namespace, &it.namespace));
}

/// Errors of which no object is known are of no namespace.
pub fn objects(all: &mut Objects, namespace: &str) {
    all.objects.retain(|it| is_of(namespace, &it.namespace));
    all.file_errors.retain(|it| is_of(namespace, &it.namespace));
}

pub fn findings(all: &mut Vec<Finding>, namespace: &str) {
    all.retain(|it| is_of(namespace, &it.namespace));
}

/// Hosts that are no Service's, as addresses of workloads, are of no namespace. `domain`: in which
/// Services have their names.
pub fn routes(all: &mut Routes, namespace: &str, domain: &str) {
    all.services
        .retain(|it| is_of(namespace, namespace_of_host(&it.service, domain)));
}

/// `web.shop.svc.cluster.local` → `shop`; else empty.
fn namespace_of_host<'h>(host: &'h str, domain: &str) -> &'h str {
    let name = host.strip_suffix(domain);
    let name = name.and_then(|name| name.strip_suffix(".svc."));
    let namespace = name.and_then(|name| name.rsplit_once('.'));
    namespace.map_or("", |(_, namespace)| namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{FileError, Object, Proxy, ServiceRoutes, Severity};

    #[test]
    fn only_what_is_of_the_namespace_is_kept() {
        let proxy = |namespace: &str| Proxy {
            namespace: namespace.into(),
            ..Proxy::default()
        };
        let object = |namespace: &str| Object {
            namespace: namespace.into(),
            ..Object::default()
        };
        let error = |namespace: &str| FileError {
            namespace: namespace.into(),
            ..FileError::default()
        };
        let finding = |namespace: &str| Finding {
            severity: Severity::Info,
            what: String::new(),
            location: String::new(),
            todo: String::new(),
            namespace: namespace.into(),
        };
        let all = ["shop", "bank", "", "shop-2"];
        for (namespace, kept) in [("shop", 1), ("", 4), ("none", 0)] {
            let mut some = Proxies {
                proxies: all.map(proxy).into(),
                ..Proxies::default()
            };
            proxies(&mut some, namespace);
            assert_eq!(some.proxies.len(), kept);
            let mut some = Objects {
                objects: all.map(object).into(),
                file_errors: all.map(error).into(),
                ..Objects::default()
            };
            objects(&mut some, namespace);
            assert_eq!((some.objects.len(), some.file_errors.len()), (kept, kept));
            let mut some = all.map(finding).into();
            findings(&mut some, namespace);
            assert_eq!(some.len(), kept);
        }
    }

    #[test]
    fn a_services_namespace_is_in_its_host() {
        for (host, namespace) in [
            ("web.shop.svc.cluster.local", "shop"),
            ("web-0.web.shop.svc.cluster.local", "shop"),
            ("10.1.2.3", ""),
            ("example.com", ""),
            ("shop.svc.cluster.local", ""),
            ("web.shop.svc.cluster.local.example.com", ""),
        ] {
            assert_eq!(
                namespace_of_host(host, "cluster.local"),
                namespace,
                "{host}"
            );
        }
        let of = |host: &str| ServiceRoutes {
            service: host.into(),
            ..ServiceRoutes::default()
        };
        let mut all = Routes {
            services: [
                "web.shop.svc.cluster.local",
                "x.bank.svc.cluster.local",
                "10.1.2.3",
            ]
            .map(of)
            .into(),
        };
        routes(&mut all, "shop", "cluster.local");
        assert_eq!(all.services.len(), 1);
        // `--cluster-domain`
        let mut all = Routes {
            services: ["web.shop.svc.corp.example", "web.shop.svc.cluster.local"]
                .map(of)
                .into(),
        };
        routes(&mut all, "shop", "corp.example");
        assert_eq!(all.services.len(), 1);
        assert_eq!(all.services[0].service, "web.shop.svc.corp.example");
    }
}
