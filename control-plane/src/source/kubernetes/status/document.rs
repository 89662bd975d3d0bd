//! The desired status of an object, as JSON, merged into its present status.
//!
//! Entries of other controllers, and conditions of types that are not ours, stay as and where they
//! are (Gateway API, RouteStatus and RouteParentStatus, notes for implementors). A condition whose
//! status is unchanged keeps its `lastTransitionTime`.

use std::borrow::Cow;

use serde_json::{Map, Value as Json, json};

use crate::model::Kind;
use crate::model::manifest::route::Parent;
use crate::model::mesh::change::{ClusterDetails, LeftOut};
use crate::model::mesh::status::{Condition, ObjectStatus, fields_left_out};

/// `controllerName` of our entries.
pub const CONTROLLER: &str = "mesh.anyam.dev/control";
/// Condition types that Gateway API defines. Others that we set on its kinds have our domain as prefix.
const STANDARD: [&str; 3] = ["Accepted", "ResolvedRefs", "PartiallyInvalid"];
const DOMAIN: &str = "mesh.anyam.dev/";
/// Bytes of a condition's message; the API server takes 32 KiB.
const MAX_MESSAGE: usize = 8 << 10;

/// A list of conditions by what they are about, in the status of some kinds.
#[derive(Clone, Copy, Debug)]
struct EntryList {
    field: &'static str,
    /// Of an entry: what it is about.
    about: &'static str,
    /// Entries that the API server takes.
    most: usize,
}

/// `None`: the status has conditions of the object as a whole.
fn entry_list(kind: Kind) -> Option<EntryList> {
    match kind {
        Kind::BackendTlsPolicy => Some(EntryList {
            field: "ancestors",
            about: "ancestorRef",
            most: 16,
        }),
        kind => kind.is_route().then_some(EntryList {
            field: "parents",
            about: "parentRef",
            most: 32,
        }),
    }
}

