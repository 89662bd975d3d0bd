//! Gets the certificate, renews it, publishes it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use super::ca::{self, CaError, Credential};
use super::schedule::{self, CHECK_INTERVAL};
use super::store::{StateStore, StoreError};
use super::token::Token;
use super::{CertificateStatus, IdentitySettings, Material, Slots};
use crate::metrics::Registry;
use crate::metrics::registry::RegistryError;
use crate::xds::backoff::Backoff;
use crate::xds::channel::ManagementServer;

struct AgentMetrics {
    not_after: IntGauge,
    renewals: IntCounter,
    failures: IntCounter,
    clock: IntGauge,
}

impl AgentMetrics {
    fn new(registry: &Registry) -> Result<Self, RegistryError> {
        Ok(AgentMetrics {
            not_after: registry.gauge(
                "anyam_identity_certificate_not_after_seconds",
                "When the proxy's certificate ends, seconds since the epoch.",
            )?,
            renewals: registry.counter(
                "anyam_identity_certificates_total",
                "Certificates received from the CA.",
            )?,
            failures: registry.counter(
                "anyam_identity_failures_total",
                "Attempts to get a certificate that failed.",
            )?,
            clock: registry.gauge(
                "anyam_identity_clock_suspect",
                "1 while the clock of this machine cannot be right.",
            )?,
        })
    }
}

/// See the module.
pub struct CertificateAgent {
    settings: IdentitySettings,
    target: ManagementServer,
    store: StateStore,
    slots: Slots,
    metrics: AgentMetrics,
    status: watch::Sender<CertificateStatus>,
    /// The certificate in use, with the time of its renewal.
    current: Option<(Material, SystemTime)>,
    backoff: Backoff,
    /// The CA refused the current certificate: the token is tried next, if there is one.
    refused: bool,
    glance: (SystemTime, Instant),
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("identity: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Metrics(#[from] RegistryError),
}

impl CertificateAgent {
    /// Loads the stored certificate and bundle, if there are any, into their slots before it
    /// returns.
    ///
    /// # Errors
    /// When the state directory cannot be used.
    pub fn new(
        settings: IdentitySettings,
        target: ManagementServer,
        slots: Slots,
        registry: &Registry,
    ) -> Result<(Self, watch::Receiver<CertificateStatus>), AgentError> {
        let store = StateStore::open(&settings.state_dir)?;
        let (status, watched) = watch::channel(CertificateStatus::default());
        let mut agent = CertificateAgent {
            target,
            slots,
            metrics: AgentMetrics::new(registry)?,
            status,
            current: None,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(60)),
            refused: false,
            glance: (SystemTime::now(), Instant::now()),
            settings,
            store,
        };
        if let Some(material) = agent.store.load()? {
            agent.resume(material);
        }
        Ok((agent, watched))
    }

    /// Runs as long as the process.
    pub async fn run(&mut self) {
        loop {
            let wait = match self.due_in(SystemTime::now()) {
                Some(wait) => wait,
                None => match self.renew().await {
                    Ok(()) => continue,
                    Err(error) => self.failed(&error),
                },
            };
            tokio::time::sleep(wait.min(CHECK_INTERVAL)).await;
            self.look_at_clock();
        }
    }

    /// `None`: a certificate is wanted now.
    fn due_in(&self, now: SystemTime) -> Option<Duration> {
        let (_, renew_at) = self.current.as_ref()?;
        renew_at.duration_since(now).ok().filter(|d| !d.is_zero())
    }

    /// Takes over a stored certificate, unless it is for another SPIFFE id or expired.
    fn resume(&mut self, material: Material) {
        let trust_domain = self.settings.spiffe_id.trust_domain();
        let (identity, bundle) = match material.parse(trust_domain) {
            Ok(parsed) => parsed,
            Err(error) => {
                tracing::warn!(%error, "the stored certificate cannot be used");
                return;
            }
        };
        if identity.spiffe_id() != Some(&self.settings.spiffe_id) {
            tracing::warn!("the stored certificate is for another identity and not used");
            return;
        }
        if identity.not_after() <= SystemTime::now() {
            tracing::warn!("the stored certificate is over; a join token is needed");
            // Its roots are still the trusted ones.
            self.slots.trust.set(Arc::new(bundle));
            return;
        }
        self.publish(material, identity, bundle);
    }

