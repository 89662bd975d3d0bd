//! Nothing of the mesh is left by the commands of `docs/kubernetes.md`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyam_tests_kube::{Cluster, Helm, HelmVersion, Kubectl, until};

use crate::mesh;
use crate::shop::Shop;

const TIMEOUT: Duration = Duration::from_secs(120);

/// The lines of the code blocks of a section, which goes up to the next heading.
fn commands<'a>(text: &'a str, section: &str) -> Vec<&'a str> {
    let heading = format!("\n## {section}\n");
    let (_, after) = text.split_once(&heading).unwrap();
    let section = after.split("\n#").next().unwrap();
    section
        .split("```\n")
        .skip(1)
        .step_by(2)
        .flat_map(str::lines)
        .collect()
}

/// Runs them as they are written, with Helm on the PATH.
fn run(cluster: &Cluster, commands: &[&str]) {
    let helm = Helm::new(HelmVersion::V4);
    let folder = helm.program().parent().unwrap().to_string_lossy();
    let path = std::env::var("PATH").unwrap();
    for line in commands {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(Path::new(mesh::TREE))
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("PATH", format!("{folder}:{path}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
}

/// Objects of all kinds whose name or labels are the mesh's, but for events, which expire. An error: a
/// kind was deleted meanwhile.
fn remains(cluster: &Cluster) -> Result<Vec<String>, String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]);
    let kinds = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events") && *kind != "componentstatuses");
    let kinds = kinds.collect::<Vec<_>>().join(",");
    let get = |more: &[&str]| {
        let all = [
            &["get", &kinds, "--all-namespaces", "--output=name"][..],
            more,
        ]
        .concat();
        let output = cluster.try_kubectl(&all);
        match output.status {
            Some(0) => Ok(output.stdout),
            _ => Err(output.stderr),
        }
    };
    let named = get(&[])?;
    // The list is one of objects, which has others too.
    assert!(named.contains("namespace/kube-system\n"), "{named}");
    let labelled = get(&["--selector=app.kubernetes.io/part-of=anyam"])?;
    let injected = get(&["--selector=mesh.anyam.dev/inject"])?;
    // Of a contributor's cluster, nodes and what is named after them may have the name.
    let nodes = cluster.kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[*].metadata.name}",
    ]);
    let of_node = |name: &str| nodes.split_whitespace().any(|node| name.contains(node));
    let all = named
        .lines()
        .filter(|name| name.contains("anyam") && !of_node(name));
    let all = all.chain(labelled.lines()).chain(injected.lines());
    Ok(all.map(str::to_owned).collect())
}

#[tokio::test]
async fn an_uninstall_leaves_nothing() {
    let cluster = Cluster::alone();
    mesh::install(&cluster);
    let docs = std::fs::read_to_string(format!("{}/docs/kubernetes.md", mesh::TREE)).unwrap();
    let commands = commands(&docs, "Uninstall");
    assert!(commands.len() >= 7, "{commands:?}");
    // The namespace that the documentation has.
    let shop = Shop::open_in(&cluster, cluster.namespace_named("shop"), true);
    until("shops of other tests to be gone", TIMEOUT, async || {
        let label = "--selector=mesh.anyam.dev/inject=enabled";
        let names = cluster.kubectl(&["get", "namespaces", label, "--output=name"]);
        match names.trim() == "namespace/shop" {
            true => Ok(()),
            false => Err(names),
        }
    })
    .await;
    assert_eq!(shop.containers("web"), ["anyam-init", "anyam-proxy", "app"]);
    assert!(!remains(&cluster).unwrap().is_empty());

    mesh::uninstalled();
    run(&cluster, &commands);
    for deployment in ["web", "client"] {
        assert_eq!(shop.containers(deployment), ["app"]);
    }
    until("nothing to be left", TIMEOUT, async || {
        match remains(&cluster) {
            Ok(left) if left.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    shop.requests("http://web/", 50).lost_nothing();
}
