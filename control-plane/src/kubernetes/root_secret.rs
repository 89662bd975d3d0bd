//! The mesh's root in a Secret: made once, whichever replica comes first, and followed from then on.
//!
//! Its keys are those of a `kubernetes.io/tls` Secret: `tls.key` signs, `tls.crt` has its certificate
//! and those between it and the root, and `ca.crt` the root, unless `tls.crt` ends with it. So an
//! intermediate of one's own, or of cert-manager, can be there before the control plane starts.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::call::{CallError, DEADLINE, FailureLog, Right, call, watch_named};
use super::leadership::Leadership;
use super::{MANAGED_BY, MANAGER};
use crate::ca::authority::Lifetimes;
use crate::ca::root::{self, CaPart, CaPem};
use crate::ca::{Authority, CaError};

pub const NAME: &str = "anyam-ca";
const TYPE: &str = "kubernetes.io/tls";
const KEY: &str = "tls.key";
const CERTIFICATES: &str = "tls.crt";
const ROOT: &str = "ca.crt";

const GET: Right = Right::new("get", "secrets");
const CREATE: Right = Right::new("create", "secrets");
const WATCH: Right = Right::new("watch", "secrets");

/// Before the API server is asked again at start, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Before a Secret that is gone is looked after again.
const AGAIN: Duration = Duration::from_secs(5);

/// Why the Secret's root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootSecretError {
    #[error(
        "Secret {namespace}/{NAME}, key {key}: {why}; put it right and start again, or delete the Secret: then a new root is made, and every pod has to start again"
    )]
    Content {
        namespace: String,
        key: &'static str,
        why: String,
    },
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Why there is no CA yet.
enum NotYet {
    /// The API server may answer otherwise later.
    Call(CallError),
    Secret(RootSecretError),
}

impl From<CallError> for NotYet {
    fn from(error: CallError) -> Self {
        NotYet::Call(error)
    }
}

impl From<RootSecretError> for NotYet {
    fn from(error: RootSecretError) -> Self {
        NotYet::Secret(error)
    }
}

/// The Secret `anyam-ca` of a namespace.
pub struct RootSecret {
    secrets: Api<Secret>,
    namespace: String,
}

/// A CA that was read from the Secret, and what follows the Secret from then on.
pub struct OpenedRoot {
    pub authority: Arc<Authority>,
    pub secret: RootSecret,
    /// What the Secret had.
    pub pem: CaPem,
}

