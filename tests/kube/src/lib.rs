//! Support for tests on a real Kubernetes.
//!
//! - [`ApiServer`]: etcd and an API server of a test's own, without nodes
//! - [`Cluster`]: the cluster with nodes that `cluster.sh` brought up, shared by all tests;
//!   [`Namespace`]: a test's own part of it
//! - [`Bench`]: an API server on which [`Control`] planes run with the rights of the chart; [`Sidecar`]:
//!   one of a pod, on loopback; [`PodNetwork`]: pods in network namespaces of their own, with sidecars
//!   through which their traffic goes
//! - [`FakeShop`]: pods that are objects only, many and changing; [`held`]: what a sidecar holds of them
//! - [`Kubectl`]: runs kubectl on one of these; [`Helm`]: Helm 3 or 4, and the chart
//! - [`until`]: waits for a condition
//!
//! `cluster.sh` beside this crate starts and ends clusters. A missing prerequisite is an error that
//! names the remedy, and no test is left out for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api_server;
mod cluster;
mod command;
mod control;
mod control_plane;
mod fake_shop;
pub mod held;
mod helm;
mod http;
mod kubectl;
mod pod_network;
mod sidecar;
mod wait;

pub use api_server::ApiServer;
pub use cluster::{Channel, Cluster, Namespace, Output};
pub use command::{component, program, run, succeed};
pub use control::Control;
pub use control_plane::{Bench, NAMESPACE, of_chart, openssl};
pub use fake_shop::{Change, FakeShop};
pub use helm::{Helm, HelmVersion};
pub use kubectl::Kubectl;
pub use pod_network::{Load, PodHost, PodNetwork};
pub use sidecar::{Sidecar, SidecarPlan};
pub use wait::until;

use std::path::Path;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

/// The image of the tests' pods: `tests/kube/app`, static, with `/usr/sbin/nft` beside it. Loaded
/// into the node of a [`Cluster`]; `imagePullPolicy: Never` or `IfNotPresent`.
pub const APP_IMAGE: &str = "localhost/anyam-test/app:1";

async fn client(kubeconfig: &Path) -> kube::Client {
    let file = Kubeconfig::read_from(kubeconfig)
        .unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()));
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()));
    kube::Client::try_from(config)
        .unwrap_or_else(|error| panic!("{}: {error}", kubeconfig.display()))
}
