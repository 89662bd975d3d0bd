//! What is wrong with the mesh's installation in a cluster: objects that the API server, and not the
//! control plane, knows about.

use anyam_control::types::{Finding, Severity};
use serde_json::Value;

use super::{Cluster, ClusterError, condition, items, text};

pub use anyam_control::aggregated::API_SERVICE;

/// Names in the chart, which are fixed.
const DEPLOYMENT: &str = "anyam-control";
const WEBHOOK: &str = "anyam-injector";
/// Where the chart is installed unless another namespace is named.
pub const NAMESPACE: &str = "anyam-system";

/// What was found, and what was looked at.
#[derive(Debug, Default)]
pub struct Installation {
    pub findings: Vec<Finding>,
    pub checked: Vec<String>,
}

fn api_service_path() -> String {
    format!("/apis/apiregistration.k8s.io/v1/apiservices/{API_SERVICE}")
}

/// Looks at the APIService, the control plane's Deployment and the webhook. What the user may not see
/// is named as such.
pub async fn check(cluster: &Cluster) -> Installation {
    let mut all = Installation::default();
    let namespace = all.api_service(cluster).await;
    all.deployment(cluster, &namespace).await;
    all.webhook(cluster, &namespace).await;
    all
}

impl Installation {
    fn add(&mut self, severity: Severity, what: String, location: String, todo: &str) {
        self.findings.push(Finding {
            severity,
            what,
            location,
            todo: todo.to_owned(),
            namespace: String::new(),
        });
    }

    /// `object` could not be read.
    fn unread(&mut self, object: &str, error: &ClusterError) {
        match error.is_forbidden() {
            true => self.add(
                Severity::Info,
                format!("{object} was not looked at: you may not read it"),
                object.to_owned(),
                "administrators of the cluster see it; the mesh itself was asked all the same",
            ),
            false => self.add(
                Severity::Warning,
                error.to_string(),
                object.to_owned(),
                "try again",
            ),
        }
    }

    /// Returns the control plane's namespace.
    async fn api_service(&mut self, cluster: &Cluster) -> String {
        let object = format!("APIService {API_SERVICE}");
        self.checked.push(object.clone());
        let mut namespace = NAMESPACE.to_owned();
        match cluster.find::<Value>(&api_service_path()).await {
            Ok(Some(found)) => {
                let named = text(&found, "/spec/service/namespace");
                if !named.is_empty() {
                    named.clone_into(&mut namespace);
                }
                if let Some(why) = unavailable(&found) {
                    let what = format!("the mesh's API is not available: {why}");
                    let todo = remedy(&found);
                    self.add(Severity::Error, what, object, todo);
                }
            }
            Ok(None) => self.add(
                Severity::Error,
                "the mesh's API is not registered".to_owned(),
                object,
                "install the mesh, or upgrade it: the chart of an earlier version has no such API",
            ),
            Err(error) => self.unread(&object, &error),
        }
        namespace
    }

    async fn deployment(&mut self, cluster: &Cluster, namespace: &str) {
        let object = format!("Deployment {namespace}/{DEPLOYMENT}");
        self.checked.push(object.clone());
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{DEPLOYMENT}");
        let todo = format!(
            "`kubectl --namespace {namespace} get pods` and `kubectl --namespace {namespace} describe deployment {DEPLOYMENT}` show why"
        );
        match cluster.find::<Value>(&path).await {
            Ok(Some(found)) => {
                let count = |pointer| found.pointer(pointer).and_then(Value::as_u64);
                let wanted = count("/spec/replicas").unwrap_or(1);
                let ready = count("/status/readyReplicas").unwrap_or(0);
                let what = format!("{ready} of {wanted} replicas of the control plane are ready");
                match ready {
                    0 => self.add(Severity::Error, what, object, &todo),
                    ready if ready < wanted => self.add(Severity::Warning, what, object, &todo),
                    _ => {}
                }
            }
            Ok(None) => self.add(
                Severity::Error,
                "the control plane is not installed".to_owned(),
                object,
                "install it: `anyam check --pre` says first what would not work",
            ),
            Err(error) => self.unread(&object, &error),
        }
    }

