//! Reads a manifest of which a part is invalid. In a cluster that must not disable the rest: the
//! API server accepted the object, it may be of a newer version than this program, and others refer
//! to it. [`read()`] removes the part by its path, reports it, and reads again.
//!
//! Removing a part must not allow more than before: a match is removed with its rule; a rule whose
//! filter is unknown answers 500, as Gateway API requires; an invalid rule of an Allow policy is
//! removed, one of a Deny policy denies everything; a policy with too many invalid parts, or with a
//! target that is not wholly known, is as strict as possible for its targets; one whose targets
//! cannot be read, for its namespace (`policy`).

mod policy;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use xds_proto::yaml::{Node, Place, Value};

use crate::model::manifest::object::{FieldError, Kind, Target};
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
    let mut whole_namespace = false;
    while left_out.len() < MAX_PARTS {
        let mut field = match read::object(kind, &node) {
            Ok(object) => return (Some(targeted(object, whole_namespace)), left_out),
            Err(ReadError::Value(error)) => FieldError::new(error.path, error.message),
            Err(ReadError::Fields(fields)) => match fields.into_iter().next() {
                Some(field) => field,
                None => return (None, left_out),
            },
        };
        let path = std::mem::take(&mut field.path);
        field.path = removed.original(&path);
        let mut repair = Repair {
            kind,
            node: &mut node,
            whole_namespace: &mut whole_namespace,
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
        whole_namespace: &mut whole_namespace,
    };
    if !repair.make_strictest() {
        return (None, left_out);
    }
    let mut effect = LeftOutEffect::Strictest;
    let mut object = read::object(kind, &node).ok();
    if object.is_none() {
        let mut repair = Repair {
            kind,
            node: &mut node,
            whole_namespace: &mut whole_namespace,
        };
        if repair.for_whole_namespace().is_some() {
            effect = LeftOutEffect::StrictestInNamespace;
            object = read::object(kind, &node).ok();
        }
    }
    let message = format!("{MAX_PARTS} parts of it cannot be read");
    left_out.push(LeftOut {
        field: FieldError::new("spec", message),
        effect,
    });
    let object = object.map(|object| targeted(object, whole_namespace));
    (object, left_out)
}

/// No manifest says that a policy is for each workload of its namespace, also in the root namespace,
/// where one without targets is for the whole mesh.
fn targeted(mut object: Object, whole_namespace: bool) -> Object {
    let all = || vec![Target::Labels(BTreeMap::new())];
    match &mut object {
        Object::Authorization(policy) if whole_namespace => {
            Arc::make_mut(policy).targets = all();
        }
        Object::Mesh(policy) if whole_namespace => Arc::make_mut(policy).targets = all(),
        _ => {}
    }
    object
}

/// Elements removed from lists: path of the list and index, in the order of removal.
#[derive(Default)]
struct Removed(Vec<(String, usize)>);

impl Removed {
    /// The path in the original object.
    fn original(&self, path: &str) -> String {
        let mut path = path.to_owned();
        for (list, gone) in self.0.iter().rev() {
            if let Some((index, rest)) = element(&path, list)
                && index >= *gone
            {
                path = format!("{list}[{}]{rest}", index + 1);
            }
        }
        path
    }
}

