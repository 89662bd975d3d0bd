//! Reads a manifest of which a part is invalid. In a cluster that must not disable the rest: the
//! API server accepted the object, it may be of a newer version than this program, and others refer
//! to it. [`read()`] removes the part by its path, reports it, and reads again.
//!
//! Removing a part must not allow more than before: a match is removed with its rule; a rule whose
//! filter is unknown answers 500, as Gateway API requires; an invalid rule of an Allow policy is
//! removed, one of a Deny policy denies everything; a policy with too many invalid parts is as
//! strict as possible for its targets; a BackendTLSPolicy that does not say how certificates are verified
//! makes calls fail.

use xds_proto::yaml::{Node, Value};

use super::decode::{node, scalar};
use super::removed::{Removed, element};
use crate::model::manifest::object::{FieldError, Kind};
use crate::model::manifest::read::{self, Object, ReadError};
use crate::model::manifest::reference::UNREADABLE;
use crate::model::manifest::route_spec::MAX_ATTEMPTS;
use crate::model::mesh::change::{LeftOut, LeftOutEffect};

/// How many parts of one object may be removed.
const MAX_PARTS: usize = 64;

/// The object, if enough of it is valid, and the removed parts, by their paths in the original.
pub fn read(kind: Kind, mut node: Node<'static>) -> (Option<Object>, Vec<LeftOut>) {
    let mut left_out: Vec<LeftOut> = Vec::new();
    let mut removed = Removed::default();
    while left_out.len() < MAX_PARTS {
        let mut field = match read::object(kind, &node) {
            Ok(object) => return (Some(object), left_out),
            Err(ReadError::Value(error)) => FieldError::new(error.path, error.message),
            Err(ReadError::Fields(fields)) => match fields.into_iter().next() {
                Some(field) => field,
                None => return (None, left_out),
            },
        };
        let path = std::mem::take(&mut field.path);
        if kind == Kind::AuthorizationPolicy && path == "spec.action" {
            field.message.push_str("; so the policy refuses everything");
        }
        field.path = removed.original(&path);
        let mut repair = Repair {
            kind,
            node: &mut node,
        };
        let effect = repair.take_out(&path, &mut removed);
        left_out.push(LeftOut {
            effect: effect.map_or(LeftOutEffect::Unused, |effect| effect.of(&field)),
            field,
        });
        if effect.is_none() {
            return (None, left_out);
        }
    }
    let mut repair = Repair {
        kind,
        node: &mut node,
    };
    if !repair.make_strictest() {
        return (None, left_out);
    }
    let message = format!("{MAX_PARTS} parts of it cannot be read; it refuses all that it can");
    left_out.push(LeftOut {
        field: FieldError::new("spec", message),
        effect: LeftOutEffect::Unused,
    });
    (read::object(kind, &node).ok(), left_out)
}

/// What it does that a part is taken out.
#[derive(Clone, Copy)]
enum Repaired {
    Unused,
    Bounded,
    MatchDropped,
    RuleDropped,
    RuleFails,
    ShareFails,
    CallsFail,
}

impl Repaired {
    /// `field`: at its path as written.
    fn of(self, field: &FieldError) -> LeftOutEffect {
        let rule = element(&field.path, "spec.rules").map_or(0, |(rule, _)| rule);
        match self {
            Repaired::Unused => LeftOutEffect::Unused,
            Repaired::Bounded => LeftOutEffect::Bounded,
            Repaired::MatchDropped => LeftOutEffect::MatchDropped,
            Repaired::RuleDropped => LeftOutEffect::RuleDropped(rule),
            Repaired::RuleFails => LeftOutEffect::RuleFails(rule),
            Repaired::ShareFails => LeftOutEffect::ShareFails,
            Repaired::CallsFail => LeftOutEffect::CallsFail,
        }
    }
}

struct Repair<'a> {
    kind: Kind,
    node: &'a mut Node<'static>,
}

