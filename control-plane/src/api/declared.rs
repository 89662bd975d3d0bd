//! What the API reads from the sources and the model: the objects people wrote, and what is wrong
//! with them.

use std::net::{IpAddr, SocketAddr};

use crate::model::mesh::ports::Declaration;
use crate::types::{Finding, Objects};

/// The declared state, as it was read.
pub trait Declared: Send + Sync + 'static {
    /// Every object with its conditions, and the files that could not be read.
    fn objects(&self) -> Objects;

    /// What is wrong with the objects, beyond their conditions and file errors.
    fn findings(&self) -> Vec<Finding>;

    /// The declared workloads of a namespace; empty: all.
    fn workloads(&self, namespace: &str) -> Vec<DeclaredWorkload>;

    /// What a Service declares of its ports that carry HTTP or TLS.
    fn declarations(&self, namespace: &str, service: &str) -> Vec<Declaration>;

    /// The service or workload that has an address, with its ports.
    fn ports_at(&self, address: IpAddr) -> Option<DeclaredPorts>;

    /// In words, for a workload's address and port: `Allow` policies that hold for the workload and
    /// not for this port.
    fn uncovered(&self, at: SocketAddr) -> Vec<String>;

    /// The domain in which Services have their names.
    fn cluster_domain(&self) -> String;
}

/// Ports as they are declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredPorts {
    /// `cart.shop` of a Service, `shop/cart-0` of a Workload.
    pub name: String,
    pub ports: Vec<u16>,
    /// Others are served too: those of a Workload, but not of a Service.
    pub others: bool,
}

/// A declared workload, as far as the API needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredWorkload {
    pub namespace: String,
    pub name: String,
    pub service_account: String,
    pub addresses: Vec<String>,
    /// Services that select it, as `namespace/name`.
    pub services: Vec<String>,
    /// Whether a proxy of ours should run beside it.
    pub sidecar: bool,
    /// Where it was declared.
    pub file: String,
}

/// What a test declares; by default nothing.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct DeclaredByTest {
    pub(crate) objects: Objects,
    pub(crate) workloads: Vec<DeclaredWorkload>,
    /// Of Services, by `namespace/name`.
    pub(crate) declarations: std::collections::HashMap<&'static str, Vec<Declaration>>,
    pub(crate) ports: std::collections::HashMap<IpAddr, DeclaredPorts>,
    /// Of every address.
    pub(crate) uncovered: Vec<String>,
}

#[cfg(test)]
impl Declared for DeclaredByTest {
    fn objects(&self) -> Objects {
        self.objects.clone()
    }

    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    fn workloads(&self, namespace: &str) -> Vec<DeclaredWorkload> {
        let shown = |it: &&DeclaredWorkload| namespace.is_empty() || it.namespace == namespace;
        self.workloads.iter().filter(shown).cloned().collect()
    }

    fn declarations(&self, namespace: &str, service: &str) -> Vec<Declaration> {
        let declared = self.declarations.get(&*format!("{namespace}/{service}"));
        declared.cloned().unwrap_or_default()
    }

    fn ports_at(&self, address: IpAddr) -> Option<DeclaredPorts> {
        self.ports.get(&address).cloned()
    }

    fn uncovered(&self, _: SocketAddr) -> Vec<String> {
        self.uncovered.clone()
    }

    fn cluster_domain(&self) -> String {
        "cluster.local".to_owned()
    }
}
