//! Authentication, and the table of paths.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::header::{SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use time::OffsetDateTime;

use super::access::{ApiAccess, MeshVerb};
use super::auth::{Auth, Refusal};
use super::declared::Declared;
use super::replicas::{MeshObservation, OtherReplicas, OthersObservation};
use super::reply::{self, Problem, Reply};
use super::{check, dashboard, explain, limits, observed, query, routes, tap};
use crate::ads::registry::Registry;
use crate::ads::{Resources, Scope};
use crate::ca::Authority;
use crate::inspect::Agents;
use crate::load::RequestLoad;
use crate::metrics::Metrics;
use crate::types::{Check, Edges, ExplainRequest, Objects, Proxies, Stats};

/// Of a request.
pub(crate) const MAX_BODY: usize = 64 << 10;

/// What a port answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiPort {
    /// The API and the dashboard, for those who may see them.
    People,
    /// Metrics and health, without authentication: they show no object of the mesh.
    Monitoring,
}

/// Everything the API shows.
pub struct Api {
    pub auth: Auth,
    pub registry: Arc<Registry>,
    pub agents: Arc<Agents>,
    pub resources: Arc<dyn Resources>,
    pub declared: Arc<dyn Declared>,
    pub authority: Arc<Authority>,
    pub metrics: Arc<Metrics>,
    pub load: Arc<RequestLoad>,
    /// Of a cluster's control plane, once they can be asked.
    pub others: OnceLock<Arc<dyn OtherReplicas>>,
}

impl Api {
    pub(super) async fn answer(&self, request: Request<Incoming>, port: ApiPort) -> Reply {
        if port == ApiPort::Monitoring {
            let path = request.uri().path();
            return self
                .monitoring(&request)
                .unwrap_or_else(|| unknown(path).into());
        }
        let reply = match self.auth.check_host(request.headers()) {
            Ok(()) => self.route(request).await.unwrap_or_else(Reply::from),
            Err(refusal) => refused(refusal),
        };
        self.count(&reply);
        reply
    }

    pub(crate) fn count(&self, reply: &Reply) {
        self.metrics
            .api_requests
            .with_label_values(&[reply.status().as_str()])
            .inc();
    }

