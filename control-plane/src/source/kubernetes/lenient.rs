//! Reads a manifest of which a part is invalid. In a cluster that must not disable the rest: the
//! API server accepted the object, it may be of a newer version than this program, and others refer
//! to it. [`read`] removes the part by its path, reports it, and reads again.
//!
//! What is removed must not allow more than before: an invalid match is removed with its whole
//! rule; a rule with an unknown filter answers 500, as Gateway API requires; an invalid rule of a
//! policy allows nothing, or denies everything.

use std::borrow::Cow;

use xds_proto::yaml::{Node, Place, Value};

use crate::model::manifest::object::{FieldError, Kind};
use crate::model::manifest::read::{self, Object, ReadError};

/// How many parts of one object may be removed.
const MAX_PARTS: usize = 64;

/// The object, if enough of it is valid, and the removed parts, by their paths in the original.
pub fn read(kind: Kind, mut node: Node<'static>) -> (Option<Object>, Vec<FieldError>) {
    let mut left_out = Vec::new();
    let mut removed = Removed::default();
    while left_out.len() < MAX_PARTS {
        let mut error = match read::object(kind, &node) {
            Ok(object) => return (Some(object), left_out),
            Err(ReadError::Value(error)) => FieldError::new(error.path, error.message),
            Err(ReadError::Fields(fields)) => match fields.into_iter().next() {
                Some(field) => field,
                None => return (None, left_out),
            },
        };
        let path = std::mem::take(&mut error.path);
        error.path = removed.original(&path);
        left_out.push(error);
        let mut repair = Repair {
            kind,
            node: &mut node,
        };
        if !repair.take_out(&path, &mut removed) {
            return (None, left_out);
        }
    }
    (None, left_out)
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

struct Repair<'a> {
    kind: Kind,
    node: &'a mut Node<'static>,
}

impl Repair<'_> {
    /// Removes the value at `path`, or what it makes invalid; false: the object cannot be read
    /// without it.
    fn take_out(&mut self, path: &str, removed: &mut Removed) -> bool {
        let targets = path.starts_with("spec.targetRefs");
        match self.kind {
            Kind::HttpRoute | Kind::GrpcRoute => self.of_route(path, removed),
            Kind::AuthorizationPolicy => !targets && self.of_authorization(path, removed),
            Kind::MeshPolicy => !targets && self.of_mesh_policy(path, removed),
            Kind::BackendPolicy => !targets && self.remove(path, removed),
            // Only entries of `from` and `to` are removed: without one of the lists it would be
            // another grant.
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
            Kind::Service | Kind::EndpointSlice | Kind::Workload => self.remove(path, removed),
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

    fn of_route(&mut self, path: &str, removed: &mut Removed) -> bool {
        if let Some((index, _)) = element(path, "spec.parentRefs") {
            return self.remove(&format!("spec.parentRefs[{index}]"), removed);
        }
        if matches!(path, "spec.parentRefs" | "spec.rules") {
            return false;
        }
        let Some((index, rest)) = element(path, "spec.rules") else {
            return self.remove(path, removed);
        };
        let rule = format!("spec.rules[{index}]");
        let matches = format!("{rule}.matches");
        if let Some((index, _)) = element(path, &matches) {
            let others = self.elements(&matches) > 1;
            let what = if others {
                format!("{matches}[{index}]")
            } else {
                rule
            };
            return self.remove(&what, removed);
        }
        if rest.starts_with(".matches") {
            return self.remove(&rule, removed);
        }
        if rest.starts_with(".filters") {
            self.node.remove(&format!("{rule}.backendRefs"));
            return self.node.remove(&format!("{rule}.filters"));
        }
        match element(rest, ".backendRefs") {
            Some((index, _)) => self.spoil_backend(&format!("{rule}.backendRefs[{index}]")),
            None => self.remove(path, removed),
        }
    }

    /// A backend that is invalid keeps its weight; that share of the requests is answered 500.
    fn spoil_backend(&mut self, path: &str) -> bool {
        let Some(backend) = self.node.at_mut(path) else {
            return false;
        };
        let weight = backend.get("weight").map(Node::text);
        let weight = weight.and_then(|text| text.parse::<u32>().ok());
        let mut entries = vec![
            (text("kind"), text("Unreadable")),
            (text("name"), text("unreadable")),
        ];
        if let Some(weight) = weight {
            entries.push((text("weight"), scalar(weight.to_string(), true)));
        }
        backend.value = Value::Mapping(entries);
        true
    }

    fn of_authorization(&mut self, path: &str, removed: &mut Removed) -> bool {
        let action = self.node.at_mut("spec.action");
        let denies = action.is_some_and(|it| it.text().eq_ignore_ascii_case("deny"));
        if path == "spec.action" {
            return false;
        }
        if let Some((index, _)) = element(path, "spec.rules") {
            let rule = format!("spec.rules[{index}]");
            return match (denies, self.node.at_mut(&rule)) {
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
        let rules = match denies {
            true => vec![node(Value::Mapping(Vec::new()))],
            false => Vec::new(),
        };
        let replaced = self.node.at_mut("spec.rules");
        let replaced = replaced.map(|it| it.value = Value::Sequence(rules));
        let gone = path != "spec.rules" && self.node.remove(path);
        gone || replaced.is_some()
    }

    fn of_mesh_policy(&mut self, path: &str, removed: &mut Removed) -> bool {
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
    use crate::model::manifest::authorization::{AuthorizationPolicy, AuthorizationRule};
    use crate::model::manifest::policy::MtlsMode;
    use crate::model::manifest::route::Route;
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
        (object, left_out.into_iter().map(|it| it.path).collect())
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
                "spec.ports[1]",
                "spec.sessionAffinity"
            ]
        );
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
        let shares: Vec<_> = shares.map(|it| (it.to.service, it.weight)).collect();
        assert_eq!(shares, [(true, 9), (false, 1)]);
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
        assert_eq!(policy(json!({"action": "Custom", "rules": rules})), None);
        let target = json!([{"kind": "Pod", "name": "a"}]);
        assert_eq!(policy(json!({"targetRefs": target, "rules": rules})), None);
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
