//! `istio.v1.auth.IstioCertificateService`: the first certificate by a token, the next ones by the
//! current certificate.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tonic::service::Interceptor;
use tonic::{Request, Response, Status};
use xds_proto::google::protobuf::value::Kind;
use xds_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use xds_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use super::authority::SignError;
use super::csr::CsrError;
use super::pod_token::{PodTokenError, PodTokens};
use super::refusals::RefusalLimit;
use super::token::{Claims, Tokens};
use super::used::{UseError, Used};
use super::{Authority, CaError};
use crate::ads::Resources;
use crate::identity::{Identity, Peer};
use crate::identity::{is_shortened, subject_name};
use crate::metrics::Metrics;
use crate::text::bounded;

/// What a workload shows that has no certificate yet.
pub enum FirstCredential {
    /// A join token, which is used up.
    JoinToken {
        tokens: Box<Tokens>,
        used: Mutex<Used>,
    },
    /// A service-account token of its pod, which the API server examines each time: an answer that
    /// was kept could outlive the pod.
    PodToken {
        tokens: Arc<dyn PodTokens>,
        limit: RefusalLimit,
    },
}

impl FirstCredential {
    pub fn join_token(tokens: Tokens, used: Used) -> Self {
        FirstCredential::JoinToken {
            tokens: Box::new(tokens),
            used: Mutex::new(used),
        }
    }

    pub fn pod_token(tokens: Arc<dyn PodTokens>) -> Self {
        let limit = RefusalLimit::default();
        FirstCredential::PodToken { tokens, limit }
    }

    /// For a peer that shows nothing, or something else.
    fn advice(&self) -> String {
        match self {
            FirstCredential::JoinToken { .. } => "a join token (`authorization: Bearer \
                 anyam-join.v1.…`); mint one with `anyam-control token --workload ns/name`"
                .to_owned(),
            FirstCredential::PodToken { tokens, .. } => format!(
                "a service-account token of the pod (`authorization: Bearer …`) for audience `{}`; \
                 injection mounts one",
                tokens.audience()
            ),
        }
    }
}

pub struct CertificateService {
    authority: Arc<Authority>,
    first: FirstCredential,
    resources: Arc<dyn Resources>,
    metrics: Arc<Metrics>,
}

/// A CSR and its fields; larger requests are refused.
pub const MAX_REQUEST: usize = 64 << 10;

/// The identity for which a certificate is requested, and the credential that permits it.
#[derive(Clone)]
struct Requester {
    identity: Identity,
    /// The name in the certificate's subject; empty where the current certificate has none.
    subject: String,
    credential: Credential,
}

#[derive(Clone)]
enum Credential {
    JoinToken(Claims),
    PodToken,
    Certificate,
}

/// What is known of a caller before its request is read.
#[derive(Clone)]
enum Admitted {
    Caller(Box<Requester>),
    /// The API server is to be asked whose this is.
    PodToken {
        token: String,
        from: Option<IpAddr>,
    },
}

pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

impl CertificateService {
    pub fn new(
        authority: Arc<Authority>,
        first: FirstCredential,
        resources: Arc<dyn Resources>,
        metrics: Arc<Metrics>,
    ) -> Self {
        CertificateService {
            authority,
            first,
            resources,
            metrics,
        }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        let peer = request.extensions().get::<Peer>();
        if let Some(value) = request.metadata().get("authorization") {
            let token = value
                .to_str()
                .ok()
                .and_then(|text| text.strip_prefix("Bearer "));
            let token = token.map(str::trim).ok_or_else(|| {
                Status::unauthenticated("the authorization header must be `Bearer <token>`")
            })?;
            let address = peer.and_then(|peer| peer.address);
            return self.bearer(token, address.map(|address| address.ip()));
        }
        let Some(verified) = peer.and_then(|peer| peer.verified.as_ref()) else {
            return Err(Status::unauthenticated(format!(
                "neither a client certificate of this mesh nor {}",
                self.first.advice()
            )));
        };
        let Identity {
            trust_domain,
            namespace,
            service_account,
        } = &verified.identity;
        if trust_domain != self.authority.trust_domain() {
            let message = format!("the certificate is of another trust domain, {trust_domain}");
            return Err(Status::permission_denied(message));
        }
        // A truncated subject cannot be looked up; the identity is still valid.
        if !verified.workload.is_empty() && !is_shortened(&verified.workload) {
            self.declared(namespace, &verified.workload, service_account)?;
        }
        Ok(Admitted::Caller(Box::new(Requester {
            identity: verified.identity.clone(),
            subject: verified.workload.clone(),
            credential: Credential::Certificate,
        })))
    }