    /// `None`: not among these.
    fn monitoring(&self, request: &Request<Incoming>) -> Option<Reply> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        match request.uri().path() {
            "/healthz" => Some(reply::bytes(StatusCode::OK, "text/plain", "ok\n")),
            "/readyz" => Some(self.ready()),
            "/metrics" => Some(self.own_metrics()),
            _ => None,
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Reply, Problem> {
        if let Some(reply) = self.monitoring(&request) {
            return Ok(reply);
        }
        let path = request.uri().path().to_owned();
        let words = request.uri().query().unwrap_or_default().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let post = request.method() == Method::POST;
        // Nothing of the mesh is in these: the page is the same for every client.
        match &parts[..] {
            [""] if get => return Ok(dashboard::page()),
            ["api", "v1", "session"] if post => return self.session(&request),
            _ => {}
        }
        let access = match self.auth.check(request.headers(), Instant::now()) {
            Ok(access) => access,
            Err(refusal) => return Ok(refused(refusal)),
        };
        match &parts[..] {
            ["api", "v1", "explain"] if post => self.explain(body(request).await?, &access).await,
            ["api", "v1", "dump", namespace, workload, what @ ..] if get && !what.is_empty() => {
                let of = (*namespace, *workload);
                self.dump(of, &what.join("/"), &access).await
            }
            ["api", "v1", name] if get => self.read(name, &words, &access).await,
            _ => Err(unknown(&path)),
        }
    }

    /// What is read by its name: `proxies`, `edges` and so on.
    ///
    /// # Errors
    /// When there is no such thing, or it may not be seen.
    pub(crate) async fn read(
        &self,
        name: &str,
        words: &str,
        access: &ApiAccess,
    ) -> Result<Reply, Problem> {
        if name == "tap" {
            return self.tap(None, words, access).await;
        }
        let asked = query::one(words, "namespace");
        let namespace = access.narrowed(&asked)?;
        access.require(MeshVerb::Get, namespace, "").await?;
        let open = self.load.read(access.load_holder())?;
        // It takes a while if one of them does not answer: the read runs only then.
        let others = match name {
            "routes" => Arc::default(),
            _ => self.others().await,
        };
        let read = self.load.run(open).await?;
        match name {
            "proxies" => {
                let proxies = of_proxies(self.observed(&others, namespace), namespace);
                reply::of_read(read, &proxies)
            }
            "edges" => {
                let edges = of_edges(&self.observed(&others, namespace), namespace);
                reply::of_read(read, &edges)
            }
            "stat" => {
                let observed = self.observed(&others, namespace);
                let stats = Stats {
                    unreachable_replicas: observed.unreachable,
                    ..observed.graph.stats(namespace)
                };
                reply::of_read(read, &stats)
            }
            "routes" => {
                let scope = Scope {
                    trust_domain: self.authority.trust_domain().to_owned(),
                    ..Scope::default()
                };
                let view = self.resources.view();
                let service = query::one(words, "service");
                let mut routes = routes::routes(&*view, &scope, &service);
                limits::routes(&mut routes, namespace, &self.declared.cluster_domain());
                reply::of_read(read, &routes)
            }
            "objects" => {
                let edges = of_edges(&self.observed(&others, namespace), namespace);
                reply::of_read(read, &self.objects(&edges, namespace))
            }
            "check" => reply::of_read(read, &self.check(&others, namespace)),
            _ => Err(unknown(&format!("/api/v1/{name}"))),
        }
    }

    /// `workload`: `None` for the one that the query names.
    ///
    /// # Errors
    /// As [`tap::tap`].
    pub(crate) async fn tap(
        &self,
        workload: Option<(&str, &str)>,
        words: &str,
        access: &ApiAccess,
    ) -> Result<Reply, Problem> {
        let mut query = query::tap(words)?;
        if let Some((namespace, name)) = workload {
            query.workload = format!("{namespace}/{name}");
        }
        tap::tap(self, &query, access).await
    }

    fn objects(&self, edges: &Edges, namespace: &str) -> Objects {
        let mut objects = self.declared.objects();
        limits::objects(&mut objects, namespace);
        observed::add(&mut objects, edges, &*self.declared);
        objects
            .unreachable_replicas
            .clone_from(&edges.unreachable_replicas);
        objects
    }

    fn check(&self, others: &OthersObservation, namespace: &str) -> Check {
        let observed = self.observed(others, namespace);
        let edges = of_edges(&observed, namespace);
        let mut findings = self.declared.findings();
        limits::findings(&mut findings, namespace);
        let workloads = self.declared.workloads(namespace);
        let ends = self.authority.not_after().unix_timestamp();
        let left = ends.saturating_sub(OffsetDateTime::now_utc().unix_timestamp());
        check::check(check::Facts {
            objects: &self.objects(&edges, namespace),
            findings,
            workloads: &workloads,
            unreachable_replicas: observed.unreachable.clone(),
            proxies: &of_proxies(observed, namespace),
            edges: &edges,
            // The root is no namespace's.
            root_expires_in: namespace.is_empty().then_some(left),
        })
    }

    /// # Errors
    /// As [`explain::explain`].
    pub(crate) async fn explain(
        &self,
        asked: ExplainRequest,
        access: &ApiAccess,
    ) -> Result<Reply, Problem> {
        let _open = self.load.read(access.load_holder())?;
        let answer = explain::explain(self, access, asked).await?;
        Ok(reply::json(&answer))
    }

    /// # Errors
    /// When there is no such page or proxy, or it may not be seen.
    pub(crate) async fn dump(
        &self,
        (namespace, workload): (&str, &str),
        what: &str,
        access: &ApiAccess,
    ) -> Result<Reply, Problem> {
        access.require(MeshVerb::Dump, namespace, workload).await?;
        let known = [
            "config_dump",
            "clusters",
            "certs",
            "stats",
            "stats/prometheus",
        ];
        if !known.contains(&what) {
            return Err(Problem::bad(
                "no such page of a proxy",
                "the path's last part",
                format!("one of {}", known.join(", ")),
            ));
        }
        let holder = access.load_holder();
        let page = self.ask_to_dump((namespace, workload), what, holder);
        let page = page.await?;
        let json = page
            .first()
            .is_some_and(|first| matches!(first, b'{' | b'['));
        let kind = if json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        Ok(reply::page(kind, page))
    }

    /// A browser shows the token once and gets a cookie that scripts can't read.
    fn session(&self, request: &Request<Incoming>) -> Result<Reply, Problem> {
        let internal = |error: &dyn std::fmt::Display| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(
                status,
                error.to_string(),
                "session",
                "see the control plane's log",
            )
        };
        let cookie = self
            .auth
            .start_session(request.headers(), Instant::now())
            .map_err(|e| internal(&e))?;
        let Some(cookie) = cookie else {
            return Ok(refused(Refusal::Unknown));
        };
        let mut reply = reply::bytes(StatusCode::NO_CONTENT, "text/plain", "");
        let cookie = HeaderValue::from_str(&cookie).map_err(|e| internal(&e))?;
        reply.headers_mut().insert(SET_COOKIE, cookie);
        Ok(reply)
    }

