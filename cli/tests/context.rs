//! `anyam context`, as a person uses it.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// `kubeconfig` beside the folder is the user's, if it is there.
fn anyam(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_anyam"))
        .args(arguments)
        .env_clear()
        .env("ANYAM_CONFIG_DIR", folder)
        .env("KUBECONFIG", folder.with_file_name("kubeconfig"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn done(folder: &Path, arguments: &[&str], input: &str) -> String {
    let output = anyam(folder, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = anyam(folder, arguments, "");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Lines of the list, each with its words.
fn list(folder: &Path) -> Vec<Vec<String>> {
    let text = done(folder, &["context", "list"], "");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    text.lines().skip(1).map(words).collect()
}

#[test]
fn contexts_are_listed_chosen_and_used() {
    let home = tempfile::tempdir().unwrap();
    let folder = &home.path().join("anyam");
    assert!(done(folder, &["context", "list"], "").contains("No context is there"));
    // Ports without a listener.
    let at = ["127.0.0.1:1", "127.0.0.1:2"];
    let add = |name, at, more: &[&str]| {
        let arguments = [
            &["context", "add", name, "--at", at, "--token-stdin"][..],
            more,
        ]
        .concat();
        done(folder, &arguments, "secret\n");
    };
    add("staging", at[0], &[]);
    add("demo", at[1], &[]);
    assert_eq!(
        list(folder),
        [
            vec!["demo", "address", at[1]],
            vec!["*", "staging", "address", at[0]]
        ]
    );
    assert!(refused(folder, &["edges"]).contains(at[0]));
    assert!(refused(folder, &["--context", "demo", "edges"]).contains(at[1]));
    done(folder, &["context", "use", "demo"], "");
    assert!(refused(folder, &["edges"]).contains(at[1]));
    // Flags go before a context.
    assert!(refused(folder, &["edges", "--api", "127.0.0.1:3"]).contains("127.0.0.1:3"));
    assert!(refused(folder, &["edges", "--token-file", "/nowhere"]).contains("/nowhere"));
    let unknown = refused(folder, &["--context", "prod", "edges"]);
    assert!(
        unknown.contains("there is no context `prod`; there are: demo, staging"),
        "{unknown}"
    );
    refused(folder, &["context", "use", "prod"]);
    done(folder, &["context", "remove", "demo"], "");
    assert_eq!(list(folder), [vec!["*", "staging", "address", at[0]]]);

    let file = folder.join("contexts/staging.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(folder, &["edges"]).contains("staging.json"));
}

/// Two contexts, whose API servers have no listener.
const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: prod
clusters:
  - {name: one, cluster: {server: 'http://127.0.0.1:1'}}
  - {name: two, cluster: {server: 'http://127.0.0.1:2'}}
contexts:
  - {name: prod, context: {cluster: one, user: u}}
  - {name: 'admin@two', context: {cluster: two, user: u, namespace: shop}}
users: [{name: u, user: {token: secret}}]
";

#[test]
fn a_kubeconfigs_contexts_are_used_as_kubectl_uses_them() {
    let home = tempfile::tempdir().unwrap();
    let folder = &home.path().join("anyam");
    let file = home.path().join("kubeconfig");
    std::fs::write(&file, KUBECONFIG).unwrap();
    let (one, two) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
    let row = |mark: &[&'static str], name: &'static str, kind: &'static str, at: &'static str| {
        [mark, &[name, kind, at]].concat()
    };
    assert_eq!(
        list(folder),
        [
            row(&[], "admin@two", "kubernetes", two),
            row(&["*"], "prod", "kubernetes", one)
        ]
    );
    let asked = refused(folder, &["edges"]);
    assert!(
        asked.contains(one) && asked.contains("context prod"),
        "{asked}"
    );
    let asked = refused(folder, &["--kube-context", "admin@two", "edges"]);
    assert!(asked.contains(two), "{asked}");
    assert!(refused(folder, &["--context", "admin@two", "edges"]).contains(two));

    // A control plane that is running here goes before, unless flags name a cluster.
    let at = "127.0.0.1:3";
    let add = ["context", "add", "demo", "--at", at, "--token-stdin"];
    done(folder, &add, "secret\n");
    assert!(refused(folder, &["edges"]).contains(at));
    assert_eq!(list(folder)[0], row(&["*"], "demo", "address", at));
    let kubeconfig = file.to_str().unwrap();
    assert!(refused(folder, &["edges", "--kubeconfig", kubeconfig]).contains(one));
    let both = refused(folder, &["edges", "--kube-context", "prod", "--api", at]);
    assert!(
        both.contains("--kube-context") && both.contains("--api"),
        "{both}"
    );

    // Chosen, whatever kubectl's current one is.
    done(folder, &["context", "use", "admin@two"], "");
    assert!(refused(folder, &["edges"]).contains(two));
    let rows = list(folder);
    assert_eq!(rows[1], row(&["*"], "admin@two", "kubernetes", two));
    assert_eq!(rows.iter().filter(|row| row[0] == "*").count(), 1);
    let unknown = refused(folder, &["context", "use", "nowhere"]);
    assert!(
        unknown.contains("demo, admin@two, prod (kubeconfig)"),
        "{unknown}"
    );
    let unknown = refused(folder, &["context", "use", "--kubernetes", "demo"]);
    assert!(unknown.contains("there are: admin@two, prod"), "{unknown}");
    let elsewhere = home.path().join("elsewhere");
    std::fs::write(&elsewhere, KUBECONFIG).unwrap();
    let elsewhere = ["--kubeconfig", elsewhere.to_str().unwrap(), "context"];
    let listed = done(folder, &[&elsewhere[..], &["list"]].concat(), "");
    assert!(listed.contains(two), "{listed}");
    let unkept = refused(folder, &[&elsewhere[..], &["use", "prod"]].concat());
    assert!(unkept.contains("KUBECONFIG"), "{unkept}");
    // It is gone from the kubeconfig.
    std::fs::write(&file, KUBECONFIG.replace("admin@two", "other")).unwrap();
    assert!(refused(folder, &["edges"]).contains(at));
    let unknown = refused(folder, &["--kube-context", "admin@two", "edges"]);
    assert!(
        unknown.contains("no context `admin@two`; it has: prod, other"),
        "{unknown}"
    );
}

#[test]
fn several_kubeconfigs_are_one_and_a_missing_one_is_empty() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("anyam");
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    std::fs::write(&first, KUBECONFIG).unwrap();
    let more = KUBECONFIG
        .replace("name: prod", "name: more")
        .replace("current-context: prod", "current-context: more");
    std::fs::write(&second, more).unwrap();
    let list = |paths: &[&Path]| {
        let output = Command::new(env!("CARGO_BIN_EXE_anyam"))
            .args(["context", "list"])
            .env_clear()
            .env("ANYAM_CONFIG_DIR", &folder)
            .env("KUBECONFIG", std::env::join_paths(paths).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let nowhere = home.path().join("nowhere");
    let both = list(&[&nowhere, &first, &second]);
    let current: Vec<_> = both.lines().filter(|line| line.starts_with('*')).collect();
    assert!(current.len() == 1 && current[0].contains("prod"), "{both}");
    assert!(both.contains("more"), "{both}");
    assert!(list(&[&nowhere]).contains("No context is there"));
}