/// The status that an object should have.
#[derive(Debug)]
pub struct DesiredStatus<'a> {
    generation: Option<i64>,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Entries(EntryList, Vec<(Json, &'a [Condition])>),
    /// `status.conditions`
    Conditions(Vec<Cow<'a, Condition>>),
    /// The one condition in each entry of ours.
    EachEntry(EntryList, Condition),
}

/// A version of an object that cannot be read as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct UnreadVersion {
    generation: Option<i64>,
    /// For people.
    message: String,
}

impl UnreadVersion {
    pub fn new(details: &ClusterDetails) -> Self {
        let part = |LeftOut { field, .. }: &LeftOut| match field.path.is_empty() {
            true => field.message.clone(),
            false => format!("{}: {}", field.path, field.message),
        };
        let parts: Vec<String> = details.left_out.iter().map(part).collect();
        UnreadVersion {
            generation: details.generation,
            message: format!(
                "it cannot be read, its last valid version, if any, stays in force: {}",
                parts.join("; ")
            ),
        }
    }
}

impl<'a> DesiredStatus<'a> {
    pub fn of(status: &'a ObjectStatus) -> Self {
        let content = match entry_list(status.id.kind) {
            Some(list) => {
                let parents = status.parents.iter();
                let entry = parents.map(|it| (parent_ref(&it.parent), &*it.conditions));
                Content::Entries(list, entry.collect())
            }
            None => {
                let fields = fields_left_out(status.origin.left_out());
                let all = status.conditions.iter().map(Cow::Borrowed);
                Content::Conditions(all.chain(fields.map(Cow::Owned)).collect())
            }
        };
        DesiredStatus {
            generation: status.origin.generation(),
            content,
        }
    }

    /// Of a version that cannot be read. The parents of such a route, or targets of such a policy, are
    /// those that have an entry: there is none if no version of it was ever read.
    pub fn of_unread(kind: Kind, version: &UnreadVersion) -> Self {
        let condition = Condition::no("Accepted", "Invalid", version.message.clone());
        let content = match entry_list(kind) {
            Some(list) => Content::EachEntry(list, condition),
            None => Content::Conditions(vec![Cow::Owned(condition)]),
        };
        DesiredStatus {
            generation: version.generation,
            content,
        }
    }

    /// The merge patch for a status; `None`: it is as desired. `now`: RFC 3339.
    pub fn merge(&self, status: &Json, now: &str) -> Option<Json> {
        let (field, merged) = match &self.content {
            Content::Entries(of, desired) => {
                let existing = list(status, of.field);
                (of.field, self.entries(*of, existing, desired, now))
            }
            Content::Conditions(desired) => {
                let desired: Vec<&Condition> = desired.iter().map(|it| &**it).collect();
                let existing = list(status, "conditions");
                ("conditions", self.conditions(existing, &desired, now))
            }
            Content::EachEntry(of, condition) => {
                let existing = list(status, of.field);
                (of.field, self.each_entry(*of, existing, condition, now))
            }
        };
        let differs = merged.as_slice() != list(status, field);
        differs.then(|| json!({ field: merged }))
    }

    /// Whether an object has a later `metadata.generation`: our copy of it is out of date. What its
    /// status says of generations does not count, as others may write that.
    pub fn is_outdated(&self, generation: Option<i64>) -> bool {
        let both = generation.zip(self.generation);
        both.is_some_and(|(present, read)| present > read)
    }

    fn entries(
        &self,
        of: EntryList,
        existing: &[Json],
        desired: &[(Json, &[Condition])],
        now: &str,
    ) -> Vec<Json> {
        let mut merged = Vec::new();
        let mut missing: Vec<_> = desired.iter().collect();
        for entry in existing {
            if !is_ours(entry) {
                merged.push(entry.clone());
                continue;
            }
            let at = missing
                .iter()
                .position(|(about, _)| entry.get(of.about) == Some(about));
            // An entry that is not found is of a reference that was removed, or a duplicate.
            if let Some((about, conditions)) = at.map(|at| missing.remove(at)) {
                let existing = list(entry, "conditions");
                merged.push(self.entry((of, about), existing, conditions, now));
            }
        }
        // Others have the places that are missing; more would make the API server refuse all.
        let free = of.most.saturating_sub(merged.len());
        for (about, conditions) in missing.into_iter().take(free) {
            merged.push(self.entry((of, about), &[], conditions, now));
        }
        merged
    }

    fn each_entry(
        &self,
        of: EntryList,
        existing: &[Json],
        condition: &Condition,
        now: &str,
    ) -> Vec<Json> {
        let merged = existing.iter().map(|entry| match entry.get(of.about) {
            Some(about) if is_ours(entry) => {
                let condition = std::slice::from_ref(condition);
                self.entry((of, about), list(entry, "conditions"), condition, now)
            }
            _ => entry.clone(),
        });
        merged.collect()
    }

    fn entry(
        &self,
        (of, about): (EntryList, &Json),
        existing: &[Json],
        desired: &[Condition],
        now: &str,
    ) -> Json {
        let desired: Vec<&Condition> = desired.iter().collect();
        json!({
            of.about: about,
            "controllerName": CONTROLLER,
            "conditions": self.conditions(existing, &desired, now),
        })
    }

    fn conditions(&self, existing: &[Json], desired: &[&Condition], now: &str) -> Vec<Json> {
        let mut merged = Vec::new();
        let mut missing = desired.to_vec();
        for condition in existing {
            let kind = text(condition, "type");
            if !is_our_type(kind) {
                merged.push(condition.clone());
                continue;
            }
            let at = missing.iter().position(|it| type_of(it) == kind);
            if let Some(desired) = at.map(|at| missing.remove(at)) {
                merged.push(self.condition(desired, Some(condition), now));
            }
        }
        merged.extend(missing.into_iter().map(|it| self.condition(it, None, now)));
        merged
    }

    fn condition(&self, desired: &Condition, before: Option<&Json>, now: &str) -> Json {
        let status = match desired.status {
            true => "True",
            false => "False",
        };
        let before = before.filter(|before| text(before, "status") == status);
        let since = before.map(|before| text(before, "lastTransitionTime"));
        let since = since.filter(|since| !since.is_empty()).unwrap_or(now);
        let mut condition = json!({
            "type": type_of(desired),
            "status": status,
            "reason": desired.reason,
            "message": cut(&desired.message),
            "lastTransitionTime": since,
        });
        if let (Some(generation), Some(fields)) = (self.generation, condition.as_object_mut()) {
            fields.insert("observedGeneration".to_owned(), generation.into());
        }
        condition
    }
}

/// The part of a status that is compared with the desired one.
pub fn own_part(kind: Kind, status: &Json) -> Json {
    match entry_list(kind) {
        Some(of) => {
            let ours = list(status, of.field).iter();
            let ours: Vec<Json> = ours.filter(|entry| is_ours(entry)).cloned().collect();
            json!({ of.field: ours })
        }
        None => json!({ "conditions": list(status, "conditions") }),
    }
}

fn list<'j>(of: &'j Json, field: &str) -> &'j [Json] {
    let list = of.get(field).and_then(Json::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn text<'j>(of: &'j Json, field: &str) -> &'j str {
    of.get(field).and_then(Json::as_str).unwrap_or_default()
}

