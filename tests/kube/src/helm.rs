//! Helm, from the cache of `build.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::Output;
use crate::command::{run, succeed};

/// Name and namespace of the release.
const RELEASE: &str = "anyam";
const NAMESPACE: &str = "anyam-system";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelmVersion {
    V3,
    V4,
}

/// A Helm with its folders outside of the home folder, and the chart.
pub struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
}

impl Helm {
    /// # Panics
    /// When it is not built; the message says how to do that.
    pub fn new(version: HelmVersion) -> Self {
        let name = match version {
            HelmVersion::V3 => "helm3",
            HelmVersion::V4 => "helm",
        };
        let build = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("build.sh");
        let folder = succeed(Command::new(build).args(["--where", name]), "");
        let program = Path::new(folder.trim()).join(name);
        assert!(
            program.exists(),
            "{name} is not built. Run: tests/kube/build.sh {name}"
        );
        Helm {
            program,
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// `deploy/helm/anyam`.
    pub fn chart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/anyam")
    }

    /// `helm`, or `helm3`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(Self::chart());
        for folder in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{folder}_HOME"), self.home.path().join(folder));
        }
        command.env_remove("KUBECONFIG");
        command
    }

    /// Runs it in the chart's folder, and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments), "")
    }

    /// Runs it, whatever its exit status.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), "")
    }

    /// The chart's manifests.
    ///
    /// # Panics
    /// When it is not rendered.
    pub fn template(&self, more: &[&str]) -> String {
        let mut all = vec!["template", RELEASE, ".", "--kube-version", "1.34.0"];
        if !more.contains(&"--namespace") {
            all.extend(["--namespace", NAMESPACE]);
        }
        all.extend(more);
        self.run(&all)
    }

    /// Runs `install`, `upgrade`… for the release in a cluster.
    pub fn release(&self, kubeconfig: &Path, verb: &str, more: &[&str]) -> Output {
        let kubeconfig = kubeconfig.to_string_lossy();
        let mut all = vec![verb, RELEASE];
        if ["install", "upgrade"].contains(&verb) {
            all.push(".");
        }
        all.extend(["--namespace", NAMESPACE, "--kubeconfig", &kubeconfig]);
        all.extend(more);
        self.try_run(&all)
    }
}
