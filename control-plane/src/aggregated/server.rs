//! The port: who asks, what they may, and what they get.
//!
//! A request counts only over a connection with the front proxy's certificate; its headers then name the
//! user. Each right is a SubjectAccessReview of that user.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;

use super::path::{InspectPath, READ, WorkloadsPath};
use super::{discovery, status};
use crate::api::Api;
use crate::api::access::{ApiAccess, MeshRights, MeshVerb};
use crate::api::auth::LOGIN;
use crate::api::reply::{self, Problem, Reply};
use crate::api::secure::SecureService;
use crate::api::{clock, server};
use crate::ca::serving::{self, Serving};
use crate::kubernetes::access_review::{AccessQuestion, AccessReviews, GROUP, RESOURCE};
use crate::kubernetes::front_proxy::{ForwardedUser, FrontProxy};
use crate::text::bounded;

/// For a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub struct AggregatedApi {
    pub api: Arc<Api>,
    pub reviews: Arc<AccessReviews>,
    pub trusted: watch::Receiver<Option<Arc<FrontProxy>>>,
    pub serving: Arc<Serving>,
    pub dashboard: DashboardPlace,
}

/// Where a login is good: this pod, and a port on its loopback.
pub struct DashboardPlace {
    pub namespace: String,
    pub pod: String,
    pub port: u16,
}

/// A connection's peer: the certificates that it showed, and by what they were verified.
pub struct ApiServerConnection {
    chain: Vec<CertificateDer<'static>>,
    verified_by: Option<Arc<FrontProxy>>,
}

impl SecureService for AggregatedApi {
    type Trust = Option<Arc<FrontProxy>>;
    type Client = ApiServerConnection;

    fn tls(&self) -> Result<(Arc<ServerConfig>, Self::Trust), String> {
        let trusted = self.trusted.borrow().clone();
        let verifier = trusted.as_ref().map(|trusted| trusted.verifier());
        let config = serving::api_server_config(Arc::clone(&self.serving), verifier);
        let config = config.map_err(|error| error.to_string())?;
        Ok((Arc::new(config), trusted))
    }

    fn client(
        &self,
        trust: Self::Trust,
        tls: &ServerConnection,
    ) -> Result<ApiServerConnection, String> {
        let chain = tls.peer_certificates().unwrap_or_default();
        Ok(ApiServerConnection {
            chain: chain.iter().map(|it| it.clone().into_owned()).collect(),
            verified_by: trust,
        })
    }

    async fn answer(&self, request: Request<Incoming>, client: &ApiServerConnection) -> Reply {
        let reply = self.respond(request, client).await;
        let reply = reply.unwrap_or_else(|problem| status::failure(&problem));
        self.api.count(&reply);
        reply
    }
}

impl AggregatedApi {
    async fn respond(
        &self,
        request: Request<Incoming>,
        client: &ApiServerConnection,
    ) -> Result<Reply, Problem> {
        let front_proxy = self.front_proxy(client)?;
        let path = request.uri().path();
        let get = request.method() == Method::GET;
        match InspectPath::parse(path) {
            Some(InspectPath::Groups) if get => discovered(&request, &discovery::groups_document()),
            Some(InspectPath::Group) if get => Ok(reply::json(&discovery::group_document())),
            Some(InspectPath::Version) if get => Ok(reply::json(&discovery::version_document())),
            Some(InspectPath::Health) if get => {
                Ok(reply::bytes(StatusCode::OK, "text/plain", "ok\n"))
            }
            Some(InspectPath::Workloads(path)) => {
                let user = front_proxy
                    .user(request.headers())
                    .map_err(unauthenticated)?;
                let rights = UserRights {
                    user,
                    reviews: Arc::clone(&self.reviews),
                };
                let name = rights.user.name.clone();
                let access = ApiAccess::of_user(&name, &path.namespace, Arc::new(rights));
                self.workloads(request, path, access).await
            }
            _ => Err(unknown(path)),
        }
    }

