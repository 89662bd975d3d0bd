//! The status conditions of objects in a state of the mesh.

use std::net::IpAddr;

use super::Mesh;
use super::endpoints::EndpointsBy;
use super::index::Facet;
use super::objects::Objects;
use super::status::Condition;
use crate::model::manifest::endpoint_slice::EndpointSlice;
use crate::model::manifest::object::{Key, Kind, Meta, Target};
use crate::model::manifest::read::Object;
use crate::model::manifest::service::Service;
use crate::model::manifest::workload::Workload;

/// How many EndpointSlices a condition lists.
const MAX_NAMED: usize = 3;

/// The state of the mesh that conditions are computed from.
pub struct ConditionContext<'a> {
    pub mesh: &'a Mesh,
    pub objects: &'a Objects,
}

impl ConditionContext<'_> {
    /// Of anything but a route, whose conditions are [`super::route_status`]'s.
    pub fn conditions(&self, object: &Object) -> Vec<Condition> {
        let mut all = match object {
            Object::Service(it) => {
                let key = it.meta.key();
                let vips = self.objects.vips(&key);
                let mut all = conflict("Service", &key, vips, |ip| self.mesh.by_vip.get(ip));
                if !it.left_out.is_empty() {
                    let message = format!("not TCP, left out: {}", it.left_out.join(", "));
                    all.push(Condition::no("AllPorts", "NotTcp", message));
                }
                let fields = it.unsupported.iter();
                let fields = fields.map(|field| format!("{}: {}", field.path, field.message));
                let fields: Vec<String> = fields.chain(self.distribution(it)).collect();
                if !fields.is_empty() {
                    let message = fields.join("; ");
                    all.push(Condition::no("AllFields", "FieldLeftOut", message));
                }
                all.extend(self.endpoints(it));
                all
            }
            Object::Slice(it) => vec![self.slice(it)],
            Object::Workload(it) if it.host_network => Vec::new(),
            Object::Workload(it) => {
                let key = it.meta.key();
                match self.outside(it) {
                    Some(outside) => vec![outside],
                    None => conflict("Workload", &key, &it.addresses, |ip| {
                        self.mesh.by_ip.get(ip)
                    }),
                }
            }
            Object::Route(_) | Object::Grant(_) => Vec::new(),
            Object::Authorization(it) => vec![self.target(&it.meta.namespace, &it.targets)],
            Object::Mesh(it) => vec![self.mesh_policy(&it.meta, &it.targets)],
            Object::Backend(it) => vec![self.backend_policy(&it.meta, &it.targets)],
        };
        if !all.iter().any(|condition| condition.kind == "Accepted") {
            all.insert(0, Condition::accepted());
        }
        all
    }

    /// `trafficDistribution` where no EndpointSlices are that could have hints.
    fn distribution(&self, service: &Service) -> Option<String> {
        let wanted = service.traffic_distribution.as_ref()?;
        let entry = self.mesh.service(&service.meta.key())?;
        entry.slices.is_none().then(|| {
            format!(
                "spec.trafficDistribution: `{wanted}` has no effect: it works by hints of \
                 EndpointSlices, and the Service has none"
            )
        })
    }

    /// An address that does not count as the workload's own.
    fn outside(&self, workload: &Workload) -> Option<Condition> {
        let mut addresses = workload.addresses.iter();
        let ip = addresses.find(|ip| !self.mesh.options.may_have(workload, **ip))?;
        let message = format!(
            "{ip} lies in no range of --workload-cidr (chart: control.workloadCidrs), so callers \
             that use the address do not find this Workload; EndpointSlices that name it in \
             targetRef still lead to it"
        );
        Some(Condition::no("Accepted", "AddressNotAllowed", message))
    }

    /// Of a service that has a selector, where that is not used.
    fn endpoints(&self, service: &Service) -> Option<Condition> {
        if self.mesh.options.endpoints == EndpointsBy::Slices || service.selector.is_empty() {
            return None;
        }
        let entry = self.mesh.service(&service.meta.key())?;
        let slices = entry.slices.as_ref()?.all().iter();
        let names = slices.map(|slice| slice.meta.name.as_str());
        let names: Vec<_> = names.take(MAX_NAMED).collect();
        Some(Condition {
            message: format!(
                "its EndpointSlices say who serves it, and its selector is not used: {}",
                names.join(", ")
            ),
            ..Condition::yes("EndpointsResolved", "FromSlices")
        })
    }

    fn slice(&self, slice: &EndpointSlice) -> Condition {
        let refused = |reason, message: String| Condition::no("Accepted", reason, message);
        match &slice.service {
            _ if slice.host_names => {
                let message = "the mesh calls addresses: addressType must be IPv4 or IPv6";
                refused("UnsupportedAddressType", message.to_owned())
            }
            None => {
                let message = "the label kubernetes.io/service-name, which names the Service whose endpoints these are, is missing";
                refused("NoServiceName", message.to_owned())
            }
            Some(key) if self.mesh.service(key).is_none() => {
                refused("ServiceNotFound", format!("there is no Service {key}"))
            }
            Some(_) => Condition::accepted(),
        }
    }

    fn mesh_policy(&self, meta: &Meta, targets: &[Target]) -> Condition {
        let namespace = &meta.namespace;
        let held = |other: &Key| format!("MeshPolicy {other} holds already");
        let conflict = match targets.is_empty() {
            true => {
                let facet = Facet::OfNamespace(Kind::MeshPolicy, namespace.clone());
                let winner = self.winner(&facet).filter(|key| *key != meta.key());
                winner.as_ref().map(held)
            }
            false => targets.iter().find_map(|target| match target {
                Target::Workload(name) => {
                    let other = self.other_holder(&Key::new(namespace, name), meta);
                    other.as_ref().map(held)
                }
                // It looks no further than to the first workload of another policy, and a workload
                // has one that holds: all policies together cost what all workloads do.
                Target::Labels(labels) => {
                    let mut all = self.objects.with_labels(namespace, labels);
                    all.find_map(|workload| {
                        let other = self.other_holder(workload, meta)?;
                        let message =
                            format!("MeshPolicy {other} holds for Workload {workload} already");
                        Some(message)
                    })
                }
                Target::Service { .. } => None,
            }),
        };
        match conflict {
            Some(message) => Condition::no("Accepted", "Conflicted", message),
            None => self.target(namespace, targets),
        }
    }

    /// The policy that holds for a workload, by its name or its labels, if that is another one.
    fn other_holder(&self, workload: &Key, than: &Meta) -> Option<Key> {
        let holder = self.mesh.policies.by_workload.get(workload)?;
        let holder = holder.meta.key();
        (holder != than.key()).then_some(holder)
    }

    fn backend_policy(&self, meta: &Meta, targets: &[Target]) -> Condition {
        let mut condition = self.target(&meta.namespace, targets);
        for facet in Facet::of_policy(Kind::BackendPolicy, &meta.namespace, targets) {
            let winner = self.winner(&facet).filter(|key| *key != meta.key());
            if let (Some(other), Facet::OfService(_, service)) = (winner, &facet) {
                let message = format!("BackendPolicy {other} holds for Service {service}");
                condition = Condition::no("Accepted", "Conflicted", message);
            }
        }
        condition
    }

    /// The policy with precedence.
    fn winner(&self, facet: &Facet) -> Option<Key> {
        let key = |object: &Object| Some(object.meta().key());
        self.objects.winner(facet, key)
    }

    fn target(&self, namespace: &str, targets: &[Target]) -> Condition {
        let missing = targets.iter().find_map(|target| match target {
            Target::Workload(name) => {
                let key = Key::new(namespace, name);
                let known = self.mesh.workloads.contains_key(&key);
                (!known).then(|| format!("there is no Workload {key}"))
            }
            Target::Service { name, port } => {
                let key = Key::new(namespace, name);
                match (self.mesh.service(&key), port) {
                    (None, _) => Some(format!("there is no Service {key}")),
                    (Some(service), Some(port)) => {
                        let known = service.ports.iter().any(|other| other.name == *port);
                        (!known).then(|| format!("Service {key} has no port named {port}"))
                    }
                    (Some(_), None) => None,
                }
            }
            // Those to come count too.
            Target::Labels(_) => None,
        });
        let holds_for_none = targets.iter().any(|target| match target {
            Target::Labels(labels) => {
                let mut all = self.objects.with_labels(namespace, labels);
                all.next().is_none()
            }
            Target::Workload(_) | Target::Service { .. } => false,
        });
        match missing {
            Some(message) => Condition::no("Accepted", "TargetNotFound", message),
            None if holds_for_none => Condition {
                message: "no workload has the labels of its selector now".to_owned(),
                ..Condition::accepted()
            },
            None => Condition::accepted(),
        }
    }
}

/// AddressConflict conditions.
fn conflict<'a>(
    kind: &str,
    key: &Key,
    claimed: &[IpAddr],
    holder: impl Fn(&IpAddr) -> Option<&'a Key>,
) -> Vec<Condition> {
    let taken = claimed.iter().rev().find_map(|ip| {
        let other = holder(ip).filter(|other| *other != key)?;
        Some(format!("{ip} is already the address of {kind} {other}"))
    });
    let condition = |message| Condition::no("Accepted", "AddressConflict", message);
    taken.map(condition).into_iter().collect()
}
