//! The API as one of a cluster's: an APIService of our group, so the API server authenticates who
//! asks and passes the call on to the control plane, which asks it for that user's rights.

use http_body_util::BodyExt;
use hyper::{Request, Response};

use super::call::{Call, Scope, Subject};
use super::{ApiError, Body};
use crate::cluster::{Cluster, ClusterError, Refusal};
use crate::url::{encode, encode_page, target};

/// The group and version.
const GROUP: &str = "/apis/inspect.mesh.anyam.dev/v1alpha1";

/// A mesh in a cluster.
#[derive(Clone)]
pub struct Aggregated {
    cluster: Cluster,
}

impl Aggregated {
    pub fn new(cluster: Cluster) -> Self {
        Aggregated { cluster }
    }

    pub(super) fn place(&self) -> String {
        self.cluster.place()
    }

    pub(super) async fn send(&self, call: Call<'_>) -> Result<Response<Body>, ApiError> {
        let path = path(&call);
        let request = match &call.body {
            Some(_) => Request::post(&path),
            None => Request::get(&path),
        };
        let request = request
            .header("content-type", "application/json")
            .header("accept", "application/json");
        let body = call.body.clone().unwrap_or_default();
        match self.cluster.send(request.body(body)).await {
            Ok(response) => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            Err(ClusterError::Refused(refusal)) => Err(self.refused(&call, *refusal).await),
            Err(error) => Err(error.into()),
        }
    }

    /// What a refusal means for the mesh, and what to do about it.
    async fn refused(&self, call: &Call<'_>, mut refusal: Refusal) -> ApiError {
        match refusal.status {
            _ if refusal.has_remedy => {}
            403 => refusal.todo = granting(call.subject, &refusal),
            404 if !refusal.is_status => {
                refusal.what = format!(
                    "this cluster has no Anyam whose API can be asked: APIService {} is not there",
                    crate::cluster::installed::API_SERVICE
                );
                refusal.todo = "install it (`anyam check --pre` says first what would not work), upgrade one that \
                                is older than this anyam, or name another cluster with --kube-context"
                    .to_owned();
            }
            404 => {
                refusal.todo =
                    "`anyam proxies` lists the workloads whose proxies are connected".to_owned()
            }
            503 | 504 => {
                let why = crate::cluster::installed::why_unavailable(&self.cluster).await;
                let why = why.unwrap_or(refusal.what);
                refusal.what =
                    format!("the API server cannot reach the mesh's control plane: {why}");
                refusal.todo =
                    "`anyam check` says what is wrong with the installation; `kubectl --namespace \
                                anyam-system get pods` shows whether the control plane runs"
                        .to_owned();
            }
            _ => {}
        }
        ClusterError::Refused(Box::new(refusal)).into()
    }
}

/// How to get a right that was missing.
fn granting(subject: Subject<'_>, refusal: &Refusal) -> String {
    let role = match subject {
        Subject::Tap(_) | Subject::Dump(..) => "anyam-operator",
        Subject::All(..) | Subject::Explain(_) => "anyam-viewer",
    };
    let namespace = match subject {
        Subject::All(Scope::All, _) => None,
        Subject::All(Scope::Namespace(name), _) => Some(name),
        Subject::Tap(it) | Subject::Explain(it) | Subject::Dump(it, _) => Some(&it.namespace),
    };
    let who = match refusal.user() {
        Some(user) if user.starts_with("system:serviceaccount:") => {
            let account = user.trim_start_matches("system:serviceaccount:");
            format!("--serviceaccount={account}")
        }
        Some(user) => format!("--user={user}"),
        None => "--user=NAME".to_owned(),
    };
    match namespace {
        Some(namespace) => format!(
            "an administrator grants it by `kubectl --namespace {namespace} create rolebinding {role} --clusterrole={role} {who}`"
        ),
        None => format!(
            "name a namespace with --namespace; for all, an administrator grants it by `kubectl create clusterrolebinding {role} --clusterrole={role} {who}`"
        ),
    }
}

fn path(call: &Call<'_>) -> String {
    let of = |namespace: &str, rest: String| {
        let namespace = encode(namespace);
        target(
            format!("{GROUP}/namespaces/{namespace}/workloads/{rest}"),
            &call.query,
        )
    };
    match call.subject {
        Subject::All(Scope::All, what) => {
            target(format!("{GROUP}/workloads/-/{what}"), &call.query)
        }
        Subject::All(Scope::Namespace(namespace), what) => of(namespace, format!("-/{what}")),
        // The API server ends other requests after a minute.
        Subject::Tap(it) => target(
            format!(
                "{GROUP}/watch/namespaces/{}/workloads/{}/tap",
                encode(&it.namespace),
                encode(&it.name)
            ),
            &call.query,
        ),
        Subject::Explain(it) => of(&it.namespace, "-/explain".to_owned()),
        Subject::Dump(it, page) => {
            let (name, page) = (encode(&it.name), encode_page(page));
            of(&it.namespace, format!("{name}/dump/{page}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::WorkloadName;
    use super::*;

    fn web() -> WorkloadName {
        WorkloadName {
            namespace: "shop".into(),
            name: "web-1".into(),
        }
    }

    #[test]
    fn each_subject_has_its_path() {
        let (all, shop, web) = (Scope::All, Scope::Namespace("shop".into()), web());
        for (subject, expected) in [
            (Subject::All(&all, "proxies"), "/workloads/-/proxies"),
            (
                Subject::All(&shop, "stat"),
                "/namespaces/shop/workloads/-/stat",
            ),
            (
                Subject::Tap(&web),
                "/watch/namespaces/shop/workloads/web-1/tap",
            ),
            (
                Subject::Explain(&web),
                "/namespaces/shop/workloads/-/explain",
            ),
            (
                Subject::Dump(&web, "stats/prometheus"),
                "/namespaces/shop/workloads/web-1/dump/stats/prometheus",
            ),
        ] {
            assert_eq!(path(&Call::get(subject)), format!("{GROUP}{expected}"));
        }
        let mut routes = Call::get(Subject::All(&shop, "routes"));
        routes.query = "service=cart".into();
        let expected = "/namespaces/shop/workloads/-/routes?service=cart";
        assert_eq!(path(&routes), format!("{GROUP}{expected}"));
    }

    #[test]
    fn a_missing_right_is_named_with_the_command_that_grants_it() {
        let refusal = |what: &str| Refusal {
            status: 403,
            what: what.to_owned(),
            ..Refusal::default()
        };
        let server = refusal(
            r#"workloads.inspect.mesh.anyam.dev "-" is forbidden: User "jo" cannot get resource "workloads/stat" in API group "inspect.mesh.anyam.dev" in the namespace "shop""#,
        );
        let shop = Scope::Namespace("shop".into());
        let todo = granting(Subject::All(&shop, "stat"), &server);
        assert!(
            todo.contains("kubectl --namespace shop create rolebinding anyam-viewer --clusterrole=anyam-viewer --user=jo"),
            "{todo}"
        );
        let todo = granting(Subject::All(&Scope::All, "stat"), &server);
        assert!(
            todo.contains("--namespace;") && todo.contains("clusterrolebinding"),
            "{todo}"
        );
        let account = refusal(r#"User "system:serviceaccount:ci:robot" cannot"#);
        let todo = granting(Subject::Tap(&web()), &account);
        assert!(
            todo.contains("anyam-operator --serviceaccount=ci:robot"),
            "{todo}"
        );
    }
}
