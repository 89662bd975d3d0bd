//! Policies of which a part is invalid: what is left must refuse at least as much as the whole would.

use xds_proto::yaml::{Node, Value};

use super::{Removed, Repair, Repaired, element, node, text};
use crate::model::manifest::object::Kind;
use crate::model::manifest::reference::UNREADABLE;

/// What the reader knows at the top of a manifest.
const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
/// What it knows in a MeshPolicy's `spec`.
const MESH_SPEC: [&str; 7] = [
    "targetRefs",
    "selector",
    "mtls",
    "egress",
    "defaults",
    "accessLog",
    "pathNormalization",
];

impl Repair<'_> {
    pub(super) fn of_policy(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        let guards = matches!(self.kind, Kind::AuthorizationPolicy | Kind::MeshPolicy);
        if guards && is_of(path, "spec.targetRefs") {
            return self.of_targets(path, removed);
        }
        if guards && is_of(path, "spec.selector") {
            return self.of_selector(path, removed);
        }
        if let Some((index, _)) = element(path, "spec.targetRefs") {
            let others = self.elements("spec.targetRefs") > 1;
            let gone = others && self.remove(&format!("spec.targetRefs[{index}]"), removed);
            return gone.then_some(Repaired::Unused);
        }
        let top = path.split(['.', '[']).next().unwrap_or_default();
        if !TOP.contains(&top) {
            return self.without_misplaced();
        }
        match self.kind {
            _ if path == "spec.targetRefs" => None,
            Kind::AuthorizationPolicy => self.of_authorization(path, removed),
            Kind::MeshPolicy => self.of_mesh_policy(path, removed),
            Kind::BackendTlsPolicy if path.starts_with("spec.validation") => {
                self.distrust().then_some(Repaired::CallsFail)
            }
            Kind::BackendTlsPolicy if path == "spec" => {
                self.make_strictest().then_some(Repaired::CallsFail)
            }
            _ => self.remove(path, removed).then_some(Repaired::Unused),
        }
    }

    /// A field that is not known may narrow a target: without it the policy is for all of the target,
    /// and the strictest there. Were it not in force, what it denied would be open.
    fn of_targets(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        let Some((index, field)) = element(path, "spec.targetRefs") else {
            return self.for_whole_namespace();
        };
        let narrowing = match field {
            // That a Workload has none is an error of its kind.
            ".kind" => format!("spec.targetRefs[{index}].sectionName"),
            "" | ".name" | ".group" => return self.for_whole_namespace(),
            _ => path.to_owned(),
        };
        match self.remove(&narrowing, removed) && self.make_strictest() {
            true => Some(Repaired::Strictest),
            false => self.for_whole_namespace(),
        }
    }

    /// As [`Self::of_targets`]: what its labels select is all that the policy is for.
    fn of_selector(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        let labels = path == "spec.selector" || is_of(path, "spec.selector.matchLabels");
        match !labels && self.remove(path, removed) && self.make_strictest() {
            true => Some(Repaired::Strictest),
            false => self.for_whole_namespace(),
        }
    }

    /// What the policy is for cannot be read: it is the strictest for all workloads of its namespace, as
    /// its target may be any of them. `None`: it guards nothing.
    pub(super) fn for_whole_namespace(&mut self) -> Option<Repaired> {
        if *self.whole_namespace || !self.make_strictest() {
            return None;
        }
        for targets in ["spec.targetRefs", "spec.selector"] {
            self.node.remove(targets);
        }
        if self.kind == Kind::MeshPolicy {
            let spec = self.node.at_mut("spec")?;
            let modes = ["mtls", "egress"].map(|field| spec.get(field).is_some());
            if !modes.contains(&true) {
                return None;
            }
            // Of the MeshPolicies of a workload one holds: a mode that this one does not set could be
            // weaker than that of the policy in whose place it is.
            spec.value = Value::Mapping(strictest_modes(|_| true));
        }
        *self.whole_namespace = true;
        Some(Repaired::StrictestInNamespace)
    }

    /// Fields beside `spec` belong into it, such as `targetRefs` with too little indentation.
    fn without_misplaced(&mut self) -> Option<Repaired> {
        let Value::Mapping(entries) = &mut self.node.value else {
            return None;
        };
        let before = entries.len();
        entries.retain(|(key, _)| TOP.contains(&key.text()));
        if entries.len() == before {
            return None;
        }
        match self.make_strictest() {
            true => Some(Repaired::Strictest),
            false => Some(Repaired::Unused),
        }
    }

    fn of_authorization(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        let action = self.action();
        if path == "spec.action" {
            // The action may be one that refuses; an Allow without rules refuses everything.
            return self.make_strictest().then_some(Repaired::Strictest);
        }
        if let Some((index, _)) = element(path, "spec.rules") {
            let rule = format!("spec.rules[{index}]");
            let repaired = match (action == "Deny", self.node.at_mut(&rule)) {
                (true, Some(rule)) => {
                    rule.value = Value::Mapping(Vec::new());
                    true
                }
                _ => self.remove(&rule, removed),
            };
            return repaired.then_some(Repaired::RuleRefuses);
        }
        if !path.starts_with("spec.") {
            return self.remove(path, removed).then_some(Repaired::Unused);
        }
        // The field may have narrowed what the rules match.
        self.make_strictest().then_some(Repaired::Strictest)
    }

    fn of_mesh_policy(&mut self, path: &str, removed: &mut Removed) -> Option<Repaired> {
        let within = path.strip_prefix("spec.").unwrap_or_default();
        let section = within.split(['.', '[']).next().unwrap_or_default();
        if path.starts_with("spec.") && !MESH_SPEC.contains(&section) {
            // The field may have narrowed where the modes hold.
            return self.make_strictest().then_some(Repaired::Strictest);
        }
        let strictest = match section {
            "mtls" => "Strict",
            "egress" => "Block",
            _ => return self.remove(path, removed).then_some(Repaired::Unused),
        };
        let is_mode = matches!(within, "mtls.mode" | "egress.mode");
        if is_mode || within.starts_with("mtls.ports.") {
            let repaired = match self.node.at_mut(path) {
                Some(mode) if mode.text() != strictest => {
                    *mode = text(strictest);
                    true
                }
                _ => self.remove(path, removed),
            };
            return repaired.then_some(Repaired::StrictestMode);
        }
        // None of its modes can be read, or what is not known may have narrowed them.
        let repaired = self.set_mode(section, strictest);
        repaired.then_some(Repaired::StrictestMode)
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

    /// A BackendTLSPolicy whose certificates cannot be verified as it says trusts none: its services are
    /// not called.
    fn distrust(&mut self) -> bool {
        match self.node.at_mut("spec.validation") {
            Some(validation) => {
                *validation = untrusting();
                true
            }
            None => self.make_strictest(),
        }
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
    pub(super) fn make_strictest(&mut self) -> bool {
        let action = self.action();
        let targets = self.node.at_mut("spec.targetRefs").cloned();
        let mut spec = vec![(text("targetRefs"), targets.unwrap_or_else(empty_list))];
        if let Some(selector) = self.node.at_mut("spec.selector").cloned() {
            spec.push((text("selector"), selector));
        }
        match self.kind {
            Kind::AuthorizationPolicy => {
                spec.push((text("action"), text(action)));
                let rules = Value::Sequence(strictest_rules(action));
                spec.push((text("rules"), node(rules)));
            }
            Kind::MeshPolicy => {
                let given = |field: &str| {
                    let given = self.node.at_mut(&format!("spec.{field}"));
                    given.is_some_and(|it| !it.is_null())
                };
                spec.extend(strictest_modes(given));
            }
            Kind::BackendTlsPolicy => spec.push((text("validation"), untrusting())),
            _ => return false,
        }
        let Some(whole) = self.node.at_mut("spec") else {
            return false;
        };
        whole.value = Value::Mapping(spec);
        true
    }
}

/// No rules for an Allow policy, for others one rule that matches everything.
fn strictest_rules(action: &str) -> Vec<Node<'static>> {
    match action {
        "Allow" => Vec::new(),
        _ => vec![node(Value::Mapping(Vec::new()))],
    }
}

/// `validation` of a BackendTLSPolicy that no certificate passes.
fn untrusting() -> Node<'static> {
    let (kind, group) = UNREADABLE;
    let entries = [("kind", kind), ("group", group), ("name", "unreadable")];
    let entries = entries.map(|(name, value)| (text(name), text(value)));
    let refs = node(Value::Sequence(vec![node(Value::Mapping(entries.into()))]));
    node(Value::Mapping(vec![
        (text("caCertificateRefs"), refs),
        (text("hostname"), text("unreadable")),
    ]))
}

/// Of a MeshPolicy, in the fields that are `given`.
fn strictest_modes(mut given: impl FnMut(&str) -> bool) -> Vec<(Node<'static>, Node<'static>)> {
    let all = [("mtls", "Strict"), ("egress", "Block")];
    let all = all.into_iter().filter(|(field, _)| given(field));
    all.map(|(field, mode)| {
        let mode = Value::Mapping(vec![(text("mode"), text(mode))]);
        (text(field), node(mode))
    })
    .collect()
}

/// Whether a path is that of a field, or leads through it.
fn is_of(path: &str, field: &str) -> bool {
    let rest = path.strip_prefix(field);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn empty_list() -> Node<'static> {
    node(Value::Sequence(Vec::new()))
}
