//! Pods by the object that they belong to, as kubectl names it: `deploy/web`, `svc/web`, `job/x`.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::Value;

use super::{Cluster, ClusterError, items, text};
use crate::url::encode;

/// Pods of one object that are looked at; a Deployment has seldom more.
const MAX_PODS: u32 = 500;
/// The container by which a pod has a sidecar, and the annotation of sidecars of other names.
const SIDECAR: &str = "anyam-proxy";
const INJECTED: &str = "mesh.anyam.dev/status";

/// Kinds that have pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerKind {
    Pod,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    Job,
    Service,
}

impl OwnerKind {
    /// The names that kubectl has for it.
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pod" | "pods" | "po" => OwnerKind::Pod,
            "deployment" | "deployments" | "deploy" => OwnerKind::Deployment,
            "statefulset" | "statefulsets" | "sts" => OwnerKind::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => OwnerKind::DaemonSet,
            "replicaset" | "replicasets" | "rs" => OwnerKind::ReplicaSet,
            "job" | "jobs" => OwnerKind::Job,
            "service" | "services" | "svc" => OwnerKind::Service,
            _ => return None,
        })
    }

    fn singular(self) -> &'static str {
        match self {
            OwnerKind::Pod => "pod",
            OwnerKind::Deployment => "deployment",
            OwnerKind::StatefulSet => "statefulset",
            OwnerKind::DaemonSet => "daemonset",
            OwnerKind::ReplicaSet => "replicaset",
            OwnerKind::Job => "job",
            OwnerKind::Service => "service",
        }
    }

    /// The API that has it.
    fn group(self) -> &'static str {
        match self {
            OwnerKind::Pod | OwnerKind::Service => "/api/v1",
            OwnerKind::Job => "/apis/batch/v1",
            _ => "/apis/apps/v1",
        }
    }

    /// The kind of its pods' controller; `None`: any pod that is selected.
    fn controller(self) -> Option<&'static str> {
        match self {
            OwnerKind::Pod | OwnerKind::Service => None,
            OwnerKind::Deployment | OwnerKind::ReplicaSet => Some("ReplicaSet"),
            OwnerKind::StatefulSet => Some("StatefulSet"),
            OwnerKind::DaemonSet => Some("DaemonSet"),
            OwnerKind::Job => Some("Job"),
        }
    }
}

/// An object of a namespace that is a pod or has pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    kind: OwnerKind,
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.singular(), self.name)
    }
}

/// The pods of an object that run with a sidecar, those that are ready first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsFound {
    pub first: String,
    pub others: Vec<String>,
}

impl ObjectName {
    /// `None`: no kind that has pods comes before the slash.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let kind = OwnerKind::parse(kind)?;
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        (!name.is_empty() && name.chars().all(fits) && !name.starts_with('.')).then(|| ObjectName {
            kind,
            name: name.to_owned(),
        })
    }

    /// The Service that is meant, if it is one.
    pub fn service(&self) -> Option<&str> {
        (self.kind == OwnerKind::Service).then_some(self.name.as_str())
    }

    /// Asks the API server for its pods.
    ///
    /// # Errors
    /// When it can't be asked, there is no such object, or none of its pods has a sidecar.
    pub async fn pods(
        &self,
        cluster: &Cluster,
        namespace: &str,
    ) -> Result<PodsFound, ClusterError> {
        let none = |what: &str, todo: String| {
            Err(ClusterError::NoPod {
                what: format!("{self} of namespace {namespace} {what}"),
                place: cluster.place(),
                todo,
            })
        };
        let path = format!(
            "{}/namespaces/{namespace}/{}s/{}",
            self.kind.group(),
            self.kind.singular(),
            self.name
        );
        let Some(object) = cluster.find::<Value>(&path).await? else {
            let todo = "see whether the namespace is right (-n)".to_owned();
            return none("is not there", todo);
        };
        let pods = if self.kind == OwnerKind::Pod {
            vec![object]
        } else {
            let Some(selector) = self.selector(&object) else {
                let todo = "name a pod: pod/NAME".to_owned();
                return none("has no selector that its pods could be found by", todo);
            };
            let selector = encode(&selector);
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods?labelSelector={selector}&limit={MAX_PODS}"
            );
            let list: Value = cluster.read(&path).await?;
            let all = items(&list, "/items").iter();
            all.filter(|pod| self.owns(pod)).cloned().collect()
        };
        let pods: Vec<_> = pods.iter().filter(|pod| runs(pod)).collect();
        if pods.is_empty() {
            let todo = format!("`kubectl --namespace {namespace} get pods` shows why");
            return none("has no pod that runs", todo);
        }
        let mut ours: Vec<_> = pods.into_iter().filter(|pod| has_sidecar(pod)).collect();
        ours.sort_by_cached_key(|pod| (!is_ready(pod), text(pod, "/metadata/name").to_owned()));
        let mut names = ours
            .iter()
            .map(|pod| text(pod, "/metadata/name").to_owned());
        let Some(first) = names.next() else {
            let todo = format!(
                "`kubectl label namespace {namespace} mesh.anyam.dev/inject=enabled`, and restart its pods"
            );
            return none("has no pod with a sidecar", todo);
        };
        Ok(PodsFound {
            first,
            others: names.collect(),
        })
    }

    /// As the API server takes it; `None`: the object selects no pods.
    fn selector(&self, object: &Value) -> Option<String> {
        let selector = object.pointer("/spec/selector")?;
        let selector = match self.kind {
            OwnerKind::Service => LabelSelector {
                match_labels: serde_json::from_value(selector.clone()).ok(),
                match_expressions: None,
            },
            _ => serde_json::from_value(selector.clone()).ok()?,
        };
        let selector = Selector::try_from(selector).ok()?.to_string();
        (!selector.is_empty()).then_some(selector)
    }

    /// Whether a pod that the object selects is its own: selectors of several objects may overlap.
    fn owns(&self, pod: &Value) -> bool {
        let Some(kind) = self.kind.controller() else {
            return true;
        };
        let mut owners = items(pod, "/metadata/ownerReferences").iter();
        owners.any(|owner| {
            let name = text(owner, "/name");
            let named = match self.kind {
                // Its ReplicaSets are called after it, with a hash.
                OwnerKind::Deployment => {
                    let hash = name.strip_prefix(self.name.as_str());
                    let hash = hash.and_then(|rest| rest.strip_prefix('-'));
                    hash.is_some_and(|hash| !hash.is_empty() && !hash.contains('-'))
                }
                _ => name == self.name,
            };
            text(owner, "/kind") == kind && named
        })
    }
}