    async fn webhook(&mut self, cluster: &Cluster, namespace: &str) {
        let object = format!("MutatingWebhookConfiguration {WEBHOOK}");
        self.checked.push(object.clone());
        let path = format!(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{WEBHOOK}"
        );
        match cluster.find::<Value>(&path).await {
            Ok(Some(found)) => {
                for webhook in without_bundle(&found) {
                    let what = format!(
                        "webhook {webhook} has no caBundle: pods to be injected can't be created"
                    );
                    let todo = format!(
                        "the control plane's leader writes it: `kubectl --namespace {namespace} logs deployment/{DEPLOYMENT}` says why it did not"
                    );
                    self.add(Severity::Error, what, object.clone(), &todo);
                }
            }
            Ok(None) => self.add(
                Severity::Error,
                "the webhook that injects sidecars is not registered: pods get none".to_owned(),
                object,
                "install the chart again, or apply what `anyam install` prints",
            ),
            Err(error) => self.unread(&object, &error),
        }
    }
}

/// Why the APIService is not available, if it is not, as far as the user may know.
pub async fn why_unavailable(cluster: &Cluster) -> Option<String> {
    let found = cluster.find::<Value>(&api_service_path()).await.ok()??;
    unavailable(&found)
}

/// The namespace of the control plane, by the APIService.
pub async fn namespace(cluster: &Cluster) -> Option<String> {
    let found = cluster.find::<Value>(&api_service_path()).await.ok()??;
    let namespace = text(&found, "/spec/service/namespace");
    (!namespace.is_empty()).then(|| namespace.to_owned())
}

fn unavailable(api_service: &Value) -> Option<String> {
    let Some(available) = condition(api_service, "Available") else {
        return Some("the API server has not tried to reach it yet".to_owned());
    };
    let (reason, message) = (text(available, "/reason"), text(available, "/message"));
    (text(available, "/status") != "True").then(|| format!("{reason}: {message}"))
}

/// By the reasons that kube-aggregator's controller gives.
fn remedy(api_service: &Value) -> &'static str {
    let reason = condition(api_service, "Available").map_or("", |it| text(it, "/reason"));
    match reason {
        "ServiceNotFound" | "ServicePortError" => {
            "the control plane's Service is missing or has another port: install the chart again"
        }
        "EndpointsNotFound" | "MissingEndpoints" | "EndpointsAccessError" => {
            "no replica of the control plane is ready: see its pods and their logs"
        }
        "FailedDiscoveryCheck" => {
            "the API server does not reach the control plane, or does not accept its certificate: see NetworkPolicies \
             (networkPolicy.apiServerCidrs), the network between the API server and pods, and the control plane's log"
        }
        _ => {
            "see the control plane's pods and their logs; an API server needs some seconds after an installation"
        }
    }
}

fn without_bundle(configuration: &Value) -> Vec<&str> {
    let all = items(configuration, "/webhooks").iter();
    let without = all.filter(|webhook| text(webhook, "/clientConfig/caBundle").is_empty());
    without.map(|webhook| text(webhook, "/name")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_api_service_says_why_it_is_unavailable() {
        let with = |status: &str, reason: &str| json!({"status": {"conditions": [{"type": "Available", "status": status, "reason": reason, "message": "m"}]}});
        assert_eq!(unavailable(&with("True", "Passed")), None);
        let down = with("False", "MissingEndpoints");
        assert_eq!(unavailable(&down).unwrap(), "MissingEndpoints: m");
        assert!(remedy(&down).contains("replica"));
        assert!(remedy(&with("False", "FailedDiscoveryCheck")).contains("NetworkPolicies"));
        assert!(unavailable(&json!({})).unwrap().contains("not tried"));
    }

    #[test]
    fn webhooks_without_a_bundle_are_named() {
        let configuration = json!({"webhooks": [
            {"name": "a", "clientConfig": {"caBundle": "Y2E="}}, {"name": "b", "clientConfig": {}},
        ]});
        assert_eq!(without_bundle(&configuration), ["b"]);
    }
}