impl RootSecret {
    pub fn new(client: Client, namespace: &str) -> Self {
        RootSecret {
            secrets: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Reads the Secret, or makes it with a new root. Waits for an API server that does not answer, or
    /// does not grant that yet, however long it takes.
    ///
    /// # Errors
    /// When the Secret has something else than a CA of this trust domain.
    pub async fn open(
        self,
        trust_domain: &str,
        lifetimes: Lifetimes,
    ) -> Result<OpenedRoot, RootSecretError> {
        let mut failures = FailureLog::new("reading the Secret with the mesh's root");
        let mut pause = FIRST_PAUSE;
        let pem = loop {
            match self.read_or_make(trust_domain).await {
                Ok(pem) => break pem,
                Err(NotYet::Secret(error)) => return Err(error),
                Err(NotYet::Call(error)) => {
                    let namespace = &self.namespace;
                    failures.failed(&format!("namespace {namespace} (--namespace): {error}"));
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        };
        failures.succeeded();
        let authority = Authority::from_pem(&pem, trust_domain, lifetimes);
        let authority = authority.map_err(|error| self.content(error))?;
        Ok(OpenedRoot {
            authority: Arc::new(authority),
            secret: self,
            pem,
        })
    }

    /// Of replicas that make one at once, one succeeds, and the others read what it made.
    async fn read_or_make(&self, trust_domain: &str) -> Result<CaPem, NotYet> {
        if let Some(found) = self.read().await? {
            return Ok(found);
        }
        let mut made = root::make(trust_domain).map_err(RootSecretError::Ca)?;
        made.root = Some(made.certificates.clone());
        match self.create(&made).await {
            Ok(()) => {
                tracing::info!(
                    namespace = self.namespace,
                    "made the mesh's root, in Secret {NAME}"
                );
                Ok(made)
            }
            // What the API server keeps is what counts.
            Err(error) if error.is_conflict() => match self.read().await? {
                Some(found) => Ok(found),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn read(&self) -> Result<Option<CaPem>, NotYet> {
        let found = call(GET, DEADLINE, self.secrets.get_opt(NAME)).await?;
        Ok(found.map(|secret| self.pem(&secret)).transpose()?)
    }

    fn pem(&self, secret: &Secret) -> Result<CaPem, RootSecretError> {
        let wrong = |key: &'static str, why: &str| RootSecretError::Content {
            namespace: self.namespace.clone(),
            key,
            why: why.to_owned(),
        };
        let value = |key: &'static str| {
            let found = secret.data.as_ref().and_then(|data| data.get(key));
            let found = found.filter(|value| !value.0.is_empty());
            let text = found.map(|value| String::from_utf8(value.0.clone()));
            text.transpose().map_err(|_| wrong(key, "is no text"))
        };
        Ok(CaPem {
            key: value(KEY)?.ok_or_else(|| wrong(KEY, "is missing"))?,
            certificates: value(CERTIFICATES)?.ok_or_else(|| wrong(CERTIFICATES, "is missing"))?,
            root: value(ROOT)?,
        })
    }

    async fn create(&self, pem: &CaPem) -> Result<(), CallError> {
        let root = pem.root.as_ref().unwrap_or(&pem.certificates);
        let data = [
            (KEY, &pem.key),
            (CERTIFICATES, &pem.certificates),
            (ROOT, root),
        ];
        let data = data.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            data: Some(data.into()),
            ..Secret::default()
        };
        let parameters = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        let made = self.secrets.create(&parameters, &secret);
        call(CREATE, DEADLINE, made).await.map(drop)
    }

    /// An error of the CA's parts by the Secret's keys.
    fn content(&self, error: CaError) -> RootSecretError {
        match error {
            CaError::Pem { part, why } => RootSecretError::Content {
                namespace: self.namespace.clone(),
                key: match part {
                    CaPart::Key => KEY,
                    CaPart::Certificates => CERTIFICATES,
                    CaPart::Root => ROOT,
                },
                why,
            },
            other => RootSecretError::Ca(other),
        }
    }

    /// Takes what the Secret has now, if it differs from `before`.
    fn replaced(
        &self,
        authority: &Authority,
        before: &CaPem,
        found: &Secret,
    ) -> Result<CaPem, RootSecretError> {
        let pem = self.pem(found)?;
        if pem != *before {
            authority
                .replace(&pem)
                .map_err(|error| self.content(error))?;
            let ends = authority.not_after();
            tracing::info!(%ends, "Secret {NAME} has changed; its key signs from now on");
        }
        Ok(pem)
    }
}

impl OpenedRoot {
    /// Follows the Secret. Another key and certificate below the same root are used from then on, as
    /// when an intermediate is renewed. Another root is not: certificates of pods, and what they
    /// trust, are of the one that they joined with. A leader makes a Secret that was deleted
    /// again, with what it had: else the next replica to start would make another root.
    pub async fn follow(self, leadership: Leadership) {
        let OpenedRoot {
            authority,
            secret,
            mut pem,
        } = self;
        let only = watch_named(NAME);
        let mut events = pin!(watcher(secret.secrets.clone(), only).default_backoff());
        let mut failures = FailureLog::new("following the Secret with the mesh's root");
        let (mut seen, mut missing) = (false, false);
        loop {
            if missing && leadership.is_leader() {
                match secret.create(&pem).await {
                    Ok(()) => tracing::warn!(
                        "Secret {NAME} was deleted; it is there again, with the root in use"
                    ),
                    // It is there again, and will be read.
                    Err(error) if error.is_conflict() => {}
                    Err(error) => failures.failed(&error),
                }
            }
            let event = tokio::select! {
                event = events.next() => event,
                () = tokio::time::sleep(AGAIN), if missing => continue,
            };
            let found = match event {
                None => return,
                Some(Ok(watcher::Event::Init)) => {
                    seen = false;
                    continue;
                }
                Some(Ok(watcher::Event::InitDone)) => {
                    missing = !seen;
                    continue;
                }
                Some(Ok(watcher::Event::Delete(_))) => {
                    missing = true;
                    continue;
                }
                Some(Ok(watcher::Event::Apply(found) | watcher::Event::InitApply(found))) => found,
                Some(Err(error)) => {
                    if let Some(error) = CallError::of_watch(WATCH, &error) {
                        failures.failed(&error);
                    }
                    continue;
                }
            };
            (seen, missing) = (true, false);
            match secret.replaced(&authority, &pem, &found) {
                Ok(now) => {
                    failures.succeeded();
                    pem = now;
                }
                Err(error) => failures.failed(&format!(
                    "{error}. The CA goes on as before; to use another root restart the control plane, and then all pods"
                )),
            }
        }
    }
}