    fn ready(&self) -> Reply {
        match self.resources.view().generation() {
            0 => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                reply::bytes(status, "text/plain", "the manifests were not read yet\n")
            }
            _ => reply::bytes(StatusCode::OK, "text/plain", "ready\n"),
        }
    }

    fn own_metrics(&self) -> Reply {
        let generation = self.resources.view().generation();
        let root = self.authority.not_after().unix_timestamp();
        let text = self.metrics.render(self.registry.count(), generation, root);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        match text {
            Ok(text) => reply::bytes(StatusCode::OK, kind, text),
            Err(error) => reply::bytes(StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
        }
    }
}

fn of_proxies(observed: MeshObservation, namespace: &str) -> Proxies {
    let mut all = Proxies {
        proxies: observed.proxies,
        unreachable_replicas: observed.unreachable,
    };
    limits::proxies(&mut all, namespace);
    all
}

fn of_edges(observed: &MeshObservation, namespace: &str) -> Edges {
    Edges {
        unreachable_replicas: observed.unreachable.clone(),
        ..observed.graph.edges(namespace)
    }
}

fn refused(refusal: Refusal) -> Reply {
    let problem = match refusal {
        Refusal::Host => Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header names none of this API's hosts",
            "header Host",
            "call it by the address it listens on, or start it with --api-host <name>",
        ),
        Refusal::Unknown => Problem::new(
            StatusCode::UNAUTHORIZED,
            "no valid credential",
            "header Authorization",
            "send `Authorization: Bearer <content of <state-dir>/api-token>`; in a cluster `anyam` needs no token",
        ),
        Refusal::Origin => Problem::new(
            StatusCode::FORBIDDEN,
            "a page of another origin sent this request",
            "header Origin",
            "use the dashboard that this API serves",
        ),
    };
    let mut reply = Reply::from(problem);
    if refusal == Refusal::Unknown {
        let challenge = HeaderValue::from_static("Bearer realm=\"anyam\"");
        reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    reply
}

fn unknown(path: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "nothing is here for this method",
        crate::text::bounded(path),
        "GET /api/v1/{proxies,edges,stat,routes,objects,check,tap}, \
         GET /api/v1/dump/{namespace}/{workload}/{page}, POST /api/v1/explain",
    )
}

/// # Errors
/// When it is too large, or no such request.
pub(crate) async fn body(request: Request<Incoming>) -> Result<ExplainRequest, Problem> {
    let todo =
        "send JSON of at most 64 KiB: {\"source\": \"ns/name\", \"destination\": \"host:port\", …}";
    let read = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let read = read.map_err(|error| Problem::bad(error.to_string(), "body", todo))?;
    let bytes = read.to_bytes();
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        Problem::bad(error.into_inner().to_string(), field, todo)
    })
}
