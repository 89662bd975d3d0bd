//! For any pod: injecting it again changes nothing, and none of its fields is lost.

use anyam_control::inject::hook_token::{HookToken, HookTokens};
use anyam_control::inject::settings::MeshSettings;
use anyam_control::inject::{Injection, inject};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{ENABLED, token};

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        (1u16..).prop_map(Value::from),
        Just(json!("http")),
        Just(json!("nowhere")),
        Just(json!("8080")),
    ];
    let path = option::of("/[a-z$()?=]{0,12}");
    let scheme = option::of(prop_oneof![Just("HTTP"), Just("HTTPS"), Just("FTP")]);
    let host = option::of(Just("other.example"));
    prop_oneof![
        (port.clone(), path, scheme, host.clone()).prop_map(|(port, path, scheme, host)| {
            let fields = [
                ("path", path),
                ("scheme", scheme.map(Into::into)),
                ("host", host.map(Into::into)),
            ];
            let mut http = json!({"port": port});
            for (field, value) in fields {
                if let Some(value) = value {
                    http[field] = value.into();
                }
            }
            json!({"httpGet": http})
        }),
        (port, host).prop_map(|(port, host)| match host {
            Some(host) => json!({"tcpSocket": {"port": port, "host": host}}),
            None => json!({"tcpSocket": {"port": port}}),
        }),
        (1u16.., option::of("[a-z.]{1,9}"))
            .prop_map(|(port, service)| { json!({"grpc": {"port": port, "service": service}}) }),
        Just(json!({"exec": {"command": ["true"]}})),
    ]
}

fn probe() -> impl Strategy<Value = Value> {
    (
        handler(),
        option::of(0u32..20),
        option::of(Just(json!({"kept": [null, 1.5]}))),
    )
        .prop_map(|(mut probe, timeout, future)| {
            if let Some(timeout) = timeout {
                probe["timeoutSeconds"] = timeout.into();
            }
            if let Some(future) = future {
                probe["fieldOfALaterVersion"] = future;
            }
            probe
        })
}

fn container(prefix: &'static str) -> impl Strategy<Value = Value> {
    let hooks = option::of(vec(handler(), 2));
    (vec(option::of(probe()), 3), hooks, any::<bool>()).prop_map(move |(probes, hooks, ports)| {
        let mut container = json!({"name": prefix, "image": "a", "later": {"x": 1}});
        for (field, probe) in ["livenessProbe", "readinessProbe", "startupProbe"]
            .iter()
            .zip(probes)
        {
            if let Some(probe) = probe {
                container[*field] = probe;
            }
        }
        if let Some(hooks) = hooks {
            container["lifecycle"] = json!({"preStop": hooks[0], "postStart": hooks[1]});
        }
        if ports {
            container["ports"] = json!([{"name": "http", "containerPort": 8080}]);
        }
        container
    })
}

fn annotations() -> impl Strategy<Value = Map<String, Value>> {
    let pair = prop_oneof![
        Just(("prometheus.io/scrape", "true")),
        Just(("prometheus.io/port", "9102")),
        Just(("prometheus.io/path", "/m")),
        Just(("mesh.anyam.dev/sidecar", "classic")),
        Just(("mesh.anyam.dev/rewrite-probes", "false")),
        Just(("mesh.anyam.dev/capture-dns", "false")),
        Just(("mesh.anyam.dev/exclude-inbound-ports", "22")),
        Just(("kubectl.kubernetes.io/default-container", "c0")),
        Just(("other.example/x", "")),
    ];
    let entry = |(name, value): (&str, &str)| (name.to_owned(), Value::from(value));
    vec(pair, 0..6).prop_map(move |pairs| pairs.into_iter().map(entry).collect())
}

fn pod() -> impl Strategy<Value = Value> {
    let lists = (vec(container("init"), 0..3), vec(container("app"), 1..3));
    let secrets = option::of(prop_oneof![
        Just(json!([{"name": "app"}])),
        Just(json!([{"name": "mesh", "later": 1}, {"name": "app"}])),
    ]);
    (lists, option::of(annotations()), any::<bool>(), secrets).prop_map(
        |((mut init, mut apps), annotations, volumes, secrets)| {
            for (index, container) in init.iter_mut().chain(&mut apps).enumerate() {
                container["name"] = format!("c{index}").into();
            }
            let mut pod =
                json!({"metadata": {"name": "p"}, "spec": {"later": [1], "containers": apps}});
            if !init.is_empty() {
                pod["spec"]["initContainers"] = init.into();
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = annotations.into();
            }
            if let Some(secrets) = secrets {
                pod["spec"]["imagePullSecrets"] = secrets;
            }
            if volumes {
                pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
            }
            pod
        },
    )
}

fn injected(pod: &Value, settings: &MeshSettings) -> Value {
    injected_with(pod, settings, &token())
}

fn injected_with(pod: &Value, settings: &MeshSettings, token: &HookToken) -> Value {
    match inject(pod, ENABLED, settings, token).unwrap() {
        Injection::Injected { pod, .. } => pod,
        Injection::Skipped(skip) => panic!("{skip}"),
    }
}

/// The pod without what injection adds and changes.
fn rest(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["initContainers", "containers", "volumes"] {
        let Some(Value::Array(elements)) = pod["spec"].get_mut(list) else {
            continue;
        };
        elements.retain(|element| !element["name"].as_str().unwrap().starts_with("anyam-"));
        for element in elements.iter_mut() {
            let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
            for probe in probes
                .map(|probe| format!("/{probe}"))
                .iter()
                .map(String::as_str)
                .chain(["/lifecycle/preStop", "/lifecycle/postStart"])
            {
                if let Some(Value::Object(probe)) = element.pointer_mut(probe) {
                    for handler in ["httpGet", "tcpSocket", "grpc"] {
                        probe.remove(handler);
                    }
                }
            }
        }
        if elements.is_empty() {
            pod["spec"].as_object_mut().unwrap().remove(list);
        }
    }
    if let Some(Value::Object(annotations)) = pod["metadata"].get_mut("annotations") {
        annotations.retain(|name, _| {
            !name.starts_with("mesh.anyam.dev/status")
                && !name.starts_with("prometheus.io/")
                && name != "kubectl.kubernetes.io/default-container"
        });
        if annotations.is_empty() {
            pod["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
        }
    }
    pod
}

proptest! {
    #[test]
    fn injecting_again_changes_nothing(pod in pod()) {
        let settings = MeshSettings::default();
        let once = injected(&pod, &settings);
        prop_assert_eq!(&injected(&once, &settings), &once);
        let other = HookTokens::Random.token("").unwrap();
        prop_assert_eq!(&injected_with(&once, &settings, &other), &once);
        prop_assert_eq!(rest(&once), rest(&pod));
    }

    /// As after an upgrade of the mesh between the two injections.
    #[test]
    fn injecting_with_other_settings_gives_what_injecting_at_first_gives(pod in pod()) {
        let mut newer = MeshSettings::default();
        newer.proxy.image = "anyam/proxy:newer".into();
        newer.proxy.rewrite_probes = false;
        newer.proxy.merge_metrics = false;
        newer.image_pull_secrets = vec!["mesh".into(), "other".into()];
        let older = MeshSettings::default();
        let with_older = injected(&pod, &older);
        let with_newer = injected(&pod, &newer);
        prop_assert_eq!(&injected(&with_older, &newer), &with_newer);
        prop_assert_eq!(&injected(&with_newer, &older), &with_older);
        prop_assert_eq!(&injected(&with_newer, &newer), &with_newer);
    }
}
