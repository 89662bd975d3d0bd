//! kubectl with the credentials of a cluster.

use std::process::Command;

use crate::cluster::Output;
use crate::command::{run, succeed};

/// A cluster, or a namespace of one, that kubectl is run on.
pub trait Kubectl {
    /// kubectl with these arguments, not started yet.
    fn kubectl_command(&self, arguments: &[&str]) -> Command;

    /// Runs kubectl and returns its standard output.
    ///
    /// # Panics
    /// When it fails.
    fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with("", arguments)
    }

    /// The same with a standard input, for `-f -`.
    ///
    /// # Panics
    /// As [`Self::kubectl`].
    fn kubectl_with(&self, input: &str, arguments: &[&str]) -> String {
        succeed(&mut self.kubectl_command(arguments), input)
    }

    /// Runs kubectl, whatever its exit status.
    fn try_kubectl(&self, arguments: &[&str]) -> Output {
        self.try_kubectl_with("", arguments)
    }

    /// The same with a standard input.
    fn try_kubectl_with(&self, input: &str, arguments: &[&str]) -> Output {
        run(&mut self.kubectl_command(arguments), input)
    }
}