    /// By which the connection's peer is the API server, as is known now.
    fn front_proxy(&self, client: &ApiServerConnection) -> Result<Arc<FrontProxy>, Problem> {
        let Some(trusted) = self.trusted.borrow().clone() else {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "how the API server authenticates to this API is not known",
                "ConfigMap kube-system/extension-apiserver-authentication",
                "see the control plane's log for why it was not read",
            ));
        };
        let [leaf, intermediates @ ..] = &client.chain[..] else {
            return Err(unauthenticated("there is no client certificate".to_owned()));
        };
        // It may have been verified before the ConfigMap changed.
        let same = client.verified_by.as_ref();
        if !same.is_some_and(|it| Arc::ptr_eq(it, &trusted)) {
            let again = trusted.verify(leaf, intermediates);
            again.map_err(unauthenticated)?;
        }
        trusted.check_name(leaf).map_err(unauthenticated)?;
        Ok(trusted)
    }

    async fn workloads(
        &self,
        request: Request<Incoming>,
        path: WorkloadsPath,
        access: ApiAccess,
    ) -> Result<Reply, Problem> {
        let WorkloadsPath {
            namespace,
            workload,
            what,
            rest,
        } = &path;
        let words = request.uri().query().unwrap_or_default().to_owned();
        let named = !workload.is_empty();
        if named && namespace.is_empty() {
            return Err(unknown(request.uri().path()));
        }
        let of = (namespace.as_str(), workload.as_str());
        let get = request.method() == Method::GET;
        let post = request.method() == Method::POST;
        match (what.as_str(), rest.as_str()) {
            ("tap", "") if get => {
                let of = named.then_some(of);
                self.api.tap(of, &words, &access).await
            }
            ("dump", page) if get && named && !page.is_empty() => {
                self.api.dump(of, page, &access).await
            }
            (what, "") if get && !named && READ.contains(&what) => {
                self.api.read(what, &words, &access).await
            }
            ("explain", "") if post && !named => {
                let asked = timeout(BODY_TIMEOUT, server::body(request)).await;
                let asked = asked.map_err(|_| {
                    let why = format!("it did not arrive within {BODY_TIMEOUT:?}");
                    Problem::new(StatusCode::REQUEST_TIMEOUT, why, "body", "send it again")
                })?;
                self.api.explain(asked?, &access).await
            }
            ("session", "") if post && !named => self.session(access).await,
            _ => Err(unknown(request.uri().path())),
        }
    }

    /// A login for the dashboard of this very pod.
    async fn session(&self, access: ApiAccess) -> Result<Reply, Problem> {
        let namespace = access.namespace().to_owned();
        access.require(MeshVerb::Get, &namespace, "").await?;
        let token = self.api.auth.login(access, Instant::now());
        let token = token.map_err(|error| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, error.to_string(), "session", "try again")
        })?;
        let lifetime = time::Duration::try_from(LOGIN).unwrap_or_default();
        let expires = OffsetDateTime::now_utc().saturating_add(lifetime);
        let place = &self.dashboard;
        Ok(reply::json(&json!({
            "token": token, "expiresAt": clock::rfc3339(expires), "namespace": namespace,
            "pod": place.pod, "podNamespace": place.namespace, "port": place.port,
        })))
    }
}

/// A client that asks for aggregated discovery only gets the documents of before it: the API server
/// puts both together.
fn discovered(request: &Request<Incoming>, document: &serde_json::Value) -> Result<Reply, Problem> {
    let accept = request.headers().get(http::header::ACCEPT);
    let accept = accept.and_then(|it| it.to_str().ok()).unwrap_or_default();
    if accept.contains("as=APIGroupDiscoveryList") {
        return Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "there is no aggregated discovery",
            "header Accept",
            "ask for application/json",
        ));
    }
    Ok(reply::json(document))
}

fn unauthenticated(why: String) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        why,
        "this port is for the Kubernetes API server",
        "ask the API server, as `anyam` and `kubectl get --raw` do",
    )
}

fn unknown(path: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "nothing is here for this method",
        bounded(path),
        "see `kubectl get --raw /apis/inspect.mesh.anyam.dev/v1alpha1`",
    )
}

/// What one user may.
struct UserRights {
    user: ForwardedUser,
    reviews: Arc<AccessReviews>,
}

#[tonic::async_trait]
impl MeshRights for UserRights {
    async fn require(
        &self,
        verb: MeshVerb,
        namespace: &str,
        workload: &str,
    ) -> Result<(), Problem> {
        let question = AccessQuestion {
            verb: verb.name(),
            namespace,
            workload,
        };
        match self.reviews.is_allowed(&self.user, question).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(forbidden(&self.user.name, verb, namespace)),
            Err(error) => {
                tracing::debug!(%error, "a user's rights are not known");
                Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the API server did not say whether you may do this",
                    "SubjectAccessReview",
                    "try again; the control plane's log says why",
                ))
            }
        }
    }
}

fn forbidden(user: &str, verb: MeshVerb, namespace: &str) -> Problem {
    let user = bounded(user);
    let role = match verb {
        MeshVerb::Get | MeshVerb::Explain => "anyam-viewer",
        MeshVerb::Tap | MeshVerb::Dump => "anyam-operator",
    };
    let account = user.strip_prefix("system:serviceaccount:");
    let subject = match account {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user='{}'", user.replace('\'', "'\\''")),
    };
    let (place, grant) = match namespace {
        "" => (
            "in all namespaces".to_owned(),
            format!(
                "ask in one namespace, or let an administrator run `kubectl create clusterrolebinding NAME --clusterrole={role} {subject}`"
            ),
        ),
        namespace => (
            format!("in namespace {namespace}"),
            format!(
                "let an administrator run `kubectl create rolebinding NAME --namespace={namespace} --clusterrole={role} {subject}`"
            ),
        ),
    };
    Problem::new(
        StatusCode::FORBIDDEN,
        format!(
            "user `{user}` may not {} {RESOURCE}.{GROUP} {place}",
            verb.name()
        ),
        "",
        grant,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_right_and_how_to_get_it() {
        for (user, verb, namespace, what, todo) in [
            (
                "jane",
                MeshVerb::Get,
                "shop",
                "user `jane` may not get workloads.inspect.mesh.anyam.dev in namespace shop",
                "kubectl create rolebinding NAME --namespace=shop --clusterrole=anyam-viewer --user='jane'",
            ),
            (
                "system:serviceaccount:ci:robot",
                MeshVerb::Dump,
                "",
                "may not dump workloads.inspect.mesh.anyam.dev in all namespaces",
                "clusterrolebinding NAME --clusterrole=anyam-operator --serviceaccount=ci:robot",
            ),
            ("a'b", MeshVerb::Tap, "x", "user `a'b`", r"--user='a'\''b'"),
        ] {
            let problem = forbidden(user, verb, namespace);
            assert_eq!(problem.status(), StatusCode::FORBIDDEN);
            assert!(problem.error().what.contains(what), "{problem:?}");
            assert!(problem.error().todo.contains(todo), "{problem:?}");
        }
    }
}
