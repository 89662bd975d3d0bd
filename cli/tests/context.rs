//! `anyam context`, as a person uses it.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn anyam(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_anyam"))
        .args(arguments)
        .env_clear()
        .env("ANYAM_CONFIG_DIR", folder)
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
        [vec!["demo", at[1]], vec!["*", "staging", at[0]]]
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
    assert_eq!(list(folder), [vec!["*", "staging", at[0]]]);

    let file = folder.join("contexts/staging.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(folder, &["edges"]).contains("staging.json"));
}
