//! The webhook's `caBundle`: by which the API server verifies the webhook. The leader keeps the mesh's
//! root there, whatever other writers put in its place.

use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::MANAGER;
use super::call::{CallError, DEADLINE, FailureLog, Right, call, watch_named};

const RESOURCE: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const WATCH: Right = Right::new("watch", RESOURCE);
const PATCH: Right = Right::new("patch", RESOURCE);

/// After each attempt: another that writes it as often makes no more load than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the root (PEM) in the MutatingWebhookConfiguration `name`; does not end.
pub async fn keep(client: Client, name: String, root: String) {
    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client);
    let mut events = pin!(watcher(webhooks.clone(), watch_named(&name)).default_backoff());
    let mut failures = FailureLog::new("keeping the webhook's caBundle");
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
            match call(PATCH, DEADLINE, webhooks.patch(&name, &parameters, &patch)).await {
                Ok(_) => {
                    tracing::info!(
                        "MutatingWebhookConfiguration {name} has the mesh's root as its caBundle"
                    );
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
                "there is no MutatingWebhookConfiguration {name} (--webhook-name), so no pod is injected; install the chart, or apply what `anyam install` prints"
            )),
            Some(Ok(watcher::Event::InitDone)) => {}
            Some(Ok(watcher::Event::Delete(_))) => wrong = None,
            Some(Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found))) => {
                seen = true;
                wrong = correction(&found, &root);
                if wrong.is_none() {
                    failures.succeeded();
                }
            }
            Some(Err(error)) => {
                if let Some(error) = CallError::of_watch(WATCH, &error) {
                    failures.failed(&error);
                }
            }
        }
    }
}

/// The strategic merge patch by which each webhook has `root`; refused by the API server when the
/// object is another by then. `None`: it has.
fn correction(found: &MutatingWebhookConfiguration, root: &str) -> Option<Value> {
    let all = found.webhooks.iter().flatten();
    let wrong = all.filter(|webhook| {
        let bundle = webhook.client_config.ca_bundle.as_ref();
        bundle.is_none_or(|bundle| bundle.0 != root.as_bytes())
    });
    let bundle = STANDARD.encode(root);
    let wrong: Vec<Value> = wrong
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
        .collect();
    let version = &found.metadata.resource_version;
    (!wrong.is_empty())
        .then(|| json!({"metadata": {"resourceVersion": version}, "webhooks": wrong}))
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
        assert_eq!(correction(&configuration(json!([good])), "root"), None);
        let mixed = json!([good, webhook("none", None), webhook("other", Some("x"))]);
        let patch = correction(&configuration(mixed), "root").unwrap();
        let bundle = STANDARD.encode("root");
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
                {"name": "none", "clientConfig": {"caBundle": bundle}},
                {"name": "other", "clientConfig": {"caBundle": bundle}},
            ]})
        );
    }
}
