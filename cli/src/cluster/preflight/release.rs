//! An installation that is there already, or what an earlier one has left.

use serde_json::Value;

use super::super::{Cluster, PART_OF, items};
use super::PreCheck;

/// Cluster-scoped, and of a fixed name: each installation has it.
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/anyam-control";
/// The mesh's root and its key.
const ROOT: &str = "anyam-ca";

pub async fn check(cluster: &Cluster, namespace: &str) -> Vec<PreCheck> {
    let mut all = vec![match cluster.find::<Value>(ROLE).await {
        Ok(Some(role)) => installed(&role, namespace),
        Ok(None) => PreCheck::ok("earlier installation: none"),
        Err(error) => PreCheck::unread("earlier installation (ClusterRole anyam-control)", &error),
    }];
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?labelSelector={PART_OF}%3Danyam&limit=100"
    );
    match cluster.read::<Value>(&path).await {
        Ok(found) => all.extend(definitions(&found, namespace)),
        Err(error) => all.push(PreCheck::unread("CRDs of mesh.anyam.dev", &error)),
    }
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{ROOT}");
    match cluster.find::<Value>(&path).await {
        Ok(Some(root)) => all.push(judged_root(&root, namespace)),
        Ok(None) => {}
        Err(error) if error.is_forbidden() => {}
        Err(error) => all.push(PreCheck::unread(
            &format!("Secret {namespace}/{ROOT}"),
            &error,
        )),
    }
    all
}

fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    let annotations = object.pointer("/metadata/annotations");
    let value = annotations.and_then(|all| all.get(name));
    value.and_then(Value::as_str).unwrap_or_default()
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    let labels = object.pointer("/metadata/labels");
    let value = labels.and_then(|all| all.get(name));
    value.and_then(Value::as_str).unwrap_or_default()
}

fn installed(role: &Value, namespace: &str) -> PreCheck {
    let version = match label(role, "app.kubernetes.io/version") {
        "" => "of an unknown version",
        version => version,
    };
    let helm = label(role, "app.kubernetes.io/managed-by") == "Helm";
    let (release, place) = (
        annotation(role, "meta.helm.sh/release-name"),
        annotation(role, "meta.helm.sh/release-namespace"),
    );
    match (helm, place) {
        (true, place) if place != namespace => PreCheck::error(
            format!(
                "earlier installation: {version} is the Helm release {release} in namespace {place}; a cluster has one"
            ),
            format!("upgrade that one (--namespace {place}), or uninstall it first"),
        ),
        (true, _) => PreCheck::warning(
            format!(
                "earlier installation: {version} is the Helm release {release} in namespace {namespace}"
            ),
            format!(
                "`helm upgrade {release}` instead of `helm install`; `anyam check` says whether it is well"
            ),
        ),
        (false, _) => PreCheck::warning(
            format!("earlier installation: {version}, without Helm"),
            "upgrade it by `anyam install`; Helm refuses objects that it has not made",
        ),
    }
}

fn definitions(list: &Value, namespace: &str) -> Option<PreCheck> {
    let all = items(list, "/items");
    if all.is_empty() {
        return None;
    }
    let elsewhere = all.iter().find_map(|definition| {
        let place = annotation(definition, "meta.helm.sh/release-namespace");
        (!place.is_empty() && place != namespace).then_some(place)
    });
    Some(match elsewhere {
        Some(place) => PreCheck::error(
            format!("CRDs of mesh.anyam.dev belong to a Helm release in namespace {place}"),
            format!(
                "install into {place}, or give them to this release: `kubectl annotate crd -l {PART_OF}=anyam meta.helm.sh/release-namespace={namespace} --overwrite`"
            ),
        ),
        None => PreCheck::ok(format!(
            "CRDs of mesh.anyam.dev: {} from an earlier installation, which this one takes over",
            all.len()
        )),
    })
}

fn judged_root(root: &Value, namespace: &str) -> PreCheck {
    let has = |key: &str| {
        root.pointer("/data")
            .is_some_and(|data| data.get(key).is_some())
    };
    match has("tls.key") && has("tls.crt") {
        true => PreCheck::ok(format!(
            "Secret {namespace}/{ROOT}: its certificate authority will be the mesh's"
        )),
        false => PreCheck::error(
            format!(
                "Secret {namespace}/{ROOT} is no certificate authority: it has no tls.key and tls.crt"
            ),
            "see \"A custom CA\" in docs/kubernetes.md, or delete it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Level;
    use super::*;

    #[test]
    fn a_release_is_upgraded_where_it_is() {
        let role = json!({"metadata": {
            "labels": {"app.kubernetes.io/version": "0.1.0", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": "anyam", "meta.helm.sh/release-namespace": "mesh"},
        }});
        let here = installed(&role, "mesh");
        assert_eq!(here.level, Level::Warning);
        assert!(
            here.what.contains("0.1.0") && here.todo.contains("helm upgrade anyam"),
            "{here:?}"
        );
        let elsewhere = installed(&role, "anyam-system");
        assert_eq!(elsewhere.level, Level::Error);
        assert!(elsewhere.what.contains("namespace mesh"), "{elsewhere:?}");
        let plain = installed(&json!({"metadata": {}}), "mesh");
        assert_eq!(plain.level, Level::Warning);
        assert!(plain.todo.contains("anyam install"), "{plain:?}");
    }

    #[test]
    fn definitions_that_were_kept_are_taken_over() {
        let kept = |place: &str| json!({"items": [{"metadata": {"annotations": {"meta.helm.sh/release-namespace": place}}}]});
        assert_eq!(definitions(&json!({"items": []}), "mesh"), None);
        assert_eq!(definitions(&kept("mesh"), "mesh").unwrap().level, Level::Ok);
        assert_eq!(
            definitions(&kept("old"), "mesh").unwrap().level,
            Level::Error
        );
    }

    #[test]
    fn a_root_of_ones_own_is_looked_at() {
        let good = json!({"data": {"tls.key": "", "tls.crt": ""}});
        assert_eq!(judged_root(&good, "mesh").level, Level::Ok);
        assert_eq!(judged_root(&json!({}), "mesh").level, Level::Error);
    }
}