    async fn renew(&mut self) -> Result<(), RenewalError> {
        let usable = self.current.as_ref().map(|(material, _)| material);
        let usable = usable.filter(|_| self.has_life_left());
        let token = match usable {
            Some(_) if !self.refused => None,
            _ => self.read_token()?,
        };
        let credential = match (&token, usable) {
            (Some(token), _) => Credential::Token(token),
            (None, Some(material)) => Credential::Certificate(material),
            (None, None) => return Err(RenewalError::NoCredential),
        };
        let made = ca::create_certificate(&self.target, &self.settings, credential).await;
        let material = match made {
            Ok(material) => material,
            Err(error) => {
                // After a refusal the other credential is tried next: a used token is refused like
                // a revoked certificate.
                self.refused = error.is_refusal() && !self.refused;
                return Err(error.into());
            }
        };
        let trust_domain = self.settings.spiffe_id.trust_domain();
        let (identity, bundle) = material
            .parse(trust_domain)
            .map_err(|e| CaError::Answer(e.to_string()))?;
        // Used even when it cannot be stored: a full disk must not end the service.
        if let Err(error) = self.store.save(&material) {
            tracing::error!(%error, "the new certificate is in use but a restart will need a token");
        }
        self.metrics.renewals.inc();
        self.refused = false;
        self.backoff.reset();
        let trouble = schedule::clock_trouble(
            identity.not_before(),
            identity.not_after(),
            SystemTime::now(),
        );
        self.publish(material, identity, bundle);
        self.clock(trouble);
        self.status
            .send_modify(|status| status.renewals = status.renewals.saturating_add(1));
        Ok(())
    }

    fn has_life_left(&self) -> bool {
        let ends = self.status.borrow().not_after;
        ends.is_some_and(|ends| ends > SystemTime::now())
    }

    fn read_token(&self) -> Result<Option<Token>, RenewalError> {
        let Some(path) = &self.settings.token_file else {
            return Ok(None);
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if self.current.is_some() => {
                tracing::debug!(%error, "no join token");
                return Ok(None);
            }
            Err(error) => {
                return Err(RenewalError::Token(
                    path.display().to_string(),
                    error.to_string(),
                ));
            }
        };
        let token = match &self.settings.ca_file {
            None => Token::parse(&text),
            Some(roots) => {
                let failed = |error: std::io::Error| {
                    RenewalError::Roots(roots.display().to_string(), error.to_string())
                };
                Token::beside_roots(&text, &std::fs::read_to_string(roots).map_err(failed)?)
            }
        };
        token
            .map(Some)
            .map_err(|error| RenewalError::Token(path.display().to_string(), error.to_string()))
    }

    fn publish(
        &mut self,
        material: Material,
        identity: crate::tls::Identity,
        bundle: crate::tls::TrustBundle,
    ) {
        let (not_before, not_after) = (identity.not_before(), identity.not_after());
        let serial = identity.serial().to_owned();
        let renew_at =
            schedule::renew_at(not_before, not_after, SystemTime::now(), fastrand::f64());
        tracing::info!(serial, id = %self.settings.spiffe_id, "certificate in use");
        // An equal bundle is not replaced, so that TLS sessions and cached verifications stay
        // valid.
        if self.status.borrow().roots != material.roots || self.slots.trust.load().is_none() {
            self.slots.trust.set(Arc::new(bundle));
        }
        self.slots.identity.set(Arc::new(identity));
        self.metrics.not_after.set(seconds(not_after));
        self.status.send_modify(|status| {
            status.serial = serial;
            status.not_before = Some(not_before);
            status.not_after = Some(not_after);
            status.chain.clone_from(&material.chain);
            status.roots.clone_from(&material.roots);
            status.error = None;
        });
        self.current = Some((material, renew_at));
    }

    fn failed(&mut self, error: &RenewalError) -> Duration {
        self.metrics.failures.inc();
        let remaining = self
            .status
            .borrow()
            .not_after
            .map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        let draw = 0.5 + fastrand::f64() / 2.0;
        let wait = schedule::retry_bound(remaining, self.backoff.next(draw));
        tracing::warn!(%error, retry_in = ?wait, "no new certificate");
        let error = error.to_string();
        self.status.send_modify(|status| status.error = Some(error));
        wait
    }

    fn look_at_clock(&mut self) {
        let (wall, steady) =
            std::mem::replace(&mut self.glance, (SystemTime::now(), Instant::now()));
        let moved = self.glance.0.duration_since(wall).map_err(|e| e.duration());
        if let Some(jump) =
            schedule::clock_jump(moved, self.glance.1.saturating_duration_since(steady))
        {
            self.clock(Some(jump));
        }
    }

    fn clock(&self, trouble: Option<String>) {
        if let Some(trouble) = &trouble {
            tracing::warn!(trouble, "clock");
        }
        self.metrics.clock.set(i64::from(trouble.is_some()));
        self.status.send_modify(|status| status.clock = trouble);
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("token {0}: {1}")]
    Token(String, String),
    #[error("the CA's roots {0}: {1}")]
    Roots(String, String),
    #[error(
        "no valid certificate and no join token; make one with `anyam token` and put it into token_file"
    )]
    NoCredential,
}
