//! Golden manifests of the chart. After a change of the chart: `UPDATE_GOLDEN=1 cargo test -p
//! anyam-tests-kube --test chart`; read the difference before you keep it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyam_control::crd;
use anyam_tests_kube::{Helm, HelmVersion};
use serde_json::Value;

use super::{EVERYTHING, RENDERINGS, objects, rendering};

/// What a rendering may consist of: API version, kind, and whether it has a namespace.
const KINDS: [(&str, &str, bool); 19] = [
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", false),
    ("v1", "ServiceAccount", true),
    ("v1", "ConfigMap", true),
    ("v1", "Service", true),
    ("v1", "ResourceQuota", true),
    ("v1", "LimitRange", true),
    ("apps/v1", "Deployment", true),
    ("policy/v1", "PodDisruptionBudget", true),
    ("autoscaling/v2", "HorizontalPodAutoscaler", true),
    ("scheduling.k8s.io/v1", "PriorityClass", false),
    ("networking.k8s.io/v1", "NetworkPolicy", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", false),
    ("rbac.authorization.k8s.io/v1", "Role", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", true),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        false,
    ),
    ("apiregistration.k8s.io/v1", "APIService", false),
    ("monitoring.coreos.com/v1", "ServiceMonitor", true),
    ("monitoring.coreos.com/v1", "PodMonitor", true),
];

fn helm() -> Helm {
    Helm::new(HelmVersion::V4)
}

#[test]
fn renderings_are_the_golden_ones() {
    let helm = helm();
    for (name, values) in RENDERINGS {
        // The definitions are files of their own.
        let mut options = vec!["--set", "crds.install=false"];
        options.extend(values.into_iter().flat_map(|file| ["-f", file]));
        let text = helm.template(&options);
        // `anyam install` prints those of the chart's own values files.
        let folder = match values == Some(EVERYTHING) {
            true => Path::new(EVERYTHING).parent().unwrap().join("golden"),
            false => Helm::chart().join("../rendered"),
        };
        let path = folder.join(format!("{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            known == text,
            "{} is not what is rendered; run\n  UPDATE_GOLDEN=1 cargo test -p anyam-tests-kube --test chart",
            path.display()
        );
    }
}

/// Helm 3 renders the same.
#[test]
fn both_versions_of_helm_agree() {
    let (three, four) = (Helm::new(HelmVersion::V3), helm());
    for (name, values) in RENDERINGS {
        assert_eq!(
            rendering(&three, values),
            rendering(&four, values),
            "{name}"
        );
    }
}

#[test]
fn helm_lint_reports_nothing() {
    for version in [HelmVersion::V3, HelmVersion::V4] {
        let helm = Helm::new(version);
        for (_, values) in RENDERINGS {
            let mut lint = vec!["lint", ".", "--strict"];
            lint.extend(values.into_iter().flat_map(|file| ["-f", file]));
            let said = helm.run(&lint);
            // A missing icon is accepted.
            let other = said
                .lines()
                .find(|line| line.contains("[WARNING]") || line.contains("[ERROR]"));
            assert_eq!(other, None, "{version:?} {values:?}: {said}");
        }
    }
}

#[test]
fn objects_are_of_known_kinds_in_their_places() {
    for (name, values) in RENDERINGS {
        let mut seen = BTreeSet::new();
        for object in rendering(&helm(), values) {
            let kind = KINDS.iter().find(|(version, kind, _)| {
                object["apiVersion"] == *version && object["kind"] == *kind
            });
            let (.., namespaced) = kind.unwrap_or_else(|| panic!("{name}: {object:#}"));
            let about = &object["metadata"];
            assert_eq!(
                about["namespace"].is_string(),
                *namespaced,
                "{name}: {object:#}"
            );
            assert_eq!(
                about["labels"]["app.kubernetes.io/part-of"], "anyam",
                "{object:#}"
            );
            let place =
                [&object["kind"], &about["namespace"], &about["name"]].map(Value::to_string);
            assert!(
                seen.insert(place.clone()),
                "{name}: {place:?} is there twice"
            );
        }
    }
}

/// Each template is rendered by one of the files of values.
#[test]
fn every_template_is_rendered() {
    let all = RENDERINGS
        .map(|(_, values)| rendering(&helm(), values))
        .concat();
    let seen: BTreeSet<_> = all
        .iter()
        .map(|object| object["kind"].to_string())
        .collect();
    assert_eq!(seen.len(), KINDS.len(), "{seen:?}");
}

#[test]
fn crds_are_those_of_the_program_and_kept_by_default() {
    let helm = helm();
    for (keep, expected) in [("true", Value::from("keep")), ("false", Value::Null)] {
        let set = format!("crds.keep={keep}");
        let rendered = objects(&helm.template(&["--set", &set]));
        let rendered: Vec<_> = rendered
            .iter()
            .filter(|object| object["kind"] == "CustomResourceDefinition")
            .collect();
        let known = crd::all();
        assert_eq!(rendered.len(), known.len());
        for (rendered, known) in rendered.iter().zip(&known) {
            assert_eq!(rendered["spec"], known.manifest["spec"], "{}", known.name);
            let about = &rendered["metadata"];
            assert_eq!(about["name"], *known.name);
            assert_eq!(about["annotations"]["helm.sh/resource-policy"], expected);
        }
    }
}