impl Repair<'_> {
    /// Removes the value at `path`, or what it makes invalid; `None`: the object cannot be read
    /// without it.
    fn take_out(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        match self.kind {
            kind if kind.is_route() => self.of_route(path, removed),
            Kind::BackendTlsPolicy if path.starts_with("spec.validation") => {
                self.distrust().then_some(Repaired::CallsFail)
            }
            _ => self.of_others(path, removed).then_some(Repaired::Unused),
        }
    }

    fn of_others(&mut self, path: &str, removed: &mut Removed) -> bool {
        if let Some((index, _)) = element(path, "spec.targetRefs") {
            // A policy without any target applies to its whole namespace.
            let others = self.elements("spec.targetRefs") > 1;
            return others && self.remove(&format!("spec.targetRefs[{index}]"), removed);
        }
        let targets = path.starts_with("spec.targetRefs");
        match self.kind {
            Kind::AuthorizationPolicy => !targets && self.of_authorization(path, removed),
            Kind::MeshPolicy => !targets && self.of_mesh_policy(path, removed),
            Kind::BackendPolicy | Kind::BackendTlsPolicy => !targets && self.remove(path, removed),
            // Only entries of `from` and `to` are removed: a grant without one of the lists would
            // mean another one.
            Kind::ReferenceGrant => {
                let within = ["spec.from", "spec.to"].map(|list| (list, element(path, list)));
                match within
                    .into_iter()
                    .find_map(|(list, at)| Some((list, at?.0)))
                {
                    Some((list, index)) => self.remove(&format!("{list}[{index}]"), removed),
                    None => !path.starts_with("spec.") && self.remove(path, removed),
                }
            }
            Kind::Service
            | Kind::EndpointSlice
            | Kind::Workload
            | Kind::ConfigMap
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::TlsRoute => self.remove(path, removed),
        }
    }

    /// Removes a field or an element, unless the object cannot be without it.
    fn remove(&mut self, path: &str, removed: &mut Removed) -> bool {
        let needed = ["spec", "metadata", "metadata.name", "metadata.namespace"];
        if needed.contains(&path) || !self.node.remove(path) {
            return false;
        }
        if let Some((list, index)) = path.strip_suffix(']').and_then(|it| it.rsplit_once('['))
            && let Ok(index) = index.parse()
        {
            removed.add(list, index);
        }
        true
    }

    fn of_route(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        if let Some((index, _)) = element(path, "spec.parentRefs") {
            let gone = self.remove(&format!("spec.parentRefs[{index}]"), removed);
            return gone.then_some(Repaired::Unused);
        }
        if matches!(path, "spec.parentRefs" | "spec.rules") {
            return None;
        }
        if self.kind == Kind::TlsRoute && path.starts_with("spec.hostnames") {
            // Without any it would match every name.
            let (index, _) = element(path, "spec.hostnames")?;
            let others = self.elements("spec.hostnames") > 1;
            let gone = others && self.remove(&format!("spec.hostnames[{index}]"), removed);
            return gone.then_some(Repaired::MatchDropped);
        }
        let Some((index, rest)) = element(path, "spec.rules") else {
            return self.remove(path, removed).then_some(Repaired::Unused);
        };
        let rule = format!("spec.rules[{index}]");
        let matches = format!("{rule}.matches");
        if let Some((index, _)) = element(path, &matches)
            && self.elements(&matches) > 1
        {
            let gone = self.remove(&format!("{matches}[{index}]"), removed);
            return gone.then_some(Repaired::MatchDropped);
        }
        if rest.starts_with(".matches") {
            let gone = self.remove(&rule, removed);
            return gone.then_some(Repaired::RuleDropped);
        }
        if rest.starts_with(".filters") {
            // The filters of an only backend count as the rule's, which may have none itself.
            let backends = self.node.remove(&format!("{rule}.backendRefs"));
            let filters = self.node.remove(&format!("{rule}.filters"));
            return (backends || filters).then_some(Repaired::RuleFails);
        }
        if let Some((index, _)) = element(rest, ".backendRefs") {
            let spoilt = self.spoil_backend(&format!("{rule}.backendRefs[{index}]"));
            return spoilt.then_some(Repaired::ShareFails);
        }
        if rest == ".retry.attempts" && self.bound_attempts(path) {
            return Some(Repaired::Bounded);
        }
        self.remove(path, removed).then_some(Repaired::Unused)
    }

    /// More retries than are made become as many as are.
    fn bound_attempts(&mut self, path: &str) -> bool {
        let Some(attempts) = self.node.at_mut(path) else {
            return false;
        };
        let given = attempts.text().parse::<u64>();
        let too_many = given.is_ok_and(|given| given > u64::from(MAX_ATTEMPTS));
        if too_many {
            *attempts = scalar(MAX_ATTEMPTS.to_string(), true);
        }
        too_many
    }

    /// A backend that is invalid keeps its weight; that share of the requests is answered 500.
    fn spoil_backend(&mut self, path: &str) -> bool {
        let Some(backend) = self.node.at_mut(path) else {
            return false;
        };
        let weight = backend.get("weight").map(Node::text);
        let weight = weight.and_then(|text| text.parse::<u32>().ok());
        let (kind, group) = UNREADABLE;
        let mut entries = vec![
            (text("kind"), text(kind)),
            (text("group"), text(group)),
            (text("name"), text("unreadable")),
        ];
        if let Some(weight) = weight {
            entries.push((text("weight"), scalar(weight.to_string(), true)));
        }
        backend.value = Value::Mapping(entries);
        true
    }

    /// A policy whose certificates cannot be verified as it says trusts none: its services are not called.
    fn distrust(&mut self) -> bool {
        let Some(validation) = self.node.at_mut("spec.validation") else {
            return false;
        };
        let (kind, group) = UNREADABLE;
        let entries = [("kind", kind), ("group", group), ("name", "unreadable")];
        let entries = entries.map(|(name, value)| (text(name), text(value)));
        let refs = node(Value::Sequence(vec![node(Value::Mapping(entries.into()))]));
        validation.value = Value::Mapping(vec![
            (text("caCertificateRefs"), refs),
            (text("hostname"), text("unreadable")),
        ]);
        true
    }

    fn of_authorization(&mut self, path: &str, removed: &mut Removed) -> bool {
        let action = self.action();
        if path == "spec.action" {
            // The action may be one that refuses; an Allow without rules refuses everything.
            return self.make_strictest();
        }
        if let Some((index, _)) = element(path, "spec.rules") {
            let rule = format!("spec.rules[{index}]");
            return match (action == "Deny", self.node.at_mut(&rule)) {
                (true, Some(rule)) => {
                    rule.value = Value::Mapping(Vec::new());
                    true
                }
                _ => self.remove(&rule, removed),
            };
        }
        if !path.starts_with("spec.") {
            return self.remove(path, removed);
        }
        // The field may have narrowed what the rules match.
        let rules = strictest_rules(action);
        let replaced = self.node.at_mut("spec.rules");
        let replaced = replaced.map(|it| it.value = Value::Sequence(rules));
        let gone = path != "spec.rules" && self.node.remove(path);
        gone || replaced.is_some()
    }

    fn of_mesh_policy(&mut self, path: &str, removed: &mut Removed) -> bool {
        if matches!(path, "spec.mtls" | "spec.mtls.ports" | "spec.egress") {
            // None of its modes can be read, so all of them become the strictest.
            let (field, mode) = match path {
                "spec.egress" => ("egress", "Block"),
                _ => ("mtls", "Strict"),
            };
            return self.set_mode(field, mode);
        }
        let strictest = match path {
            "spec.mtls.mode" => "Strict",
            "spec.egress.mode" => "Block",
            _ if path.starts_with("spec.mtls.ports.") => "Strict",
            _ => return self.remove(path, removed),
        };
        match self.node.at_mut(path) {
            Some(mode) if mode.text() != strictest => {
                *mode = text(strictest);
                true
            }
            _ => self.remove(path, removed),
        }
    }

    /// Replaces a field of `spec` that holds a mode, if it is there.
    fn set_mode(&mut self, field: &str, mode: &'static str) -> bool {
        let Some(found) = self.node.at_mut(&format!("spec.{field}")) else {
            return false;
        };
        let is_set = found.get("mode").is_some_and(|it| it.text() == mode);
        let alone = matches!(&found.value, Value::Mapping(entries) if entries.len() == 1);
        found.value = Value::Mapping(vec![(text("mode"), text(mode))]);
        // Otherwise the same repair would repeat without end.
        !(is_set && alone)
    }

    /// The action of an AuthorizationPolicy; Allow if it has none that is known.
    fn action(&mut self) -> &'static str {
        let action = self.node.at_mut("spec.action");
        let action = action.map_or("", |it| it.text());
        let known = ["Deny", "Audit"];
        let known = known.into_iter().find(|it| it.eq_ignore_ascii_case(action));
        known.unwrap_or("Allow")
    }

    /// Removes everything but the targets of a policy, and makes it refuse what it can for them;
    /// false if a policy of this kind cannot refuse.
    fn make_strictest(&mut self) -> bool {
        let action = self.action();
        let targets = self.node.at_mut("spec.targetRefs").cloned();
        let mut spec = vec![(text("targetRefs"), targets.unwrap_or_else(empty_list))];
        match self.kind {
            Kind::AuthorizationPolicy => {
                spec.push((text("action"), text(action)));
                let rules = Value::Sequence(strictest_rules(action));
                spec.push((text("rules"), node(rules)));
            }
            Kind::MeshPolicy => {
                for (field, mode) in [("mtls", "Strict"), ("egress", "Block")] {
                    let given = self.node.at_mut(&format!("spec.{field}"));
                    if given.is_some_and(|it| !it.is_null()) {
                        let mode = Value::Mapping(vec![(text("mode"), text(mode))]);
                        spec.push((text(field), node(mode)));
                    }
                }
            }
            _ => return false,
        }
        let Some(whole) = self.node.at_mut("spec") else {
            return false;
        };
        whole.value = Value::Mapping(spec);
        true
    }

    fn elements(&mut self, list: &str) -> usize {
        self.node.at_mut(list).map_or(0, |it| it.elements().len())
    }
}

