//! What a request may see: everything, for the holder of the API's token; for a user of a cluster, what
//! the cluster's authorisation grants, asked anew for each request.

use std::sync::Arc;

use http::StatusCode;

use super::reply::Problem;
use crate::load::LoadHolder;

/// What the names of service accounts begin with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What a user does to workloads, as a right is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshVerb {
    Get,
    Tap,
    Explain,
    Dump,
}

impl MeshVerb {
    pub fn name(self) -> &'static str {
        match self {
            MeshVerb::Get => "get",
            MeshVerb::Tap => "tap",
            MeshVerb::Explain => "explain",
            MeshVerb::Dump => "dump",
        }
    }
}

/// The rights of one user.
#[tonic::async_trait]
pub trait MeshRights: Send + Sync + 'static {
    /// `namespace`: empty for all. `workload`: empty for all of them.
    ///
    /// # Errors
    /// When the user lacks the right, or that cannot be found out.
    async fn require(&self, verb: MeshVerb, namespace: &str, workload: &str)
    -> Result<(), Problem>;
}

/// See the module.
#[derive(Clone, Default)]
pub struct ApiAccess {
    /// The only namespace that is shown; empty: all.
    namespace: String,
    /// `None`: the holder of the API's token.
    user: Option<UserAccess>,
}

#[derive(Clone)]
struct UserAccess {
    name: String,
    rights: Arc<dyn MeshRights>,
}

impl ApiAccess {
    pub fn everything() -> Self {
        ApiAccess::default()
    }

    /// `namespace`: the only one that is shown, whatever rights there are; empty: all.
    pub fn of_user(name: &str, namespace: &str, rights: Arc<dyn MeshRights>) -> Self {
        ApiAccess {
            namespace: namespace.to_owned(),
            user: Some(UserAccess {
                name: name.to_owned(),
                rights,
            }),
        }
    }

    /// The user; `None`: the holder of the API's token.
    pub fn holder(&self) -> Option<&str> {
        self.user.as_ref().map(|user| &*user.name)
    }

    /// The user or, as who makes one can make up others, the namespace with all its service accounts.
    /// `None`: the holder of the API's token.
    pub fn group(&self) -> Option<String> {
        let holder = self.holder()?;
        let account = holder.strip_prefix(SERVICE_ACCOUNT);
        let namespace = account.and_then(|account| account.split_once(':'));
        Some(match namespace {
            Some((namespace, _)) => format!("{SERVICE_ACCOUNT}{namespace}"),
            None => holder.to_owned(),
        })
    }

    /// For whom its requests are counted.
    pub fn load_holder(&self) -> LoadHolder {
        self.group().map_or(LoadHolder::ApiToken, LoadHolder::User)
    }

    /// The only namespace that is shown; empty: all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn sees(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || self.namespace == namespace
    }

    /// The namespace to show, where `asked` may narrow it.
    ///
    /// # Errors
    /// When `asked` is another one than the only one that is shown.
    pub fn narrowed<'a>(&'a self, asked: &'a str) -> Result<&'a str, Problem> {
        match asked {
            "" => Ok(&self.namespace),
            asked if self.sees(asked) => Ok(asked),
            asked => Err(self.outside(asked)),
        }
    }

    /// # Errors
    /// When the namespace is not among those shown, or the user lacks the right.
    pub async fn require(
        &self,
        verb: MeshVerb,
        namespace: &str,
        workload: &str,
    ) -> Result<(), Problem> {
        if !self.sees(namespace) {
            return Err(self.outside(namespace));
        }
        self.require_anywhere(verb, namespace, workload).await
    }

    /// As [`Self::require`], of any namespace: for what a request in another one leads to.
    ///
    /// # Errors
    /// When the user lacks the right.
    pub async fn require_anywhere(
        &self,
        verb: MeshVerb,
        namespace: &str,
        workload: &str,
    ) -> Result<(), Problem> {
        match &self.user {
            None => Ok(()),
            Some(user) => user.rights.require(verb, namespace, workload).await,
        }
    }

    fn outside(&self, namespace: &str) -> Problem {
        let shown = &self.namespace;
        Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "this shows namespace {shown} only, and not {}",
                crate::text::bounded(namespace)
            ),
            "namespace",
            "ask in the other namespace, or in all of them (`anyam --namespace`, `--all-namespaces`)",
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a user who may do everything.
    pub(crate) struct EveryRight;

    #[tonic::async_trait]
    impl MeshRights for EveryRight {
        async fn require(&self, _: MeshVerb, _: &str, _: &str) -> Result<(), Problem> {
            Ok(())
        }
    }

    /// Of a user who may do everything in one namespace.
    pub(crate) struct RightsIn(pub(crate) &'static str);

    #[tonic::async_trait]
    impl MeshRights for RightsIn {
        async fn require(&self, verb: MeshVerb, namespace: &str, _: &str) -> Result<(), Problem> {
            match namespace == self.0 {
                true => Ok(()),
                false => Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    format!("{} in {namespace}", verb.name()),
                    "",
                    "",
                )),
            }
        }
    }

    #[tokio::test]
    async fn a_namespace_limits_whatever_rights_there_are() {
        let of_shop = ApiAccess::of_user("jane", "shop", Arc::new(EveryRight));
        assert_eq!(of_shop.narrowed("").unwrap(), "shop");
        assert_eq!(of_shop.narrowed("shop").unwrap(), "shop");
        assert!(of_shop.narrowed("bank").is_err());
        for (namespace, good) in [("shop", true), ("bank", false), ("", false)] {
            let required = of_shop.require(MeshVerb::Tap, namespace, "web").await;
            assert_eq!(required.is_ok(), good, "{namespace:?}");
        }
        let anywhere = of_shop.require_anywhere(MeshVerb::Explain, "bank", "x");
        assert!(anywhere.await.is_ok());

        let of_all = ApiAccess::of_user("jane", "", Arc::new(RightsIn("shop")));
        assert_eq!(of_all.narrowed("bank").unwrap(), "bank");
        for (namespace, good) in [("shop", true), ("bank", false), ("", false)] {
            let required = of_all.require(MeshVerb::Get, namespace, "").await;
            assert_eq!(required.is_ok(), good, "{namespace:?}");
        }
        let holder = ApiAccess::everything();
        assert!(holder.require(MeshVerb::Dump, "bank", "x").await.is_ok());
    }
}