fn is_ours(entry: &Json) -> bool {
    text(entry, "controllerName") == CONTROLLER
}

fn is_our_type(kind: &str) -> bool {
    STANDARD.contains(&kind) || kind.starts_with(DOMAIN)
}

fn type_of(condition: &Condition) -> Cow<'static, str> {
    match STANDARD.contains(&condition.kind) {
        true => condition.kind.into(),
        false => format!("{DOMAIN}{}", condition.kind).into(),
    }
}

/// The reference as the route has it, with defaults.
fn parent_ref(parent: &Parent) -> Json {
    let mut fields = Map::new();
    let mut set = |field: &str, value: Json| drop(fields.insert(field.to_owned(), value));
    set("group", parent.group.as_str().into());
    set("kind", parent.kind.as_str().into());
    if parent.has_namespace {
        set("namespace", parent.namespace.as_str().into());
    }
    set("name", parent.name.as_str().into());
    if let Some(section) = &parent.section {
        set("sectionName", section.as_str().into());
    }
    if let Some(port) = parent.port {
        set("port", port.into());
    }
    Json::Object(fields)
}

fn cut(message: &str) -> Cow<'_, str> {
    match message.len() > MAX_MESSAGE {
        false => message.into(),
        true => format!("{} …", &message[..message.floor_char_boundary(MAX_MESSAGE)]).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::manifest::object::FieldError;
    use crate::model::mesh::change::{LeftOutEffect, Origin};
    use crate::model::mesh::status::ParentStatus;
    use crate::model::{Key, ObjectId};

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    fn status(kind: Kind, generation: i64, left_out: Vec<LeftOut>) -> ObjectStatus {
        let details = ClusterDetails {
            generation: Some(generation),
            left_out,
        };
        ObjectStatus {
            id: ObjectId {
                kind,
                key: Key::new("n", "a"),
            },
            origin: Origin::Cluster {
                kind: "a",
                details: Some(Arc::new(details)),
            },
            conditions: vec![Condition::accepted()],
            parents: Vec::new(),
        }
    }

    fn route(generation: i64, parents: &[(&str, Vec<Condition>)]) -> ObjectStatus {
        let parent = |(name, conditions): &(&str, Vec<Condition>)| ParentStatus {
            parent: Parent {
                service: true,
                group: String::new(),
                kind: "Service".to_owned(),
                namespace: "n".to_owned(),
                has_namespace: false,
                name: (*name).to_owned(),
                port: Some(80),
                section: None,
            },
            conditions: conditions.clone(),
        };
        ObjectStatus {
            parents: parents.iter().map(parent).collect(),
            ..status(Kind::HttpRoute, generation, Vec::new())
        }
    }

    fn of_service(name: &str) -> Json {
        json!({"group": "", "kind": "Service", "name": name, "port": 80})
    }

    fn is(kind: &str, status: &str, since: &str, generation: i64) -> Json {
        json!({
            "type": kind, "status": status, "reason": kind, "message": "",
            "lastTransitionTime": since, "observedGeneration": generation,
        })
    }

    #[test]
    fn entries_of_other_controllers_are_kept_in_place() {
        let foreign = json!({"controllerName": "other/c", "parentRef": {"name": "gateway"}, "conditions": [is("Accepted", "True", THEN, 1)]});
        let special = is("special.io/Field", "False", THEN, 1);
        let existing = json!({"parents": [
            {"controllerName": CONTROLLER, "parentRef": of_service("gone"), "conditions": [is("Accepted", "True", THEN, 1)]},
            foreign,
            {"controllerName": CONTROLLER, "parentRef": of_service("s"), "conditions": [
                is("Accepted", "True", THEN, 1), special, is("ResolvedRefs", "False", THEN, 1), is("PartiallyInvalid", "True", THEN, 1),
            ]},
        ]});
        let conditions = || {
            vec![
                Condition::accepted(),
                Condition::yes("ResolvedRefs", "ResolvedRefs"),
            ]
        };
        let route = route(
            2,
            &[("s", conditions()), ("t", vec![Condition::accepted()])],
        );
        let desired = DesiredStatus::of(&route);
        let merged = desired.merge(&existing, NOW).unwrap();
        let expected = json!({"parents": [
            foreign,
            {"controllerName": CONTROLLER, "parentRef": of_service("s"), "conditions": [
                is("Accepted", "True", THEN, 2), special, is("ResolvedRefs", "True", NOW, 2),
            ]},
            {"controllerName": CONTROLLER, "parentRef": of_service("t"), "conditions": [is("Accepted", "True", NOW, 2)]},
        ]});
        assert_eq!(merged, expected);
        assert_eq!(desired.merge(&merged, "later"), None, "it says all of it");
        let own = own_part(Kind::HttpRoute, &merged);
        assert_eq!(desired.merge(&own, "later"), None);
    }

    #[test]
    fn entries_of_removed_parents_are_removed() {
        let none = route(1, &[]);
        let desired = DesiredStatus::of(&none);
        assert_eq!(desired.merge(&Json::Null, NOW), None, "nothing to say");
        let existing = json!({"parents": [{"controllerName": CONTROLLER, "parentRef": of_service("s"), "conditions": []}]});
        assert_eq!(desired.merge(&existing, NOW), Some(json!({"parents": []})));
    }

    #[test]
    fn targets_of_a_policy_are_ancestors_as_many_as_there_is_room_for() {
        let policy = |targets: &[(&str, Vec<Condition>)]| ObjectStatus {
            parents: route(2, targets).parents,
            ..status(Kind::BackendTlsPolicy, 2, Vec::new())
        };
        let both = policy(&[
            ("s", vec![Condition::accepted()]),
            ("t", vec![Condition::accepted()]),
        ]);
        let desired = DesiredStatus::of(&both);
        let entry = |name: &str| json!({"controllerName": CONTROLLER, "ancestorRef": of_service(name), "conditions": [is("Accepted", "True", NOW, 2)]});
        let merged = desired.merge(&Json::Null, NOW).unwrap();
        assert_eq!(merged, json!({"ancestors": [entry("s"), entry("t")]}));
        let own = own_part(Kind::BackendTlsPolicy, &merged);
        assert_eq!(desired.merge(&own, "later"), None);
        let foreign = json!({"controllerName": "other/c", "ancestorRef": {"name": "gateway"}, "conditions": []});
        let mut expected = vec![foreign; 15];
        let others = json!({"ancestors": expected});
        expected.push(entry("s"));
        let merged = desired.merge(&others, NOW).unwrap();
        assert_eq!(merged, json!({"ancestors": expected}));
        assert_eq!(
            desired.merge(&merged, "later"),
            None,
            "there is no room for the other"
        );
    }

    #[test]
    fn an_object_of_a_later_generation_is_left_alone() {
        let route = route(3, &[("s", vec![Condition::accepted()])]);
        let desired = DesiredStatus::of(&route);
        assert!(desired.is_outdated(Some(4)));
        assert!(!desired.is_outdated(Some(3)));
        assert!(!desired.is_outdated(None));
    }

    #[test]
    fn a_generation_that_another_writes_into_our_entry_is_corrected() {
        let entry = |generation| {
            json!({"parents": [{
                "controllerName": CONTROLLER, "parentRef": of_service("s"),
                "conditions": [is("Accepted", "True", THEN, generation)],
            }]})
        };
        let route = route(3, &[("s", vec![Condition::accepted()])]);
        let merged = DesiredStatus::of(&route).merge(&entry(1 << 62), NOW);
        assert_eq!(merged, Some(entry(3)));
    }

    #[test]
    fn a_version_that_cannot_be_read_is_not_accepted() {
        let part = LeftOut {
            field: FieldError::new("spec.rules", "no list"),
            effect: LeftOutEffect::Unused,
        };
        let version = UnreadVersion::new(&ClusterDetails {
            generation: Some(2),
            left_out: vec![part],
        });
        let foreign = json!({"controllerName": "other/c", "parentRef": {"name": "gateway"}, "conditions": []});
        let existing = json!({"parents": [foreign, {
            "controllerName": CONTROLLER, "parentRef": of_service("s"),
            "conditions": [is("Accepted", "True", THEN, 1), is("ResolvedRefs", "True", THEN, 1)],
        }]});
        let desired = DesiredStatus::of_unread(Kind::HttpRoute, &version);
        let merged = desired.merge(&existing, NOW).unwrap();
        let [other, ours] = list(&merged, "parents") else {
            panic!("{merged}")
        };
        assert_eq!(*other, foreign);
        assert_eq!(ours["parentRef"], of_service("s"));
        let [accepted] = list(ours, "conditions") else {
            panic!("{ours}")
        };
        assert_eq!(accepted["status"], "False");
        assert_eq!(accepted["reason"], "Invalid");
        assert_eq!(accepted["observedGeneration"], 2);
        let message = text(accepted, "message");
        assert!(message.ends_with("spec.rules: no list"), "{message}");
        assert_eq!(desired.merge(&merged, "later"), None, "it says all of it");
        assert_eq!(desired.merge(&Json::Null, NOW), None, "no parent is known");

        let desired = DesiredStatus::of_unread(Kind::MeshPolicy, &version);
        let merged = desired.merge(&Json::Null, NOW).unwrap();
        assert_eq!(list(&merged, "conditions"), std::slice::from_ref(accepted));
    }

    #[test]
    fn conditions_of_our_own_kinds_name_fields_left_out() {
        let part = LeftOut {
            field: FieldError::new("spec.x", "unknown field"),
            effect: LeftOutEffect::Unused,
        };
        let policy = status(Kind::BackendPolicy, 1, vec![part]);
        let merged = DesiredStatus::of(&policy).merge(&json!({}), NOW).unwrap();
        let conditions = list(&merged, "conditions");
        assert_eq!(conditions[0], is("Accepted", "True", NOW, 1));
        assert_eq!(text(&conditions[1], "type"), "mesh.anyam.dev/AllFields");
        let message = text(&conditions[1], "message");
        assert!(message.contains("spec.x: unknown field"), "{message}");
    }
}