/// The index of the element of `list` that a path leads through, and the rest of the path.
fn element<'p>(path: &'p str, list: &str) -> Option<(usize, &'p str)> {
    let (index, rest) = path
        .strip_prefix(list)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// What it does that a part is taken out.
#[derive(Clone, Copy)]
enum Repaired {
    Unused,
    Bounded,
    /// A rule of an AuthorizationPolicy.
    RuleRefuses,
    /// Of a MeshPolicy.
    StrictestMode,
    /// A policy, for its targets.
    Strictest,
    /// A policy, for all workloads of its namespace.
    StrictestInNamespace,
    MatchDropped,
    RuleDropped,
    RuleFails,
    ShareFails,
}

impl Repaired {
    /// `field`: at its path as written.
    fn of(self, field: &FieldError) -> LeftOutEffect {
        let rule = element(&field.path, "spec.rules").map_or(0, |(rule, _)| rule);
        match self {
            Repaired::Unused => LeftOutEffect::Unused,
            Repaired::Bounded => LeftOutEffect::Bounded,
            Repaired::RuleRefuses => LeftOutEffect::RuleRefuses,
            Repaired::StrictestMode => LeftOutEffect::StrictestMode,
            Repaired::Strictest => LeftOutEffect::Strictest,
            Repaired::StrictestInNamespace => LeftOutEffect::StrictestInNamespace,
            Repaired::MatchDropped => LeftOutEffect::MatchDropped,
            Repaired::RuleDropped => LeftOutEffect::RuleDropped(rule),
            Repaired::RuleFails => LeftOutEffect::RuleFails(rule),
            Repaired::ShareFails => LeftOutEffect::ShareFails,
        }
    }
}

struct Repair<'a> {
    kind: Kind,
    node: &'a mut Node<'static>,
    /// What a policy is for cannot be read, so it is for all workloads of its namespace.
    whole_namespace: &'a mut bool,
}

