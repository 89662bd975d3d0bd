//! `caBundle` of what the API server calls here: of the webhook, and of the aggregated API. By it the API
//! server verifies the certificate. The leader keeps the mesh's root there, whatever other writers put in
//! its place.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::MANAGER;
use super::call::{CallError, DEADLINE, FailureLog, Right, call, watch_named};

/// After each attempt: another that writes it as often makes no more load than this.
const PAUSE: Duration = Duration::from_secs(1);

/// A kind of object with a `caBundle`.
pub trait HasCaBundle:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// With its group, as [`Right`] has it.
    const RESOURCE: &'static str;
    /// As in a [`FailureLog`].
    const KEEPING: &'static str;
    /// What does not work while the object does not exist.
    const WITHOUT: &'static str;

    /// The strategic merge patch by which it has `root`; refused by the API server when the object is
    /// another by then. `None`: it has.
    fn correction(&self, root: &str) -> Option<Value>;
}

impl HasCaBundle for MutatingWebhookConfiguration {
    const RESOURCE: &'static str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
    const KEEPING: &'static str = "keeping the webhook's caBundle";
    const WITHOUT: &'static str = "(--webhook-name), so no pod is injected";

    fn correction(&self, root: &str) -> Option<Value> {
        let all = self.webhooks.iter().flatten();
        let wrong = all.filter(|webhook| {
            let bundle = webhook.client_config.ca_bundle.as_ref();
            bundle.is_none_or(|bundle| bundle.0 != root.as_bytes())
        });
        let bundle = STANDARD.encode(root);
        let wrong: Vec<Value> = wrong
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let version = &self.metadata.resource_version;
        (!wrong.is_empty())
            .then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": wrong}))
    }
}

impl HasCaBundle for APIService {
    const RESOURCE: &'static str = "apiservices.apiregistration.k8s.io";
    const KEEPING: &'static str = "keeping the APIService's caBundle";
    const WITHOUT: &'static str = "so `anyam` finds no control plane in this cluster";

    fn correction(&self, root: &str) -> Option<Value> {
        let spec = self.spec.as_ref();
        let bundle = spec.and_then(|spec| spec.ca_bundle.as_ref());
        let good = bundle.is_some_and(|bundle| bundle.0 == root.as_bytes());
        let version = &self.metadata.resource_version;
        (!good).then(|| {
            let bundle = STANDARD.encode(root);
            json!({"metadata": {"resourceVersion": version}, "spec": {"caBundle": bundle}})
        })
    }
}

/// Keeps the root (PEM) in the object `name`; does not end.
pub async fn keep<K: HasCaBundle>(client: Client, name: String, root: String) {
    let watch = Right::new("watch", K::RESOURCE);
    let patch_right = Right::new("patch", K::RESOURCE);
    let objects: Api<K> = Api::all(client);
    let mut events = pin!(watcher(objects.clone(), watch_named(&name)).default_backoff());
    let mut failures = FailureLog::new(K::KEEPING);
    let kind = K::kind(&());
    let mut seen = false;
    // What is to be corrected, as it was seen last.
    let mut wrong: Option<Value> = None;
    loop {
        if let Some(patch) = &wrong {
            let parameters = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Strategic(patch);
            let patched = objects.patch(&name, &parameters, &patch);
            match call(patch_right, DEADLINE, patched).await {
                Ok(_) => {
                    tracing::info!("{kind} {name} has the mesh's root as its caBundle");
                    wrong = None;
                }
                // It has changed since; the watch will report it.
                Err(error) if error.is_conflict() || error.is_not_found() => wrong = None,
                Err(error) => failures.failed(&error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(PAUSE), if wrong.is_some() => continue,
        };
        match event {
            None => return,
            Some(Ok(watcher::Event::Init)) => seen = false,
            Some(Ok(watcher::Event::InitDone)) if !seen => failures.failed(&format!(
                "there is no {kind} {name} {}; install the chart, or apply what `anyam install` prints",
                K::WITHOUT
            )),
            Some(Ok(watcher::Event::InitDone)) => {}
            Some(Ok(watcher::Event::Delete(_))) => wrong = None,
            Some(Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found))) => {
                seen = true;
                wrong = found.correction(&root);
                if wrong.is_none() {
                    failures.succeeded();
                }
            }
            Some(Err(error)) => {
                if let Some(error) = CallError::of_watch(watch, &error) {
                    failures.failed(&error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_another_root_are_corrected() {
        let webhook = |name: &str, bundle: Option<&str>| {
            let bundle = bundle.map(|it| STANDARD.encode(it));
            json!({
                "name": name, "clientConfig": {"url": "https://a/b", "caBundle": bundle},
                "admissionReviewVersions": ["v1"], "sideEffects": "None",
            })
        };
        let configuration = |webhooks: Value| -> MutatingWebhookConfiguration {
            let object = json!({"metadata": {"resourceVersion": "7"}, "webhooks": webhooks});
            serde_json::from_value(object).unwrap()
        };
        let good = webhook("good", Some("root"));
        assert_eq!(configuration(json!([good])).correction("root"), None);
        let mixed = json!([good, webhook("none", None), webhook("other", Some("x"))]);
        let patch = configuration(mixed).correction("root").unwrap();
        let bundle = STANDARD.encode("root");
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
                {"name": "none", "clientConfig": {"caBundle": bundle}},
                {"name": "other", "clientConfig": {"caBundle": bundle}},
            ]})
        );
    }
    #[test]
    fn an_api_service_with_another_root_is_corrected() {
        let service = |bundle: Option<&str>| -> APIService {
            let bundle = bundle.map(|it| STANDARD.encode(it));
            let object = json!({
                "metadata": {"resourceVersion": "7"},
                "spec": {"groupPriorityMinimum": 1, "versionPriority": 1, "caBundle": bundle},
            });
            serde_json::from_value(object).unwrap()
        };
        assert_eq!(service(Some("root")).correction("root"), None);
        let patch = json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"caBundle": STANDARD.encode("root")},
        });
        for wrong in [None, Some("x")] {
            assert_eq!(service(wrong).correction("root"), Some(patch.clone()));
        }
    }
}
