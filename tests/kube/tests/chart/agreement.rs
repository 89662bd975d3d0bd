//! The chart agrees with the program that it starts.

use std::fs;

use anyam_control::args::{Cli, Command};
use anyam_control::inject::settings::MeshSettings;
use anyam_tests_kube::{Helm, HelmVersion, program};
use clap::Parser;
use serde_json::Value;

use super::{RENDERINGS, file, objects, of_kind, rendering};

fn helm() -> Helm {
    Helm::new(HelmVersion::V4)
}

fn settings(objects: &[Value]) -> MeshSettings {
    let map = of_kind(objects, "ConfigMap", "anyam-injection");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("injection.yaml");
    fs::write(&path, map["data"]["injection.yaml"].as_str().unwrap()).unwrap();
    MeshSettings::read(&path).unwrap()
}

fn container(objects: &[Value]) -> Value {
    let deployment = of_kind(objects, "Deployment", "anyam-control");
    deployment["spec"]["template"]["spec"]["containers"][0].clone()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

#[test]
fn the_program_takes_its_flags() {
    for (name, values) in RENDERINGS {
        let container = container(&rendering(&helm(), values));
        let words = ["anyam-control"]
            .into_iter()
            .chain(texts(&container["args"]));
        let parsed = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(Command::Serve(serve)) = parsed.command else {
            panic!("{name}: {parsed:?}");
        };
        // Targets of the Service and of the probes, by the containers' ports.
        let ports = container["ports"].as_array().unwrap();
        let port = |name: &str| {
            let found = ports.iter().find(|port| port["name"] == name).unwrap();
            found["containerPort"].as_u64().unwrap()
        };
        assert_eq!(u64::from(serve.xds_listen.port()), port("xds"));
        let webhook = serve.injection.webhook_listen.unwrap();
        assert_eq!(u64::from(webhook.port()), port("webhook"));
        let metrics = serve.metrics_listen.unwrap();
        assert_eq!(u64::from(metrics.port()), port("metrics"));
        let aggregated = serve.cluster.aggregated_listen.unwrap();
        assert_eq!(u64::from(aggregated.port()), port("api"));
        let replicas = serve.cluster.replicas_listen.unwrap();
        assert_eq!(u64::from(replicas.port()), port("replicas"));
        for open in [serve.xds_listen, webhook, metrics, aggregated, replicas] {
            assert!(open.ip().is_unspecified(), "{open}");
        }
        assert!(
            serve.api_listen.ip().is_loopback(),
            "it is plaintext with a token"
        );
    }
}

/// Flags of `anyam-control serve` that a pod needs no value of the chart for.
const NO_VALUE: [(&str, &str); 7] = [
    ("config-dir", "in place of --kubernetes"),
    (
        "state-dir",
        "a temporary folder: all state is in the cluster",
    ),
    ("kubeconfig", "the pod's service account"),
    ("kube-context", "likewise"),
    (
        "token-audience",
        "also in the settings of injection, which has the same default",
    ),
    ("insecure-ads-listen", "for tests"),
    ("api-host", "the API is on loopback"),
];

/// Otherwise a flag could not be set by users of the chart.
#[test]
fn every_flag_is_set_by_the_chart() {
    use clap::CommandFactory;
    let template = fs::read_to_string(Helm::chart().join("templates/deployment.yaml")).unwrap();
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let flags: Vec<&str> = serve
        .get_arguments()
        .filter_map(|it| it.get_long())
        .collect();
    for flag in &flags {
        let words = ["=", "\n", "\""].map(|end| format!("--{flag}{end}"));
        let is_set = words.iter().any(|word| template.contains(word));
        let other = NO_VALUE.iter().any(|(name, _)| name == flag);
        assert!(
            is_set != other,
            "--{flag}: set it in deployment.yaml, or list why that is not needed, and not both"
        );
    }
    for (name, _) in NO_VALUE {
        assert!(flags.contains(&name), "there is no flag --{name}");
    }
}

#[test]
fn the_program_takes_its_settings() {
    let helm = helm();
    let mut expected = MeshSettings::default();
    expected.proxy.image.insert_str(0, "docker.io/");
    assert_eq!(settings(&rendering(&helm, None)), expected);
    for (name, values) in RENDERINGS {
        let objects = rendering(&helm, values);
        let settings = settings(&objects);
        let container = container(&objects);
        let arguments = texts(&container["args"]);
        let trust = format!("--trust-domain={}", settings.trust_domain);
        assert!(arguments.contains(&trust.as_str()), "{name}: {arguments:?}");
        let domain = format!("--cluster-domain={}", settings.cluster_domain);
        assert!(arguments.contains(&&*domain), "{name}: {arguments:?}");
        let shown = format!("--name={}", settings.control_plane_name);
        assert!(arguments.contains(&shown.as_str()), "{name}: {arguments:?}");
    }
}

/// `injection.proxy` has the fields of the program's settings, apart from the image.
#[test]
fn every_setting_of_a_sidecar_is_a_value() {
    let settings = serde_json::to_value(MeshSettings::default()).unwrap();
    let mut known = settings["proxy"].as_object().unwrap().clone();
    for elsewhere in ["image", "imagePullPolicy"] {
        known.shift_remove(elsewhere).unwrap();
    }
    let values = file(&Helm::chart().join("values.yaml"));
    assert_eq!(values["injection"]["proxy"], Value::Object(known));
}

#[test]
fn excluded_namespaces_are_the_same_everywhere() {
    for (name, values) in RENDERINGS {
        let objects = rendering(&helm(), values);
        let excluded = settings(&objects).excluded_namespaces;
        let webhook = of_kind(&objects, "MutatingWebhookConfiguration", "anyam-injector");
        for one in webhook["webhooks"].as_array().unwrap() {
            let expressions = one["namespaceSelector"]["matchExpressions"]
                .as_array()
                .unwrap();
            let by_name = expressions
                .iter()
                .find(|one| one["key"] == "kubernetes.io/metadata.name")
                .unwrap();
            assert_eq!(texts(&by_name["values"]), excluded, "{name}");
            assert!(one["clientConfig"].get("caBundle").is_none(), "{name}");
        }
    }
}

/// `anyam install` works without Helm; its output differs in the managed-by labels only.
#[test]
fn anyam_install_prints_what_helm_renders() {
    let helm = helm();
    let profiles = RENDERINGS.into_iter().take(4);
    let both = profiles.flat_map(|profile| [(profile, false), (profile, true)]);
    for ((profile, values), ipv6) in both {
        let set = "image.registry=registry.example:5000/x,image.tag=v2,trustDomain=mesh.example";
        let mut options = vec!["--set", set, "--namespace", "mesh"];
        if ipv6 {
            options.extend(["--set", "ipv6=true"]);
        }
        options.extend(values.into_iter().flat_map(|file| ["-f", file]));
        let mut expected = objects(&helm.template(&options));
        for object in &mut expected {
            labels(object);
        }
        let output = std::process::Command::new(program("anyam"))
            .args([
                "install",
                "--profile",
                profile,
                "--namespace=mesh",
                "--tag=v2",
            ])
            .args([
                "--registry=registry.example:5000/x",
                "--trust-domain=mesh.example",
            ])
            .args(ipv6.then_some("--ipv6"))
            .output()
            .unwrap();
        let mut printed = objects(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(printed.remove(0)["kind"], "Namespace");
        for object in &mut printed {
            labels(object);
        }
        for object in expected {
            assert!(
                printed.contains(&object),
                "{profile}: not printed: {object:#}"
            );
            printed.retain(|other| *other != object);
        }
        assert!(printed.is_empty(), "{profile}: {printed:#?}");
    }
}

/// Removes the labels that name the manager of an object, on pod templates too, and all labels of a
/// CRD.
fn labels(object: &mut Value) {
    let is_definition = object["kind"] == "CustomResourceDefinition";
    if is_definition {
        let name = object["metadata"]["name"].clone();
        object["metadata"] = serde_json::json!({ "name": name });
    }
    for at in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(Value::Object(labels)) = object.pointer_mut(at) {
            labels.retain(|name, _| {
                name != "helm.sh/chart" && name != "app.kubernetes.io/managed-by"
            });
        }
    }
}

#[test]
fn images_are_those_that_are_built() {
    let version = env!("CARGO_PKG_VERSION");
    let objects = rendering(&helm(), None);
    let control = format!("docker.io/anyam/control:{version}");
    assert_eq!(container(&objects)["image"], *control);
    let proxy = format!("docker.io/anyam/proxy:{version}");
    assert_eq!(settings(&objects).proxy.image, proxy);

    let everything = rendering(&helm(), RENDERINGS[4].1);
    let registry = "registry.example:5000/mesh/anyam";
    assert_eq!(
        container(&everything)["image"],
        *format!("{registry}/control:9.9.9")
    );
    let proxy = settings(&everything).proxy.image;
    assert!(
        proxy.starts_with(&format!("{registry}/proxy@sha256:")),
        "{proxy}"
    );
}