impl Repair<'_> {
    /// Removes the value at `path`, or what it makes invalid; `None`: the object cannot be read
    /// without it.
    fn take_out(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        match self.kind {
            Kind::HttpRoute | Kind::GrpcRoute => self.of_route(path, removed),
            Kind::AuthorizationPolicy | Kind::MeshPolicy | Kind::BackendPolicy => {
                self.of_policy(path, removed)
            }
            _ => self.of_others(path, removed).then_some(Repaired::Unused),
        }
    }

    fn of_others(&mut self, path: &str, removed: &mut Removed) -> bool {
        match self.kind {
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
            _ => self.remove(path, removed),
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
            removed.0.push((list.to_owned(), index));
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

    fn elements(&mut self, list: &str) -> usize {
        self.node.at_mut(list).map_or(0, |it| it.elements().len())
    }
}

fn text(text: &'static str) -> Node<'static> {
    scalar(text, false)
}

fn scalar(text: impl Into<Cow<'static, str>>, plain: bool) -> Node<'static> {
    let text = text.into();
    node(Value::Scalar { text, plain })
}

fn node(value: Value<'static>) -> Node<'static> {
    Node {
        place: Place::default(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::manifest::authorization::{Action, AuthorizationPolicy, AuthorizationRule};
    use crate::model::manifest::policy::{EgressMode, MtlsMode};
    use crate::model::manifest::route::{BackendKind, Route};
    use crate::source::kubernetes::decode::Manifest;

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
        let selector = json!({"matchLabels": {"app": "a"}});
        let custom = policy(json!({"selector": selector, "action": "Custom"})).unwrap();
        assert_eq!((custom.targets.len(), custom.rules.len()), (1, 0));
        let audit = policy(json!({"action": "Audit", "rules": rules, "x": 1})).unwrap();
        assert_eq!(audit.rules, [AuthorizationRule::default()]);
    }

    /// Targets, action and number of rules of an AuthorizationPolicy, and what is said of it first.
    fn authorization(spec: Json) -> (Vec<Target>, Action, usize, String) {
        let (object, said) = policy_beside(Kind::AuthorizationPolicy, spec, None);
        let Object::Authorization(policy) = object else {
            panic!("{object:?}")
        };
        let said = said.lines().next().unwrap_or_default().to_owned();
        (
            policy.targets.clone(),
            policy.action,
            policy.rules.len(),
            said,
        )
    }

    fn labels(pairs: &[(&str, &str)]) -> Target {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Target::Labels(owned.collect())
    }

    /// Were such a policy not in force, what it denied would be open.
    #[test]
    fn an_unknown_field_in_a_target_or_selector_keeps_the_policy_in_force_for_the_rest() {
        let workload = |name: &str| Target::Workload(name.to_owned());
        let elsewhere = json!({"kind": "Workload", "name": "db", "namespace": "shop"});
        let web = json!({"kind": "Workload", "name": "web"});
        let section = json!({"kind": "Workload", "name": "db", "sectionName": "sql"});
        let both = json!({"matchLabels": {"app": "a"}, "matchExpressions": []});
        for (place, value, targets) in [
            ("targetRefs", json!([elsewhere]), vec![workload("db")]),
            (
                "targetRefs",
                json!([web, elsewhere]),
                vec![workload("web"), workload("db")],
            ),
            ("targetRefs", json!([section]), vec![workload("db")]),
            ("selector", both, vec![labels(&[("app", "a")])]),
        ] {
            let rule = json!({"from": [{"namespaces": ["a"]}]});
            for (action, rules) in [("Deny", 1), ("Allow", 0), ("Audit", 1)] {
                let spec = json!({"action": action, place: value, "rules": [rule]});
                let (found, does, count, said) = authorization(spec);
                assert_eq!((&found, count), (&targets, rules), "{action}: {said}");
                assert_eq!(format!("{does:?}"), action);
                assert!(said.starts_with(&format!("spec.{place}")), "{said}");
                assert!(said.ends_with("all that it can for its targets"), "{said}");
            }
        }
        let spec = json!({"targetRefs": [elsewhere], "mtls": {"mode": "Permissive"}});
        let (object, said) = policy_beside(Kind::MeshPolicy, spec, None);
        let Object::Mesh(policy) = object else {
            panic!("{said}")
        };
        let mode = policy.spec.mtls.as_ref().and_then(|mtls| mtls.mode);
        assert_eq!((mode, policy.spec.egress), (Some(MtlsMode::Strict), None));
        assert_eq!(policy.targets, [workload("db")]);
    }

    #[test]
    fn a_policy_whose_target_cannot_be_read_closes_its_namespace() {
        let pod = json!({"kind": "Pod", "name": "a"});
        let many: Vec<Json> = (0..17)
            .map(|n| json!({"kind": "Workload", "name": format!("w{n}")}))
            .collect();
        for (place, value) in [
            ("targetRefs", json!([pod])),
            ("targetRefs", json!([{"kind": "Service", "name": "b"}, pod])),
            ("targetRefs", json!([{"kind": "Workload"}])),
            ("targetRefs", json!(["db"])),
            ("targetRefs", json!("db")),
            ("targetRefs", json!(many)),
            ("selector", json!({"matchLabels": {}})),
            ("selector", json!({"matchLabels": {"app": "no value"}})),
            ("selector", json!({"matchExpressions": []})),
            ("selector", json!("app=a")),
        ] {
            let rule = json!({"from": [{"namespaces": ["a"]}]});
            for (action, rules) in [("Deny", 1), ("Allow", 0)] {
                let spec = json!({"action": action, place: value, "rules": [rule]});
                let (targets, _, count, said) = authorization(spec);
                assert_eq!(
                    (targets, count),
                    (vec![labels(&[])], rules),
                    "{value}: {said}"
                );
            }
            let spec = json!({place: value, "mtls": {"mode": "Permissive"}});
            let (object, said) = policy_beside(Kind::MeshPolicy, spec, None);
            let Object::Mesh(policy) = object else {
                panic!("{said}")
            };
            let mode = policy.spec.mtls.as_ref().and_then(|mtls| mtls.mode);
            let egress = policy.spec.egress.map(|it| it.mode);
            assert_eq!(
                (mode, egress),
                (Some(MtlsMode::Strict), Some(EgressMode::Block))
            );
            assert_eq!(policy.targets, [labels(&[])], "{value}");
        }
        // It guards nothing.
        let spec = json!({"targetRefs": [pod], "accessLog": {"format": "Off"}});
        assert_eq!(parts(Kind::MeshPolicy, spec).0, None);
        let odd: serde_json::Map<String, Json> =
            (0..100).map(|n| (format!("x{n}"), json!(1))).collect();
        let spec = json!({"action": "Deny", "targetRefs": [odd], "rules": [{}]});
        let (targets, _, rules, said) = authorization(spec);
        assert_eq!((targets, rules), (vec![labels(&[])], 1), "{said}");
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
            "mtls": {"mode": "Quantum", "ports": {"80": "New"}},
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

    /// A policy with a field beside its `spec`, and what is said of it.
    fn policy_beside(kind: Kind, spec: Json, beside: Option<(&str, Json)>) -> (Object, String) {
        let mut object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec});
        if let Some((field, value)) = beside {
            object[field] = value;
        }
        let manifest: Manifest = serde_json::from_value(object).unwrap();
        let (object, left_out) = read(kind, manifest.node);
        let parts = left_out.iter().map(ToString::to_string);
        (object.unwrap(), parts.collect::<Vec<_>>().join("\n"))
    }

    /// What the API server keeps of fields that it does not know: each may be one that narrows.
    #[test]
    fn an_unknown_field_of_an_allow_policy_opens_nothing() {
        let anyone = json!([{"from": [{"namespaces": ["a"]}]}]);
        let targets = json!([{"kind": "Workload", "name": "w"}]);
        let misspelt = json!([{"to": [{"prots": [80]}]}]);
        for (spec, beside, path) in [
            (
                json!({"rules": misspelt}),
                None,
                "spec.rules[0].to[0].prots",
            ),
            (json!({"rules": [{"when": []}]}), None, "spec.rules[0].when"),
            (json!({"rules": anyone, "odd": {}}), None, "spec.odd"),
            (json!({"rules": anyone, "a.b": {}}), None, "spec.a.b"),
            (json!({"rules": anyone}), Some(("odd", targets)), "odd"),
        ] {
            let (object, said) = policy_beside(Kind::AuthorizationPolicy, spec, beside);
            let Object::Authorization(policy) = object else {
                panic!("{object:?}")
            };
            assert!(policy.rules.is_empty(), "{path}: {policy:?}");
            let expected = format!("{path}: unknown field");
            assert!(said.starts_with(&expected), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }

    #[test]
    fn an_unknown_field_of_a_mesh_policy_weakens_no_mode() {
        let modes = |spec: Json, beside: Option<(&str, Json)>| {
            let (object, said) = policy_beside(Kind::MeshPolicy, spec, beside);
            let Object::Mesh(policy) = object else {
                panic!("{object:?}")
            };
            let mtls = policy.spec.mtls.as_ref().and_then(|mtls| mtls.mode);
            (mtls, policy.spec.egress.map(|it| it.mode), said)
        };
        let weak = json!({"mode": "Permissive"});
        let limited = json!({"mode": "Disabled", "for": ["x"]});
        for (spec, beside, path) in [
            (json!({"mtls": {"mod": "Strict"}}), None, "spec.mtls.mod"),
            (json!({"mtls": limited}), None, "spec.mtls.for"),
            (json!({"mtls": weak, "odd": {}}), None, "spec.odd"),
            (json!({"mtls": weak}), Some(("odd", json!([]))), "odd"),
        ] {
            let (mtls, egress, said) = modes(spec, beside);
            assert_eq!((mtls, egress), (Some(MtlsMode::Strict), None), "{path}");
            let expected = format!("{path}: unknown field");
            assert!(said.starts_with(&expected), "{said}");
        }
        let egress = json!({"mode": "Allow", "except": ["10.0.0.0/8"]});
        let (_, egress, said) = modes(json!({"egress": egress}), None);
        assert_eq!(egress, Some(EgressMode::Block), "{said}");
        // What says nothing of access is left out alone.
        let log = json!({"format": "Json", "colour": true});
        let (mtls, _, said) = modes(json!({"mtls": weak, "accessLog": log}), None);
        assert_eq!(mtls, Some(MtlsMode::Permissive), "{said}");
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