fn runs(pod: &Value) -> bool {
    let leaves = pod.pointer("/metadata/deletionTimestamp").is_some();
    let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    !leaves && !ended
}

fn is_ready(pod: &Value) -> bool {
    let ready = super::condition(pod, "Ready");
    ready.is_some_and(|ready| text(ready, "/status") == "True")
}

fn has_sidecar(pod: &Value) -> bool {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let mut containers = lists.iter().flat_map(|list| items(pod, list));
    let annotations = pod.pointer("/metadata/annotations");
    containers.any(|container| text(container, "/name") == SIDECAR)
        || annotations.is_some_and(|all| all.get(INJECTED).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    #[test]
    fn kinds_have_kubectls_names() {
        for (text, expected) in [
            ("deploy/web", "deployment/web"),
            ("po/web-1", "pod/web-1"),
            ("sts/db", "statefulset/db"),
            ("job/once", "job/once"),
            ("svc/web", "service/web"),
            ("rs/web-6d", "replicaset/web-6d"),
            ("daemonsets/agent", "daemonset/agent"),
        ] {
            assert_eq!(object(text).to_string(), expected);
        }
        // Namespaces, and no names of objects.
        for text in [
            "shop/web",
            "web",
            "deploy/",
            "deploy/a/b",
            "deploy/../x",
            "deploy/A",
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
        }
        assert_eq!(object("svc/web").service(), Some("web"));
        assert_eq!(object("deploy/web").service(), None);
    }

    #[test]
    fn selectors_are_written_as_the_api_server_reads_them() {
        let deployment = json!({"spec": {"selector": {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        }}});
        assert_eq!(
            object("deploy/web").selector(&deployment).unwrap(),
            "app=web,tier in (a,b)"
        );
        let service = json!({"spec": {"selector": {"app": "web"}}});
        assert_eq!(object("svc/web").selector(&service).unwrap(), "app=web");
        for without in [json!({"spec": {}}), json!({"spec": {"selector": {}}})] {
            assert_eq!(object("svc/web").selector(&without), None);
        }
    }

    #[test]
    fn pods_are_those_of_their_controller() {
        let pod = |kind: &str, name: &str| json!({"metadata": {"ownerReferences": [{"kind": kind, "name": name}]}});
        assert!(object("deploy/web").owns(&pod("ReplicaSet", "web-6d5f")));
        assert!(!object("deploy/web").owns(&pod("ReplicaSet", "web-canary-6d5f")));
        assert!(!object("deploy/web").owns(&pod("ReplicaSet", "web")));
        assert!(object("sts/db").owns(&pod("StatefulSet", "db")));
        assert!(!object("sts/db").owns(&pod("StatefulSet", "db2")));
        assert!(object("svc/db").owns(&json!({})));
    }

    #[test]
    fn pods_that_end_or_have_no_sidecar_are_told_apart() {
        let native = json!({"spec": {"initContainers": [{"name": "anyam-proxy"}], "containers": [{"name": "app"}]}});
        assert!(has_sidecar(&native) && runs(&native) && !is_ready(&native));
        let marked = json!({"metadata": {"annotations": {"mesh.anyam.dev/status": "{}"}}});
        assert!(has_sidecar(&marked));
        assert!(!has_sidecar(
            &json!({"spec": {"containers": [{"name": "app"}]}})
        ));
        assert!(!runs(
            &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
        ));
        assert!(!runs(&json!({"status": {"phase": "Succeeded"}})));
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(is_ready(&ready));
    }
}
