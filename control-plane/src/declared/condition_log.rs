//! Conditions that are False, in the log. One whose reason is an object that is missing is logged only
//! where that stays so: what belongs together is created and deleted one after the other. A deleted
//! Service's EndpointSlices, for example, are deleted some time after it.

use std::collections::BTreeMap;

use crate::model::mesh::status::{Condition, ObjectStatus};
use crate::model::{Mesh, ObjectId};

/// Reasons that another object, or nothing, may explain a moment later.
const MISSING: [&str; 4] = [
    "BackendNotFound",
    "NoMatchingParent",
    "ServiceNotFound",
    "TargetNotFound",
];
/// How often [`ConditionLog::age`] is called before such a condition is logged.
const AGES: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct ConditionLog {
    /// Objects with such conditions, and their ages.
    waiting: BTreeMap<ObjectId, u8>,
}

impl ConditionLog {
    /// The conditions of these objects may have changed.
    pub fn changed<'a>(&mut self, mesh: &Mesh, objects: impl Iterator<Item = &'a ObjectId>) {
        for id in objects {
            let mut waits = false;
            if let Some(status) = mesh.statuses.get(id) {
                for condition in refusals(status) {
                    match is_missing(condition) {
                        true => waits = true,
                        false => warn(status, condition),
                    }
                }
            }
            match waits {
                true => drop(self.waiting.entry(id.clone()).or_insert(0)),
                false => drop(self.waiting.remove(id)),
            }
        }
    }

    /// Time has passed.
    pub fn age(&mut self, mesh: &Mesh) {
        self.waiting.retain(|id, age| {
            *age = age.saturating_add(1);
            let waits = *age < AGES;
            if !waits && let Some(status) = mesh.statuses.get(id) {
                let missing = refusals(status).filter(|condition| is_missing(condition));
                missing.for_each(|condition| warn(status, condition));
            }
            waits
        });
    }
}

/// Logs all at once: what a source has when it is first read is not about to change.
pub fn log_all<'a>(mesh: &Mesh, objects: impl Iterator<Item = &'a ObjectId>) {
    for status in objects.filter_map(|id| mesh.statuses.get(id)) {
        refusals(status).for_each(|condition| warn(status, condition));
    }
}

fn refusals(status: &ObjectStatus) -> impl Iterator<Item = &Condition> {
    let all = status.conditions.iter();
    all.filter(|condition| !condition.status)
}

fn is_missing(condition: &Condition) -> bool {
    MISSING.contains(&condition.reason)
}

fn warn(status: &ObjectStatus, condition: &Condition) {
    let (what, reason) = (condition.kind, condition.reason);
    tracing::warn!(object = %status.id, at = %status.origin, "{what} is False, {reason}: {}", condition.message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MeshOptions;
    use crate::model::mesh::builder::Builder;
    use crate::model::mesh::change::{ObjectDelta, Origin};
    use crate::model::mesh::vip::Vips;
    use crate::source::yaml;
    use crate::tests::log::logged;

    const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: s, namespace: n }
spec: { ports: [{ port: 80 }], clusterIP: 10.0.0.1 }
";
    const SLICE: &str = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: s-1, namespace: n, labels: { kubernetes.io/service-name: s } }
addressType: IPv4
endpoints: [{ addresses: [10.0.1.1] }]
ports: [{ port: 80 }]
";

    /// A mesh, and what changes of it are logged.
    struct Bench {
        builder: Builder,
        log: ConditionLog,
    }

    impl Bench {
        fn apply(&mut self, set: &str, removed: &str) -> Vec<String> {
            let objects = |text| yaml::parse("f", text).unwrap().into_iter();
            let delta = ObjectDelta {
                set: objects(set)
                    .map(|it| (it.object, Origin::cluster("x")))
                    .collect(),
                removed: objects(removed).map(|it| it.object.id()).collect(),
            };
            let (mesh, changed) = self.builder.apply(delta);
            logged(|| {
                let objects = changed.statuses.iter().map(|id| &**id);
                self.log.changed(&mesh, objects);
            })
        }

        fn age(&mut self) -> Vec<String> {
            let mesh = self.builder.mesh().clone();
            logged(|| self.log.age(&mesh))
        }
    }

    #[test]
    fn what_goes_after_its_service_is_not_warned_of_and_what_stays_is() {
        let mut bench = Bench {
            builder: Builder::new(MeshOptions::default(), Vips::new()),
            log: ConditionLog::default(),
        };
        let nothing = Vec::<String>::new();
        // The slice is seen before its Service.
        assert_eq!(bench.apply(SLICE, ""), nothing);
        assert_eq!(bench.age(), nothing);
        assert_eq!(bench.apply(SERVICE, ""), nothing);
        assert_eq!(
            (bench.age(), bench.age()),
            (nothing.clone(), nothing.clone())
        );

        assert_eq!(bench.apply("", SERVICE), nothing);
        assert_eq!(bench.age(), nothing);
        assert_eq!(bench.apply("", SLICE), nothing);
        assert_eq!(
            (bench.age(), bench.age()),
            (nothing.clone(), nothing.clone())
        );

        // One without a Service is one that was forgotten.
        assert_eq!(bench.apply(SLICE, ""), nothing);
        assert_eq!(bench.age(), nothing);
        let lines = bench.age();
        let warned = lines.len() == 1 && lines[0].contains("ServiceNotFound");
        assert!(warned, "{lines:?}");
        assert_eq!(
            (bench.age(), bench.age()),
            (nothing.clone(), nothing.clone())
        );

        // What no other object explains is logged at once.
        let named = SLICE.replace("IPv4", "FQDN").replace("s-1", "s-2");
        let lines = bench.apply(&named, "");
        let warned = lines.len() == 1 && lines[0].contains("UnsupportedAddressType");
        assert!(warned, "{lines:?}");
    }
}
