//! Whether the user may create what the chart creates, by SelfSubjectAccessReviews.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xds_proto::yaml;

use super::super::{Cluster, ClusterError};
use super::PreCheck;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// The profile with the most kinds of objects.
const RENDERED: &str = include_str!("../../../../deploy/helm/rendered/production.yaml");

/// A resource of the API, by which rights are granted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ApiKind {
    group: String,
    plural: String,
    namespaced: bool,
}

impl ApiKind {
    fn new(group: &str, plural: &str, namespaced: bool) -> Self {
        ApiKind {
            group: group.to_owned(),
            plural: plural.to_owned(),
            namespaced,
        }
    }

    /// `deployments.apps`
    fn name(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

pub async fn check(cluster: &Cluster, namespace: &str) -> Vec<PreCheck> {
    match lacking(cluster, namespace).await {
        Ok(None) => vec![PreCheck::ok("rights: yours are those of an administrator")],
        Ok(Some(lacking)) if lacking.is_empty() => {
            let what = format!("rights: you may create all objects of the chart in {namespace}");
            vec![PreCheck::ok(what)]
        }
        Ok(Some(lacking)) => lacking
            .iter()
            .map(|right| {
                let what = format!("rights: you may not {right}");
                PreCheck::error(what, "let an administrator of the cluster install the mesh")
            })
            .collect(),
        Err(error) => vec![PreCheck::unread("rights", &error)],
    }
}

/// `None`: everything is allowed.
async fn lacking(cluster: &Cluster, namespace: &str) -> Result<Option<Vec<String>>, ClusterError> {
    let everything = json!({"verb": "*", "group": "*", "resource": "*"});
    if allowed(cluster, &everything).await? {
        return Ok(None);
    }
    let mut lacking = Vec::new();
    for kind in kinds() {
        for verb in ["create", "patch"] {
            let namespace = kind.namespaced.then_some(namespace);
            let attributes = json!({
                "verb": verb, "group": kind.group, "resource": kind.plural, "namespace": namespace,
            });
            if !allowed(cluster, &attributes).await? {
                lacking.push(match namespace {
                    Some(namespace) => format!("{verb} {} in namespace {namespace}", kind.name()),
                    None => format!("{verb} {}", kind.name()),
                });
            }
        }
    }
    // Roles may be given only rights that their author has, unless this one is among them.
    let group = "rbac.authorization.k8s.io";
    for verb in ["escalate", "bind"] {
        let attributes = json!({"verb": verb, "group": group, "resource": "clusterroles"});
        if !allowed(cluster, &attributes).await? {
            lacking.push(format!(
                "{verb} clusterroles.{group}, without which roles can't be given rights that you lack"
            ));
        }
    }
    Ok(Some(lacking))
}

async fn allowed(cluster: &Cluster, attributes: &Value) -> Result<bool, ClusterError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let answer: Value = cluster.review(REVIEWS, &review).await?;
    let allowed = answer.pointer("/status/allowed").and_then(Value::as_bool);
    Ok(allowed == Some(true))
}

/// Of all objects of the chart, and of what Helm itself needs.
fn kinds() -> BTreeSet<ApiKind> {
    let mut all: BTreeSet<_> = yaml::documents(RENDERED)
        .filter_map(|document| of_object(&document.ok()?.to_json()))
        .collect();
    all.insert(ApiKind::new("", "namespaces", false));
    all.insert(ApiKind::new(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        false,
    ));
    // Releases are Secrets.
    all.insert(ApiKind::new("", "secrets", true));
    all
}

fn of_object(object: &Value) -> Option<ApiKind> {
    let api_version = object.get("apiVersion")?.as_str()?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = object.get("kind")?.as_str()?.to_ascii_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let namespaced = object.pointer("/metadata/namespace").is_some();
    Some(ApiKind::new(group, &plural, namespaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_the_chart() {
        let names: BTreeSet<_> = kinds().iter().map(ApiKind::name).collect();
        for name in [
            "clusterroles.rbac.authorization.k8s.io",
            "customresourcedefinitions.apiextensions.k8s.io",
            "deployments.apps",
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            "networkpolicies.networking.k8s.io",
            "priorityclasses.scheduling.k8s.io",
            "secrets",
            "services",
        ] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        let roles = ApiKind::new("rbac.authorization.k8s.io", "roles", true);
        assert!(kinds().contains(&roles));
        assert!(kinds().contains(&ApiKind::new("", "namespaces", false)));
    }
}
