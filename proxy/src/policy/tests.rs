use super::*;
use crate::matcher::ValueMatch;

struct Req(Readings<'static>, Vec<(&'static str, &'static str)>);

impl RequestFacts for Req {
    fn path(&self) -> &Readings<'_> {
        &self.0
    }

    fn values(&self, name: &HeaderName, each: &mut dyn FnMut(&[u8])) {
        self.1
            .iter()
            .filter(|(n, _)| *n == &*name.name)
            .for_each(|(_, v)| each(v.as_bytes()));
    }
}

fn exact(value: &str) -> StringMatch {
    StringMatch::Exact {
        value: value.into(),
        ignore_case: false,
    }
}

fn header(value: &str) -> Permission {
    Permission::Header(HeaderMatch {
        name: HeaderName {
            id: crate::message::head::HeaderId::of(b"x-role"),
            name: "x-role".into(),
        },
        test: ValueMatch::String(exact(value)),
        invert: false,
        treat_missing_as_empty: false,
    })
}

fn rbac(action: RbacAction, permission: Permission, principal: Principal) -> Rbac {
    let policy = Policy {
        name: "p".into(),
        permissions: vec![permission],
        principals: vec![principal],
    };
    Rbac {
        enforced: Some(Rules {
            action,
            policies: vec![policy],
        }),
        shadow: None,
    }
}

fn refused(rbac: &Rbac, request: Option<&Req>) -> bool {
    let facts = Facts {
        tls: None,
        direct_remote: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 1].into(),
        destination: ([10, 0, 0, 2], 80).into(),
        sni: None,
        request: request.map(|request| request as &dyn RequestFacts),
        metadata: None,
    };
    evaluate(rbac, &facts).denied.is_some()
}

#[test]
fn every_value_of_a_repeated_header_counts_against_the_client() {
    let both = Req(
        Readings::of(b"/"),
        vec![("x-role", "admin"), ("x-role", "guest")],
    );
    let admin = Req(Readings::of(b"/"), vec![("x-role", "admin")]);
    let allow = rbac(RbacAction::Allow, header("admin"), Principal::Any);
    assert!(!refused(&allow, Some(&admin)));
    assert!(refused(&allow, Some(&both)));
    let deny = rbac(RbacAction::Deny, header("guest"), Principal::Any);
    assert!(!refused(&deny, Some(&admin)));
    assert!(refused(&deny, Some(&both)));
    // Denies clients that are not admins: one value that is not is enough.
    let not = Permission::Not(Box::new(header("admin")));
    assert!(refused(
        &rbac(RbacAction::Deny, not, Principal::Any),
        Some(&both)
    ));
}

#[test]
fn without_a_policy_that_matches_allow_refuses() {
    let rules = Rbac {
        enforced: Some(Rules {
            action: RbacAction::Allow,
            policies: vec![],
        }),
        shadow: None,
    };
    assert!(refused(&rules, None));
}

#[test]
fn an_unverified_peer_is_not_authenticated() {
    let any_peer = rbac(
        RbacAction::Allow,
        Permission::Any,
        Principal::Authenticated(None),
    );
    assert!(refused(&any_peer, None));
}

#[test]
fn ports_and_addresses() {
    let port = |port| {
        rbac(
            RbacAction::Allow,
            Permission::DestinationPort(port),
            Principal::Any,
        )
    };
    assert!(!refused(&port(80), None));
    assert!(refused(&port(81), None));
    let range = Permission::DestinationPortRange { start: 80, end: 81 };
    assert!(!refused(
        &rbac(RbacAction::Allow, range, Principal::Any),
        None
    ));
}

#[test]
fn shadow_rules_decide_nothing() {
    let mut rules = rbac(RbacAction::Deny, Permission::Any, Principal::Any);
    rules.shadow = rules.enforced.take();
    assert!(!refused(&rules, None));
}

#[test]
fn a_path_is_evaluated_in_each_form_that_apps_may_read() {
    let path = |path: &'static str| Req(Readings::of(path.as_bytes()), Vec::new());
    let rules = |action, permission| rbac(action, permission, Principal::Any);
    let is = |value: &str| Permission::UrlPath(exact(value));
    let not = |permission| Permission::Not(Box::new(permission));
    for (value, of_deny, of_allow, of_allow_not) in [
        ("/admin", true, false, true),
        ("/admin;x", true, true, true),
        ("/x/%2e%2e/admin", true, true, true),
        ("/%24dmin/..%2Fadmin", true, true, true),
        ("/public", false, true, false),
        ("/public;x", false, true, false),
        ("/public%20", false, true, false),
    ] {
        let request = path(value);
        let refused = |rbac: &Rbac| refused(rbac, Some(&request));
        let deny = rules(RbacAction::Deny, is("/admin"));
        let allow = rules(RbacAction::Allow, is("/admin"));
        let allow_not = rules(RbacAction::Allow, not(is("/admin")));
        assert_eq!(
            (refused(&deny), refused(&allow), refused(&allow_not)),
            (of_deny, of_allow, of_allow_not),
            "{value}"
        );
    }
    // A policy that contains escapes as received still allows.
    let allow = rules(RbacAction::Allow, is("/a%20b"));
    assert!(!refused(&allow, Some(&path("/a%20b"))));
    // An app may drop the parameters or not: both have to be allowed.
    let both = Permission::UrlPath(StringMatch::Prefix {
        value: "/a".into(),
        ignore_case: false,
    });
    assert!(!refused(
        &rules(RbacAction::Allow, both),
        Some(&path("/a;x/b"))
    ));
}
