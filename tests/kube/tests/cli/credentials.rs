//! The ways into a cluster that a kubeconfig has.

use std::os::unix::fs::PermissionsExt;

use anyam_tests_kube::{ApiServer, Kubectl};
use serde_json::json;

use super::anyam::{Anyam, token};

/// A command that only asks the API server.
const ASK: [&str; 4] = ["check", "--pre", "-o", "json"];

fn lines(anyam: &Anyam) -> String {
    let output = anyam.run(&ASK);
    assert!(matches!(output.status, Some(0 | 1)), "{output:?}");
    output.stdout
}

#[test]
fn whatever_a_kubeconfig_authenticates_by_works() {
    let server = ApiServer::start();
    // Client certificates.
    let administrator = Anyam::new(server.kubeconfig());
    assert!(lines(&administrator).contains("those of an administrator"));

    // Tokens, and files with tokens.
    let secret = token(&server, "robot");
    let user = "system:serviceaccount:default:robot";
    // The API server says who asks, and that the user has no rights.
    let refused = [user, "cannot get resource"];
    let by_token = Anyam::of_user(&server, &json!({"token": secret}));
    by_token.refused(&["stat", "-n", "default"], &refused);
    let file = by_token.file("token");
    std::fs::write(&file, &secret).unwrap();
    let by_file = Anyam::of_user(&server, &json!({"tokenFile": file}));
    by_file.refused(&["stat", "-n", "default"], &refused);

    // Plugins.
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
        "status": {"token": secret},
    });
    let plugin = by_token.file("plugin");
    let script = |text: &str| {
        std::fs::write(&plugin, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
    };
    let exec = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": plugin, "interactiveMode": "Never",
    }});
    script(&format!("echo '{credential}'"));
    let by_plugin = Anyam::of_user(&server, &exec);
    by_plugin.refused(&["stat", "-n", "default"], &refused);
    script("echo secret; echo 'no session, log in' >&2; exit 3");
    let failed = by_plugin.refused(
        &["stat"],
        &[
            "no session, log in",
            "exit status: 3",
            "credentials",
            "context anyam-",
        ],
    );
    assert!(!failed.contains("secret"), "{failed}");

    // Impersonation, of which the API server knows.
    let mut config: serde_json::Value =
        serde_json::from_str(&server.kubectl(&["config", "view", "--raw", "--output=json"]))
            .unwrap();
    config["users"][0]["user"]["as"] = json!(user);
    let as_robot = Anyam::with(&config.to_string());
    let found = lines(&as_robot);
    assert!(found.contains("you may not create"), "{found}");
}

#[test]
fn a_context_is_chosen_among_all() {
    let server = ApiServer::start();
    let anyam = Anyam::new(server.kubeconfig());
    let other = anyam.file("other");
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    // Another cluster, without an API server.
    let context = text.split("current-context: ").nth(1).unwrap();
    let context = context.lines().next().unwrap().to_owned();
    let port = text.split("server: \"https://").nth(1).unwrap();
    let port = port.split('"').next().unwrap();
    let text = text
        .replace(&context, "elsewhere")
        .replace(port, "127.0.0.1:1");
    std::fs::write(&other, text).unwrap();
    let both = format!(
        "{}:{}",
        anyam.file(".kube/config").display(),
        other.display()
    );
    let run = |arguments: &[&str]| {
        let mut command = anyam.command(arguments);
        anyam_tests_kube::run(command.env("KUBECONFIG", &both), "")
    };
    let list = run(&["context", "list"]).stdout;
    assert!(
        list.contains("elsewhere") && list.contains(&context),
        "{list}"
    );
    let asked = run(&["stat"]);
    assert!(asked.stderr.contains("no Anyam"), "{asked:?}");
    let asked = run(&["--kube-context", "elsewhere", "stat"]);
    assert!(
        asked.stderr.contains("does not answer") && asked.stderr.contains("context elsewhere"),
        "{asked:?}"
    );
    run(&["context", "use", "elsewhere"]);
    let asked = run(&["stat"]);
    assert!(asked.stderr.contains("does not answer"), "{asked:?}");
    let asked = run(&["--context", &context, "stat"]);
    assert!(asked.stderr.contains("no Anyam"), "{asked:?}");
    let file = other.to_str().unwrap();
    anyam.refused(&["--kubeconfig", file, "stat"], &["does not answer"]);
}
