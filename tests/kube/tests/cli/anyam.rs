//! `anyam` with a kubeconfig and without anything else of the user who runs the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyam_tests_kube::{ApiServer, Kubectl, Output, program, run};
use serde_json::{Value, json};

pub struct Anyam {
    home: tempfile::TempDir,
}

impl Anyam {
    /// As the user of an API server's kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        Self::with(&text)
    }

    pub fn with(kubeconfig: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".kube")).unwrap();
        std::fs::write(home.path().join(".kube/config"), kubeconfig).unwrap();
        Anyam { home }
    }

    /// As a user with other credentials: the `user` of a kubeconfig.
    pub fn of_user(server: &ApiServer, user: &Value) -> Self {
        let config = server.kubectl(&["config", "view", "--raw", "--output=json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = user.clone();
        Self::with(&config.to_string())
    }

    /// As a service account, which is made, of namespace `default`.
    pub fn of_account(server: &ApiServer, name: &str) -> Self {
        Self::of_user(server, &json!({"token": token(server, name)}))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("anyam"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), "")
    }

    /// Its standard output, when it exits with 0.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status, Some(0), "{arguments:?}: {output:?}");
        output.stdout
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Its message, when it could not do what it was asked for.
    pub fn refused(&self, arguments: &[&str], words: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status, Some(2), "{arguments:?}: {output:?}");
        for word in words {
            assert!(output.stderr.contains(word), "{word}: {output:?}");
        }
        output.stderr
    }
}

/// Of a service account, which is made, of namespace `default`.
pub fn token(server: &ApiServer, account: &str) -> String {
    server.kubectl(&["create", "serviceaccount", account]);
    let token = server.kubectl(&["create", "token", account]);
    token.trim().to_owned()
}
