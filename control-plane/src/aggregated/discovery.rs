//! The documents by which clients of Kubernetes find the API. Its resources are subresources only, so
//! that `workloads` alone means the mesh's own kind.

use serde_json::{Value, json};

use super::VERSION;
use super::path::READ;
use crate::kubernetes::access_review::{GROUP, RESOURCE};

fn group_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn group() -> Value {
    let version = json!({"groupVersion": group_version(), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

/// Of `/apis`.
pub fn groups_document() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]})
}

/// Of `/apis/GROUP`.
pub fn group_document() -> Value {
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Some(document), Value::Object(group)) = (document.as_object_mut(), group()) {
        document.extend(group);
    }
    document
}

/// Of `/apis/GROUP/VERSION`.
pub fn version_document() -> Value {
    let resource = |what: &str, kind: &str, verb: &str| {
        json!({
            "name": format!("{RESOURCE}/{what}"), "singularName": "", "namespaced": true,
            "kind": kind, "verbs": [verb],
        })
    };
    let read = READ
        .iter()
        .zip(["Proxies", "Edges", "Stats", "Routes", "Objects", "Check"]);
    let mut resources: Vec<Value> = read
        .map(|(what, kind)| resource(what, kind, "get"))
        .collect();
    resources.extend([
        resource("tap", "Tap", "watch"),
        resource("dump", "Dump", "get"),
        resource("explain", "ExplainRequest", "create"),
        resource("session", "DashboardSession", "create"),
    ]);
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(),
        "resources": resources,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIGroupList, APIResourceList};

    use super::*;

    #[test]
    fn documents_are_kubernetes_types() {
        let groups: APIGroupList = serde_json::from_value(groups_document()).unwrap();
        let group: APIGroup = serde_json::from_value(group_document()).unwrap();
        assert_eq!(groups.groups[0].name, GROUP);
        assert_eq!(group.versions[0].group_version, group_version());
        let version: APIResourceList = serde_json::from_value(version_document()).unwrap();
        assert_eq!(version.group_version, group_version());
        assert_eq!(version.resources.len(), READ.len() + 4);
        let sub = version
            .resources
            .iter()
            .all(|it| it.name.starts_with("workloads/"));
        assert!(sub, "{version:?}");
    }
}