    fn bearer(&self, token: &str, from: Option<IpAddr>) -> Result<Admitted, Status> {
        match &self.first {
            FirstCredential::JoinToken { tokens, .. } => {
                let claims = tokens
                    .check(token, unix_now())
                    .map_err(|error| Status::unauthenticated(error.to_string()))?;
                self.declared(&claims.namespace, &claims.workload, &claims.service_account)?;
                Ok(Admitted::Caller(Box::new(Requester {
                    identity: claims.identity(),
                    subject: claims.workload.clone(),
                    credential: Credential::JoinToken(claims),
                })))
            }
            FirstCredential::PodToken { .. } if token.starts_with("anyam-join.") => {
                Err(Status::unauthenticated(format!(
                    "this control plane serves a cluster and takes no join tokens, but {}",
                    self.first.advice()
                )))
            }
            FirstCredential::PodToken { .. } => Ok(Admitted::PodToken {
                token: token.to_owned(),
                from,
            }),
        }
    }

    /// The pod that shows a service-account token.
    async fn pod(&self, token: &str, from: Option<IpAddr>) -> Result<Requester, Status> {
        let FirstCredential::PodToken { tokens, limit } = &self.first else {
            return Err(Status::internal("tokens of pods are not taken"));
        };
        if !limit.take(from, Instant::now()) {
            return Err(Status::resource_exhausted(
                "too many tokens from this address were refused; try again in a minute, with another token",
            ));
        }
        let pod = match tokens.pod(token).await {
            Ok(pod) => pod,
            Err(PodTokenError::Invalid(why)) => return Err(Status::unauthenticated(why)),
            Err(PodTokenError::Pod(why)) => return Err(Status::permission_denied(why)),
            Err(PodTokenError::Unavailable(why)) => {
                limit.give_back(from);
                return Err(Status::unavailable(why));
            }
        };
        limit.give_back(from);
        let identity = Identity {
            trust_domain: self.authority.trust_domain().to_owned(),
            namespace: pod.namespace,
            service_account: pod.service_account,
        };
        if !identity.is_valid() {
            let message = format!(
                "`{identity}` can't be an identity: a part has other characters than a-z A-Z 0-9 . - _"
            );
            return Err(Status::permission_denied(message));
        }
        Ok(Requester {
            identity,
            subject: pod.name,
            credential: Credential::PodToken,
        })
    }

    /// A workload that was removed, or runs as another account by now, gets no more certificates.
    fn declared(&self, namespace: &str, workload: &str, account: &str) -> Result<(), Status> {
        match self.resources.view().service_account(namespace, workload) {
            Some(declared) if declared == account => Ok(()),
            Some(declared) => Err(Status::permission_denied(format!(
                "Workload {namespace}/{workload} runs as service account `{declared}`, not `{account}`"
            ))),
            None => Err(Status::permission_denied(format!(
                "no Workload {namespace}/{workload} is declared; add its manifest first"
            ))),
        }
    }

