//! The mesh that a command asks, and the workloads that people name.

use super::CommandError;
use crate::api::{Client, Scope, WorkloadName};
use crate::cluster::{Cluster, ObjectName};

/// A mesh, and what is asked about it.
#[derive(Clone)]
pub struct Mesh {
    pub client: Client,
    pub scope: Scope,
    /// The cluster that it is in, if it is in one.
    pub cluster: Option<Cluster>,
}

impl Mesh {
    /// The workload that is meant, or the pods of the object that is: one at least.
    ///
    /// # Errors
    /// When it is no name, or the object has no pod with a sidecar.
    pub async fn workloads(&self, text: &str) -> Result<Vec<WorkloadName>, CommandError> {
        let Some(cluster) = &self.cluster else {
            return Ok(vec![self.workload(text, "default")?]);
        };
        let Some(object) = ObjectName::parse(text) else {
            return Ok(vec![self.workload(text, cluster.default_namespace())?]);
        };
        let namespace = self.only_namespace(text)?;
        let found = object.pods(cluster, namespace).await?;
        let names = std::iter::once(found.first).chain(found.others);
        let workload = |name| WorkloadName {
            namespace: namespace.to_owned(),
            name,
        };
        Ok(names.map(workload).collect())
    }

    /// The workload that is meant, or one of the object's pods, which is said on standard error where
    /// there are several.
    ///
    /// # Errors
    /// As [`Self::workloads`].
    pub async fn one_workload(&self, text: &str) -> Result<WorkloadName, CommandError> {
        let mut all = self.workloads(text).await?.into_iter();
        let Some(first) = all.next() else {
            return Err(CommandError::Usage(format!("{text:?} names no workload")));
        };
        let others = all.len();
        if others > 0 {
            eprintln!(
                "anyam: {text} has {others} more pods with a sidecar; this is {}",
                first.name
            );
        }
        Ok(first)
    }

    /// The Service that is meant by `svc/cart`, `shop/cart`, `cart` or a host, and the namespaces to
    /// look in.
    pub fn service(&self, text: &str) -> (Scope, String) {
        let in_cluster = self.cluster.is_some();
        let name = match ObjectName::parse(text) {
            Some(object) if in_cluster => object.service().map(str::to_owned),
            _ => None,
        };
        let text = name.unwrap_or_else(|| text.to_owned());
        let namespace = match text.split_once('/') {
            Some((namespace, _)) => Some(namespace),
            // `cart.shop.svc.cluster.local`
            None => text.split('.').nth(1),
        };
        match namespace {
            Some(namespace) if in_cluster && !namespace.is_empty() => {
                (Scope::Namespace(namespace.to_owned()), text)
            }
            _ => (self.scope.clone(), text),
        }
    }

    /// `namespace/name`, or a name in the namespace that is asked about.
    fn workload(&self, text: &str, default: &str) -> Result<WorkloadName, CommandError> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (namespace, name),
            None => match &self.scope {
                Scope::Namespace(namespace) => (namespace.as_str(), text),
                Scope::All => (default, text),
            },
        };
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(CommandError::Usage(format!(
                "{text:?} is not a workload such as shop/web, or in a cluster deploy/web"
            )));
        }
        Ok(WorkloadName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    fn only_namespace(&self, text: &str) -> Result<&str, CommandError> {
        match &self.scope {
            Scope::Namespace(namespace) => Ok(namespace.as_str()),
            Scope::All => Err(CommandError::Usage(format!(
                "{text} is in one namespace: name it with -n instead of -A"
            ))),
        }
    }

    /// # Errors
    /// When the whole mesh is meant by a command that has no part of it, and a namespace was named.
    pub fn whole(&self, command: &str) -> Result<(), CommandError> {
        match (&self.cluster, &self.scope) {
            (None, Scope::Namespace(name)) => Err(CommandError::Usage(format!(
                "{command} of a mesh outside of a cluster is about all of it: leave out --namespace {name}"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::api::ControlPlane;

    fn mesh(scope: Scope) -> Mesh {
        Mesh {
            client: ControlPlane::new(SocketAddr::from(([127, 0, 0, 1], 1)), "t").into(),
            scope,
            cluster: None,
        }
    }

    #[tokio::test]
    async fn workloads_of_a_folder_are_named_by_their_namespace() {
        let name =
            async |mesh: &Mesh, text: &str| mesh.one_workload(text).await.unwrap().to_string();
        let (all, shop) = (mesh(Scope::All), mesh(Scope::Namespace("shop".into())));
        assert_eq!(name(&all, "web").await, "default/web");
        assert_eq!(name(&all, "shop/web").await, "shop/web");
        assert_eq!(name(&all, "deploy/web").await, "deploy/web");
        assert_eq!(name(&shop, "web").await, "shop/web");
        for bad in ["", "/web", "shop/", "a/b/c"] {
            assert!(all.one_workload(bad).await.is_err(), "{bad}");
        }
        assert!(shop.whole("the dashboard").is_err() && all.whole("the dashboard").is_ok());
        assert_eq!(
            shop.service("cart.shop"),
            (shop.scope.clone(), "cart.shop".into())
        );
    }
}