/// No rules for an Allow policy, for others one rule that matches everything.
fn strictest_rules(action: &str) -> Vec<Node<'static>> {
    match action {
        "Allow" => Vec::new(),
        _ => vec![node(Value::Mapping(Vec::new()))],
    }
}

fn empty_list() -> Node<'static> {
    node(Value::Sequence(Vec::new()))
}

fn text(text: &'static str) -> Node<'static> {
    scalar(text, false)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::manifest::authorization::{Action, AuthorizationPolicy, AuthorizationRule};
    use crate::model::manifest::backend_tls_policy::{CaRef, CaSource};
    use crate::model::manifest::policy::{EgressMode, MtlsMode};
    use crate::model::manifest::route::{BackendKind, Route};
    use crate::source::kubernetes::decode::Manifest;
    use std::sync::Arc;

    fn parts(kind: Kind, mut spec: Json) -> (Option<Object>, Vec<String>) {
        let body = spec.as_object_mut().unwrap();
        let mut object = json!({"metadata": {"name": "a", "namespace": "n"}});
        match body.contains_key("addressType") {
            true => object.as_object_mut().unwrap().append(body),
            false => object["spec"] = spec,
        }
        let manifest: Manifest = serde_json::from_value(object).unwrap();
        let (object, left_out) = read(kind, manifest.node);
        let paths = left_out.into_iter().map(|it| it.field.path);
        (object, paths.collect())
    }

    fn route(rules: Json) -> (Arc<Route>, Vec<String>) {
        let parent = json!([{"group": "", "kind": "Service", "name": "s"}]);
        let (object, left_out) = parts(
            Kind::HttpRoute,
            json!({"parentRefs": parent, "rules": rules}),
        );
        let Some(Object::Route(route)) = object else {
            panic!("{left_out:?}")
        };
        (route, left_out)
    }

    #[test]
    fn an_unknown_field_is_left_out_and_the_rest_is_read() {
        let spec = json!({
            "sessionAffinity": "ClientIP", "brandNew": {"a": 1},
            "ports": [{"port": 80, "newer": true}, {"port": 0, "name": "x"}, {"port": 81, "name": "y"}],
            "clusterIP": "10.0.0.1",
        });
        let (object, left_out) = parts(Kind::Service, spec);
        let Some(Object::Service(service)) = object else {
            panic!("{left_out:?}")
        };
        let ports: Vec<_> = service.ports.iter().map(|it| it.number).collect();
        assert_eq!(ports, [80, 81]);
        assert_eq!(
            left_out,
            [
                "spec.brandNew",
                "spec.ports[0].newer",
                "spec.ports[1].port",
                "spec.ports[1]"
            ]
        );
        // The Service says that itself, whatever its source.
        let unsupported: Vec<_> = service.unsupported.iter().map(|it| &it.path).collect();
        assert_eq!(unsupported, ["spec.sessionAffinity"]);
    }

    #[test]
    fn an_invalid_match_never_matches_more() {
        let odd = json!({"path": {"value": "/a"}, "newTest": 1});
        let good = json!({"path": {"value": "/b"}});
        let (it, left_out) = route(json!([
            {"matches": [odd.clone()]},
            {"matches": [odd.clone(), good.clone()]},
            {"matches": [good]},
            {"matches": [odd]},
        ]));
        let matches: Vec<_> = it.rules.iter().map(|rule| rule.matches.len()).collect();
        assert_eq!(matches, [1, 1]);
        assert_eq!(
            left_out,
            [
                "spec.rules[0].matches[0].newTest",
                "spec.rules[1].matches[0].newTest",
                "spec.rules[3].matches[0].newTest"
            ]
        );
    }

    #[test]
    fn an_unknown_filter_fails_its_rule_and_a_bad_backend_its_share() {
        let (it, left_out) = route(json!([
            {"filters": [{"type": "Magic"}], "backendRefs": [{"name": "a", "port": 80}], "timeouts": {"request": "1s"}},
            {"backendRefs": [{"name": "a", "port": 80, "weight": 9}, {"name": "b", "port": 80, "weight": 1, "x": 1}]},
            {"backendRefs": [{"name": "c", "port": 80}], "sessionPersistence": {}},
        ]));
        assert!(it.rules[0].backends.is_empty());
        let shares = it.rules[1].backends.iter();
        let shares: Vec<_> = shares.map(|it| (it.to.kind.clone(), it.weight)).collect();
        assert_eq!(
            shares,
            [(BackendKind::Service, 9), (BackendKind::Unreadable, 1)]
        );
        assert_eq!(it.rules[2].backends.len(), 1);
        assert_eq!(
            left_out,
            [
                "spec.rules[0].filters[0].type",
                "spec.rules[1].backendRefs[1].x",
                "spec.rules[2].sessionPersistence"
            ]
        );
    }

    #[test]
    fn a_filter_of_an_only_backend_fails_its_rule_and_no_other() {
        let redirect = json!([{"type": "RequestRedirect", "requestRedirect": {"port": 81}}]);
        let cut = json!([{"type": "URLRewrite", "urlRewrite": {
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
        }}]);
        let backend = json!([{"name": "a", "port": 80, "filters": cut}]);
        let exact = json!([{"path": {"type": "Exact", "value": "/a"}}]);
        let (it, left_out) = route(json!([
            {"matches": exact, "backendRefs": backend},
            {"filters": redirect, "backendRefs": backend},
            {"backendRefs": [{"name": "b", "port": 80}]},
        ]));
        let backends: Vec<_> = it.rules.iter().map(|rule| rule.backends.len()).collect();
        assert_eq!(backends, [0, 0, 1]);
        assert!(it.rules[0].filters.rewrite.is_none());
        assert_eq!(left_out, ["spec.rules[0].filters", "spec.rules[1].filters"]);
    }

    #[test]
    fn a_tls_route_never_matches_more_names() {
        let tls = |hostnames: Json| {
            let rules = json!([{"backendRefs": [{"name": "a", "port": 443}, {"name": "b", "port": 443, "x": 1}]}]);
            parts(
                Kind::TlsRoute,
                json!({"parentRefs": [], "hostnames": hostnames, "rules": rules}),
            )
        };
        let (object, left_out) = tls(json!(["a.example", "10.0.0.1", "*.b.example", "A"]));
        let Some(Object::Route(route)) = object else {
            panic!("{left_out:?}")
        };
        assert_eq!(route.hostnames, ["a.example", "*.b.example"]);
        let shares = route.rules[0].backends.iter();
        let shares: Vec<_> = shares.map(|it| it.to.kind.clone()).collect();
        assert_eq!(shares, [BackendKind::Service, BackendKind::Unreadable]);
        let expected = [
            "spec.rules[0].backendRefs[1].x",
            "spec.hostnames[1]",
            "spec.hostnames[3]",
        ];
        assert_eq!(left_out, expected);
        for none in [json!(["10.0.0.1"]), json!("a.example")] {
            assert_eq!(tls(none).0, None, "without names it would match all");
        }
    }

    #[test]
    fn a_policy_that_does_not_say_how_to_verify_trusts_nothing() {
        let target = json!([{"group": "", "kind": "Service", "name": "s"}]);
        let policy = |validation: Json| {
            let spec = json!({"targetRefs": target, "validation": validation, "newer": 1});
            match parts(Kind::BackendTlsPolicy, spec) {
                (Some(Object::BackendTls(policy)), left_out) => (policy, left_out),
                (other, left_out) => panic!("{other:?} {left_out:?}"),
            }
        };
        let (good, left_out) =
            policy(json!({"hostname": "a.example", "wellKnownCACertificates": "System"}));
        assert_eq!((&good.trust, left_out.len()), (&CaSource::System, 1));
        for validation in [
            json!({"hostname": "a.example", "wellKnownCACertificates": "Galaxy"}),
            json!({"hostname": "10.0.0.1", "wellKnownCACertificates": "System"}),
            json!({"hostname": "a.example"}),
            json!({"hostname": "a.example", "wellKnownCACertificates": "System", "subjectAltNames": [{"type": "Email"}]}),
            json!({"hostname": "a.example", "wellKnownCACertificates": "System", "depth": 3}),
            json!(3),
        ] {
            let (policy, left_out) = policy(validation.clone());
            let nothing = CaSource::Refs(vec![CaRef::Unreadable]);
            assert_eq!(policy.trust, nothing, "{validation} {left_out:?}");
        }
    }

    #[test]
    fn an_invalid_policy_allows_nothing_more() {
        let policy = |spec: Json| -> Option<Arc<AuthorizationPolicy>> {
            match parts(Kind::AuthorizationPolicy, spec).0? {
                Object::Authorization(policy) => Some(policy),
                other => panic!("{other:?}"),
            }
        };
        let rules =
            json!([{"from": [{"namespaces": ["a"]}]}, {"when": 1, "to": [{"ports": [80]}]}]);
        let allow = policy(json!({"rules": rules})).unwrap();
        assert_eq!(allow.rules.len(), 1);
        let deny = policy(json!({"action": "Deny", "rules": rules})).unwrap();
        assert_eq!(
            deny.rules[1],
            AuthorizationRule::default(),
            "everything is denied"
        );
        let narrowed = policy(json!({"rules": rules, "onlyOnMondays": true})).unwrap();
        assert!(narrowed.rules.is_empty(), "nothing is allowed");
        let denies = policy(json!({"action": "Deny", "rules": rules, "x": 1})).unwrap();
        assert_eq!(denies.rules, [AuthorizationRule::default()]);
        let custom = policy(json!({"action": "Custom", "rules": rules})).unwrap();
        assert_eq!((custom.action, custom.rules.len()), (Action::Allow, 0));
        let target = json!([{"kind": "Pod", "name": "a"}]);
        assert_eq!(policy(json!({"targetRefs": target, "rules": rules})), None);
        let targets = json!([{"kind": "Pod", "name": "a"}, {"kind": "Service", "name": "b"}]);
        let rest = policy(json!({"targetRefs": targets, "rules": rules})).unwrap();
        assert_eq!(rest.targets.len(), 1);
        let audit = policy(json!({"action": "Audit", "rules": rules, "x": 1})).unwrap();
        assert_eq!(audit.rules, [AuthorizationRule::default()]);
    }

    #[test]
    fn a_policy_of_which_too_much_is_unreadable_refuses_for_its_targets() {
        let target = json!([{"kind": "Workload", "name": "w"}]);
        let odd: Vec<Json> = (0..100).map(|_| json!({"odd": 1})).collect();
        for (action, rules) in [("Allow", 0), ("Deny", 1), ("Audit", 1)] {
            let spec = json!({"targetRefs": target, "action": action, "rules": odd});
            let (object, left_out) = parts(Kind::AuthorizationPolicy, spec);
            let Some(Object::Authorization(policy)) = object else {
                panic!("{left_out:?}")
            };
            assert_eq!((policy.targets.len(), policy.rules.len()), (1, rules));
            assert_eq!(format!("{:?}", policy.action), action);
            assert_eq!(left_out.last().map(String::as_str), Some("spec"));
        }
        let odd: serde_json::Map<String, Json> =
            (0..100).map(|n| (format!("x{n}"), json!(1))).collect();
        let spec = json!({"targetRefs": target, "mtls": {"mode": "Permissive"}, "defaults": odd});
        let (object, _) = parts(Kind::MeshPolicy, spec);
        let Some(Object::Mesh(policy)) = object else {
            panic!("none")
        };
        let mtls = policy.spec.mtls.clone().unwrap();
        assert_eq!(mtls.mode, Some(MtlsMode::Strict));
        assert_eq!((policy.targets.len(), policy.spec.egress), (1, None));
    }

    #[test]
    fn an_invalid_mode_is_the_strictest() {
        let spec = json!({
            "targetRefs": [{"kind": "Workload", "name": "w"}],
            "mtls": {"mode": "Quantum", "ports": {"80": "New"}, "z": 1},
            "egress": {"mode": "Ask"},
        });
        let (object, left_out) = parts(Kind::MeshPolicy, spec);
        let Some(Object::Mesh(policy)) = object else {
            panic!("none")
        };
        let mtls = policy.spec.mtls.clone().unwrap();
        assert_eq!(mtls.mode, Some(MtlsMode::Strict), "{left_out:?}");
        assert_eq!(mtls.ports.into_values().next(), Some(MtlsMode::Strict));
    }

    #[test]
    fn modes_of_another_type_are_the_strictest() {
        let mesh = |spec: Json| match parts(Kind::MeshPolicy, spec) {
            (Some(Object::Mesh(policy)), left_out) => (policy, left_out.len()),
            (other, left_out) => panic!("{other:?} {left_out:?}"),
        };
        for mtls in [json!(3), json!("Disabled"), json!([]), json!({"ports": 80})] {
            let (policy, left_out) = mesh(json!({"mtls": mtls, "egress": {"mode": "Allow"}}));
            let mode = policy.spec.mtls.as_ref().and_then(|it| it.mode);
            assert_eq!((mode, left_out), (Some(MtlsMode::Strict), 1), "{mtls}");
            let egress = policy.spec.egress.map(|it| it.mode);
            assert_eq!(egress, Some(EgressMode::Allow));
        }
        // A mode by port is for workloads only, not for a whole namespace.
        let (policy, _) = mesh(json!({"mtls": {"mode": "Permissive", "ports": {"80": "Strict"}}}));
        let mtls = policy.spec.mtls.clone().unwrap();
        assert_eq!((mtls.mode, mtls.ports.len()), (Some(MtlsMode::Strict), 0));
        for egress in [json!(3), json!("Block"), json!([])] {
            let (policy, _) = mesh(json!({"egress": egress}));
            let mode = policy.spec.egress.map(|it| it.mode);
            assert_eq!(mode, Some(EgressMode::Block), "{egress}");
        }
    }

    #[test]
    fn what_is_no_object_at_all_is_none() {
        let (object, left_out) = parts(Kind::EndpointSlice, json!({"addressType": "IPX"}));
        assert_eq!((object, left_out.len()), (None, 2));
        let many: Vec<Json> = (0..100).map(|_| json!({"port": 0})).collect();
        let (object, left_out) = parts(Kind::Service, json!({"ports": many}));
        assert_eq!((object, left_out.len()), (None, MAX_PARTS));
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["x"]}, {"addresses": ["10.0.0.1"]}]});
        let Some(Object::Slice(slice)) = parts(Kind::EndpointSlice, slice).0 else {
            panic!("none")
        };
        assert_eq!(slice.endpoints.len(), 1);
    }
}