    async fn certificate(
        self: Arc<Self>,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Vec<String>, Status> {
        let caller = match request.extensions().get::<Admitted>().cloned() {
            None => return Err(Status::internal("the caller is not authenticated")),
            Some(Admitted::Caller(caller)) => *caller,
            Some(Admitted::PodToken { token, from }) => self.pod(&token, from).await?,
        };
        let request = request.into_inner();
        check_claims(&request, &caller)?;
        let work = tokio::task::spawn_blocking(move || self.sign(&caller, &request));
        work.await
            .unwrap_or_else(|_| Err(Status::internal("signing was interrupted")))
    }

    fn sign(
        &self,
        caller: &Requester,
        request: &IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let seconds = u64::try_from(request.validity_duration).map_err(|_| {
            Status::invalid_argument(
                "validity_duration is negative; use seconds, or 0 for the default",
            )
        })?;
        let asked = Duration::from_secs(seconds);
        let signed = self
            .authority
            .sign_request(&request.csr, &caller.identity, &caller.subject, asked)
            .map_err(|error| refusal(&error))?;
        // Only now: a request that is refused for its form does not cost the token.
        if let Credential::JoinToken(claims) = &caller.credential {
            let FirstCredential::JoinToken { used, .. } = &self.first else {
                return Err(Status::internal("join tokens are not taken"));
            };
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            used.use_up(&claims.jti, claims.exp, unix_now())
                .map_err(|error| token_refusal(&error))?;
        }
        tracing::info!(
            identity = %caller.identity,
            workload = caller.subject,
            serial = signed.serial,
            not_after = %signed.not_after,
            first = !matches!(caller.credential, Credential::Certificate),
            "certificate issued"
        );
        Ok(signed.chain)
    }
}

/// What a request's metadata says of its workload, by the keys of a node's, must be what its credential
/// says. The CSR itself is checked by [`super::csr`], the node id when the certificate is used for ADS.
fn check_claims(request: &IstioCertificateRequest, caller: &Requester) -> Result<(), Status> {
    let Some(metadata) = &request.metadata else {
        return Ok(());
    };
    let Identity {
        trust_domain: _,
        namespace,
        service_account,
    } = &caller.identity;
    let subject = subject_name(&caller.subject);
    for (key, value) in &metadata.fields {
        let Some(Kind::StringValue(claimed)) = &value.kind else {
            continue;
        };
        let is_so = match key.as_str() {
            "NAMESPACE" => claimed == namespace,
            "SERVICE_ACCOUNT" => claimed == service_account,
            "NAME" => subject.is_empty() || subject_name(claimed) == subject,
            _ => true,
        };
        if !is_so {
            return Err(Status::permission_denied(format!(
                "the request's metadata says {key} `{}`, but the credential is of {} (workload `{}`)",
                bounded(claimed),
                caller.identity,
                caller.subject
            )));
        }
    }
    Ok(())
}

fn refusal(error: &SignError) -> Status {
    match error {
        SignError::Own(_) | SignError::Csr(CsrError::Identity { .. }) => {
            Status::permission_denied(error.to_string())
        }
        SignError::Csr(_) => Status::invalid_argument(error.to_string()),
        SignError::Ca(error) => internal(error),
    }
}

fn token_refusal(error: &UseError) -> Status {
    match error {
        UseError::Used => Status::unauthenticated(error.to_string()),
        UseError::Full => Status::resource_exhausted(error.to_string()),
        UseError::Ca(error) => internal(error),
    }
}

/// Paths of our state directory are not shown to peers.
fn internal(error: &CaError) -> Status {
    tracing::error!(%error, "the CA can't issue");
    Status::internal("the CA can't issue at the moment; its log says why")
}

/// Refuses a caller without a credential before anything of its request is read. A service-account
/// token is examined afterwards: to ask the API server takes time.
#[derive(Clone)]
pub struct Authenticate(pub Arc<CertificateService>);

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let admitted = self.0.admit(&request).inspect_err(|status| {
            self.0.metrics.certificates_refused.inc();
            tracing::warn!(reason = status.message(), "certificate refused");
        })?;
        request.extensions_mut().insert(admitted);
        Ok(request)
    }
}

/// The trait's methods take `&self`; signing waits for the disk and so runs on a blocking thread.
#[derive(Clone)]
pub struct SharedCa(pub Arc<CertificateService>);

#[tonic::async_trait]
impl IstioCertificateService for SharedCa {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let service = Arc::clone(&self.0);
        let metrics = Arc::clone(&service.metrics);
        let answer = service.certificate(request).await;
        match answer {
            Ok(cert_chain) => {
                metrics.certificates_issued.inc();
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(status) => {
                metrics.certificates_refused.inc();
                tracing::warn!(reason = status.message(), "certificate refused");
                Err(status)
            }
        }
    }
}
