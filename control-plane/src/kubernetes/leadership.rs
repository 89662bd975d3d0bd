//! Leader election among the replicas of a control plane, for those that write: [`Election`] keeps the
//! Lease, [`Leadership`] tells a writer whether it may.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::{CallError, FailureLog, Right, call};
use super::candidate::{Candidate, LeaseStep, RETRY_PERIOD};
use crate::ca::CaError;
use crate::text::hex;

const LEASE: &str = "anyam-control";

const GET: Right = Right::new("get", "leases.coordination.k8s.io");
const CREATE: Right = Right::new("create", "leases.coordination.k8s.io");
const UPDATE: Right = Right::new("update", "leases.coordination.k8s.io");

/// Of a call for the Lease: a leader has time for a second one before it must step down.
const WITHIN: Duration = Duration::from_secs(4);
/// For the last call, by which others need not wait.
const RELEASE: Duration = Duration::from_secs(2);
/// Work that ends by itself, which it should not, begins again after this time.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether this replica leads; any number of writers have one.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Of a replica that leads while `leads` is true.
    pub fn of(leads: watch::Receiver<bool>) -> Self {
        Leadership(leads)
    }

    /// True while this replica leads.
    pub fn watched(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    pub fn is_leader(&self) -> bool {
        *self.0.borrow()
    }

    /// Does `work` while this replica leads: begins when it does, drops the work when it does not
    /// any more, and so on. A call that is under way is not waited for; so whatever is written
    /// must be right if it is written twice, or late. Ends when there is no more election.
    pub async fn while_leading<F: Future<Output = ()>>(mut self, mut work: impl FnMut() -> F) {
        loop {
            if self.0.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let mut until = self.0.clone();
            let ended = tokio::select! {
                _ = until.wait_for(|leads| !*leads) => false,
                () = work() => true,
            };
            if ended {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Keeps the Lease `anyam-control` of a namespace while it leads, and tries to get it while it does not.
pub struct Election {
    leases: Api<Lease>,
    candidate: Candidate,
    /// As the API server gave it back. No other replica writes it while this one leads, so that it need
    /// not be read before it is written again.
    written: Option<Lease>,
    leads: watch::Sender<bool>,
    failures: FailureLog,
    shown: IntGauge,
}

impl Election {
    /// `identity`: unique to this process. `shown`: 1 while it leads.
    pub fn new(
        client: Client,
        namespace: &str,
        identity: String,
        leads: watch::Sender<bool>,
        shown: IntGauge,
    ) -> Self {
        Election {
            leases: Api::namespaced(client, namespace),
            candidate: Candidate::new(LEASE, identity),
            written: None,
            leads,
            failures: FailureLog::new("keeping the Lease anyam-control"),
            shown,
        }
    }

    /// Until `closing` turns true; then the Lease is released.
    pub async fn run(mut self, mut closing: watch::Receiver<bool>) {
        tokio::select! {
            () = self.campaign() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.release().await;
    }

    async fn campaign(&mut self) {
        loop {
            let began = Instant::now();
            match self.candidate.leads_until(began) {
                // At that moment this replica leads no more, however slow a call is.
                Some(until) => {
                    if timeout_at(until, self.attempt()).await.is_err() {
                        self.written = None;
                    }
                }
                None => self.attempt().await,
            }
            self.tell();
            let pause = match self.candidate.leads_until(Instant::now()) {
                Some(_) => RETRY_PERIOD,
                None => RETRY_PERIOD.saturating_add(jitter()),
            };
            let next = began.checked_add(pause).unwrap_or(began);
            let until = self.candidate.leads_until(Instant::now());
            sleep_until(until.map_or(next, |until| next.min(until))).await;
            self.tell();
        }
    }

    async fn attempt(&mut self) {
        let mut outcome = self.renew().await;
        if outcome.as_ref().is_err_and(CallError::is_conflict) {
            // Another has written it: that is read now.
            outcome = self.renew().await;
        }
        match outcome {
            Ok(()) => self.failures.succeeded(),
            Err(error) if error.is_conflict() => {}
            Err(error) => self.failures.failed(&error),
        }
    }

    async fn renew(&mut self) -> Result<(), CallError> {
        let found = match self.written.take() {
            Some(written) => Some(written),
            None => self.read().await?,
        };
        let sent = Instant::now();
        let step = self.candidate.step(found.as_ref(), sent, Timestamp::now());
        let parameters = PostParams::default();
        let written = match &step {
            LeaseStep::Wait => return Ok(()),
            LeaseStep::Create(lease) => {
                call(CREATE, WITHIN, self.leases.create(&parameters, lease)).await?
            }
            LeaseStep::Replace(lease) => {
                let replace = self.leases.replace(LEASE, &parameters, lease);
                call(UPDATE, WITHIN, replace).await?
            }
        };
        self.candidate.written(&written, sent);
        self.written = Some(written);
        Ok(())
    }

    async fn read(&self) -> Result<Option<Lease>, CallError> {
        call(GET, WITHIN, self.leases.get_opt(LEASE)).await
    }

    fn tell(&self) {
        let leads = self.candidate.leads_until(Instant::now()).is_some();
        let differs = self.leads.send_if_modified(|told| {
            let differs = *told != leads;
            *told = leads;
            differs
        });
        self.shown.set(i64::from(leads));
        if differs {
            let identity = self.candidate.identity();
            match leads {
                true => tracing::info!(identity, "leads: writes what the cluster is to have"),
                false => tracing::warn!(identity, "leads no more"),
            }
        }
    }

    async fn release(mut self) {
        let led = self.candidate.leads_until(Instant::now()).is_some();
        self.leads.send_replace(false);
        self.shown.set(0);
        if !led {
            return;
        }
        let release = async {
            let found = match self.written.take() {
                Some(written) => Some(written),
                None => self.read().await?,
            };
            let found = found.and_then(|it| self.candidate.release(&it, Timestamp::now()));
            if let Some(lease) = found {
                let parameters = PostParams::default();
                let replace = self.leases.replace(LEASE, &parameters, &lease);
                call(UPDATE, RELEASE, replace).await?;
            }
            Ok::<_, CallError>(())
        };
        match tokio::time::timeout(RELEASE, release).await {
            Ok(Ok(())) => tracing::info!("the Lease is released"),
            Ok(Err(error)) => tracing::info!(%error, "the Lease ends by itself"),
            Err(_) => tracing::info!("the Lease ends by itself: the API server is slow"),
        }
    }
}

impl Drop for Election {
    /// After a panic too: what does not renew does not lead.
    fn drop(&mut self) {
        self.leads.send_replace(false);
    }
}

/// So that replicas that started together do not ask together; shorter than a retry period.
fn jitter() -> Duration {
    let mut byte = [0u8];
    // Without random bytes there is no jitter, which only costs calls.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    RETRY_PERIOD.mul_f64(f64::from(byte) / 256.0)
}

/// Of this process: the pod's name, or the machine's, and random digits.
///
/// # Errors
/// When there are no random bytes.
pub fn identity() -> Result<String, CaError> {
    let pod = Some(super::pod_name()).filter(|it| !it.is_empty());
    let host = pod.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let mut random = [0u8; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| CaError::Signing("no random bytes".into()))?;
    Ok(format!(
        "{}_{}",
        host.unwrap_or_default().trim(),
        hex(&random)
    ))
}
