//! `istio.v1.auth.IstioCertificateService`: the first certificate by join token, the next ones by
//! the current certificate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::service::Interceptor;
use tonic::{Request, Response, Status};
use xds_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use xds_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use super::authority::SignError;
use super::csr::CsrError;
use super::token::{Claims, Tokens};
use super::used::{UseError, Used};
use super::{Authority, CaError};
use crate::ads::Resources;
use crate::identity::is_shortened;
use crate::identity::{Identity, Peer};
use crate::metrics::Metrics;

pub struct CertificateService {
    authority: Arc<Authority>,
    tokens: Tokens,
    used: Mutex<Used>,
    resources: Arc<dyn Resources>,
    metrics: Arc<Metrics>,
}

/// A CSR and its fields; larger requests are refused.
pub const MAX_REQUEST: usize = 64 << 10;

/// The identity for which a certificate is requested, and the credential that permits it.
#[derive(Clone)]
struct Caller {
    identity: Identity,
    /// The name in the certificate's subject.
    subject: String,
    token: Option<Claims>,
}

pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

impl CertificateService {
    pub fn new(
        authority: Arc<Authority>,
        tokens: Tokens,
        used: Used,
        resources: Arc<dyn Resources>,
        metrics: Arc<Metrics>,
    ) -> Self {
        CertificateService {
            authority,
            tokens,
            used: Mutex::new(used),
            resources,
            metrics,
        }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(value) = request.metadata().get("authorization") {
            let token = value
                .to_str()
                .ok()
                .and_then(|text| text.strip_prefix("Bearer "));
            let token = token.ok_or_else(|| {
                Status::unauthenticated("the authorization header must be `Bearer <join token>`")
            })?;
            let claims = self
                .tokens
                .check(token.trim(), unix_now())
                .map_err(|error| Status::unauthenticated(error.to_string()))?;
            self.declared(&claims.namespace, &claims.workload, &claims.service_account)?;
            return Ok(Caller {
                identity: claims.identity(),
                subject: claims.workload.clone(),
                token: Some(claims),
            });
        }
        let peer = request.extensions().get::<Peer>();
        let Some(verified) = peer.and_then(|peer| peer.verified.as_ref()) else {
            return Err(Status::unauthenticated(
                "neither a join token (`authorization: Bearer anyam-join.v1.…`) nor a client \
                 certificate of this mesh; mint a token with `anyam-control token --workload ns/name`",
            ));
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
        // A shortened subject can't be looked up by; the identity still stands.
        if !verified.workload.is_empty() && !is_shortened(&verified.workload) {
            self.declared(namespace, &verified.workload, service_account)?;
        }
        Ok(Caller {
            identity: verified.identity.clone(),
            subject: verified.workload.clone(),
            token: None,
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

    fn sign(
        &self,
        caller: &Caller,
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
        if let Some(claims) = &caller.token {
            let mut used = self
                .used
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            used.use_up(&claims.jti, claims.exp, unix_now())
                .map_err(|error| token_refusal(&error))?;
        }
        tracing::info!(
            identity = %caller.identity,
            workload = caller.subject,
            serial = signed.serial,
            not_after = %signed.not_after,
            first = caller.token.is_some(),
            "certificate issued"
        );
        Ok(signed.chain)
    }
}

fn refusal(error: &SignError) -> Status {
    match error {
        SignError::Csr(CsrError::Identity { .. }) => Status::permission_denied(error.to_string()),
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

/// Refuses a caller without a credential before anything of its request is read.
#[derive(Clone)]
pub struct Authenticate(pub Arc<CertificateService>);

impl Interceptor for Authenticate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = self.0.caller(&request).inspect_err(|status| {
            self.0.metrics.certificates_refused.inc();
            tracing::warn!(reason = status.message(), "certificate refused");
        })?;
        request.extensions_mut().insert(caller);
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
        let answer = match request.extensions().get::<Caller>().cloned() {
            None => Err(Status::internal("the caller is not authenticated")),
            Some(caller) => {
                let request = request.into_inner();
                let work = tokio::task::spawn_blocking(move || service.sign(&caller, &request));
                work.await
                    .unwrap_or_else(|_| Err(Status::internal("signing was interrupted")))
            }
        };
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
