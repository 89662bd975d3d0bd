//! What the demo shows, each thing checked as it is shown.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::order::{CHECKS, Check};
use super::stage::Stage;
use super::totals::Totals;
use super::workloads::{NAMESPACE, shift_traffic};
use super::{Broken, DemoError};
use crate::api::types::ExplainRequest;
use crate::api::{Scope, WorkloadName};

const POLL: Duration = Duration::from_millis(200);
/// The longest any one check may take.
const TIMEOUT: Duration = Duration::from_secs(25);
/// How long callers are watched after a process was killed.
const AFTERMATH: Duration = Duration::from_secs(2);

/// The outcome of a check, in words.
type CheckResult = Result<String, String>;

struct DemoRun<'a> {
    stage: &'a mut Stage,
    passed: bool,
    /// Certificate of the front when the run began.
    first_serial: Option<String>,
}

/// Runs every check, then keeps the mesh up until `lasting` is over (or for ever). Gives back
/// whether all passed.
///
/// # Errors
/// When a process that nothing killed ends by itself.
pub async fn run(stage: &mut Stage, lasting: Option<Duration>) -> Result<bool, DemoError> {
    let began = Instant::now();
    println!("\nDashboard: {}\n", stage.dashboard);
    let mut run = DemoRun {
        stage,
        passed: true,
        first_serial: None,
    };
    run.everything().await?;
    if run.stage.site.broken.is_some() && !run.passed {
        // The check failed, as it must with this feature off.
        return Ok(false);
    }
    run.live(began, lasting).await?;
    let totals = run.totals();
    let result = if totals.failures == 0 {
        Ok(format!("{} visits, none lost", totals.visits))
    } else {
        Err(run.lost(&totals))
    };
    run.report("every visit answered", result);
    Ok(run.passed)
}

impl DemoRun<'_> {
    /// Runs each check in turn; a demo with a feature switched off ends at the first that fails.
    async fn everything(&mut self) -> Result<(), DemoError> {
        for (what, check) in CHECKS {
            let result = self.check(*check).await?;
            self.report(what, result);
            if *check == Check::Traffic {
                self.first_serial = self.serial().await;
            }
            if self.stage.site.broken.is_some() && !self.passed {
                break;
            }
        }
        Ok(())
    }

    async fn check(&mut self, check: Check) -> Result<CheckResult, DemoError> {
        match check {
            Check::Traffic => self.traffic().await,
            Check::Wire => self.wire().await,
            Check::Denied => self.denied().await,
            Check::Canary => self.split(0.10, Totals::default(), 500).await,
            Check::App => self.kill_app("catalogue-1").await,
            Check::Sidecar => self.kill_sidecar("catalogue-2").await,
            Check::Rotation => self.rotation().await,
            Check::Route => self.route_change().await,
        }
    }

    fn report(&mut self, what: &str, result: CheckResult) {
        let (mark, text) = match &result {
            Ok(text) => ("\u{2714}", text),
            Err(text) => ("\u{2718}", text),
        };
        self.passed &= result.is_ok();
        println!("{mark} {what:<26} {text}");
    }

    fn totals(&self) -> Totals {
        self.stage
            .pods
            .get("visitor")
            .and_then(|pod| pod.app.as_ref())
            .and_then(|app| app.last_line())
            .and_then(|line| serde_json::from_str(&line).ok())
            .unwrap_or_default()
    }

    fn lost(&self, totals: &Totals) -> String {
        let last = totals.last_failure.as_deref().unwrap_or("no reason given");
        format!(
            "{} of {} visits failed, the last with: {last}",
            totals.failures, totals.visits
        )
    }

    /// Waits until `done` returns a result.
    async fn until(
        &mut self,
        mut done: impl FnMut(&Totals) -> Option<CheckResult>,
    ) -> Result<CheckResult, DemoError> {
        let began = Instant::now();
        loop {
            let totals = self.totals();
            if let Some(result) = done(&totals) {
                return Ok(result);
            }
            if began.elapsed() > TIMEOUT {
                return Ok(Err(format!(
                    "nothing to show after {TIMEOUT:?}; {totals:?}"
                )));
            }
            self.stage.all_alive()?;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn traffic(&mut self) -> Result<CheckResult, DemoError> {
        let result = self
            .until(|totals| {
                (totals.visits >= 20 && totals.replicas.len() == 3).then(|| {
                    Ok(format!(
                        "{} visits through web, catalogue (3 replicas), cart and store",
                        totals.visits
                    ))
                })
            })
            .await?;
        let totals = self.totals();
        Ok(if totals.failures == 0 {
            result
        } else {
            Err(self.lost(&totals))
        })
    }

    async fn wire(&mut self) -> Result<CheckResult, DemoError> {
        let began = Instant::now();
        loop {
            let seen = self.stage.capture.seen();
            if seen.plain_connections + seen.readable_segments > 0 {
                return Ok(Err(format!(
                    "{} connections in the clear, {} readable segments",
                    seen.plain_connections, seen.readable_segments
                )));
            }
            let edges = self
                .stage
                .api
                .edges(&Scope::All)
                .await
                .map(|all| all.edges)
                .unwrap_or_default();
            let edge = edges.iter().find(|edge| {
                edge.source_workload == "web"
                    && edge.destination_service.starts_with("catalogue")
                    && !edge.source_identity.is_empty()
                    && !edge.destination_identity.is_empty()
            });
            if let (Some(edge), true) = (edge, seen.tls_connections > 0) {
                return Ok(Ok(format!(
                    "{} connections captured, all TLS; {} \u{2192} {}",
                    seen.tls_connections, edge.source_identity, edge.destination_identity
                )));
            }
            if began.elapsed() > TIMEOUT {
                return Ok(Err(format!(
                    "{seen:?}, and no edge from web to catalogue with both identities"
                )));
            }
            self.stage.all_alive()?;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn denied(&mut self) -> Result<CheckResult, DemoError> {
        let Some(pod) = self.stage.pods.get("intruder") else {
            return Ok(Err("there is no intruder".into()));
        };
        let url = ["intruder", "--url", "http://catalogue:9090"];
        let mut call = self
            .stage
            .site
            .start_program(pod.program, &pod.namespace, &url)?;
        let began = Instant::now();
        while call.ended().is_none() && began.elapsed() < TIMEOUT {
            tokio::time::sleep(POLL).await;
        }
        let answer = call.last_line().unwrap_or_else(|| call.last_errors());
        if !answer.starts_with("PermissionDenied") {
            return Ok(Err(format!("the intruder was answered: {answer}")));
        }
        let intruder = WorkloadName {
            namespace: NAMESPACE.to_owned(),
            name: "intruder".to_owned(),
        };
        let request = ExplainRequest {
            source: intruder.to_string(),
            destination: format!("catalogue.{NAMESPACE}.svc.cluster.local:9090"),
            method: "POST".into(),
            path: "/shop.v1.Catalogue/Get".into(),
            ..ExplainRequest::default()
        };
        Ok(match self.stage.api.explain(&intruder, &request).await {
            Ok(explained) => explained
                .steps
                .iter()
                .find(|step| step.outcome == "denied")
                .map(|step| format!("refused; {}: {}", step.subject, step.reason))
                .ok_or_else(|| "refused, but explain shows no decision that denies".into()),
            Err(error) => Err(format!("refused, but it cannot be explained: {error}")),
        })
    }

    /// Whether the share of the new cart since `before` is `share`, within four standard
    /// deviations: a right share fails this once in sixteen thousand runs.
    async fn split(
        &mut self,
        share: f64,
        before: Totals,
        enough: u64,
    ) -> Result<CheckResult, DemoError> {
        self.until(|totals| {
            let new = totals.cart("v2") - before.cart("v2");
            let all = new + totals.cart("v1") - before.cart("v1");
            if all < enough {
                return None;
            }
            let found = new as f64 / all as f64;
            let spread = 4.0 * (share * (1.0 - share) / all as f64).sqrt();
            let text = format!("{:.1} % of {all} calls went to the new cart", found * 100.0);
            Some(if (found - share).abs() <= spread {
                Ok(text)
            } else {
                Err(text)
            })
        })
        .await
    }

    /// Watches callers for a while: no request may fail.
    async fn unnoticed(&mut self, before: &Totals) -> CheckResult {
        tokio::time::sleep(AFTERMATH).await;
        let after = self.totals();
        let visits = after.visits - before.visits;
        if after.failures > before.failures {
            return Err(self.lost(&after));
        }
        if visits == 0 {
            return Err("no visit was answered since".into());
        }
        Ok(format!("{visits} visits since, no caller saw it"))
    }

    async fn kill_app(&mut self, name: &'static str) -> Result<CheckResult, DemoError> {
        let before = self.totals();
        if let Some(mut app) = self.stage.pods.get_mut(name).and_then(|pod| pod.app.take()) {
            app.kill();
        }
        let result = self.unnoticed(&before).await;
        self.stage.start_app(name)?;
        Ok(result)
    }

    async fn kill_sidecar(&mut self, name: &'static str) -> Result<CheckResult, DemoError> {
        let before = self.totals();
        if let Some(pod) = self.stage.pods.get_mut(name) {
            pod.sidecar.kill();
        }
        let result = self.unnoticed(&before).await;
        self.stage.start_sidecar(name)?;
        self.stage.wait_for_sidecar(name).await?;
        Ok(result)
    }

    async fn serial(&mut self) -> Option<String> {
        let proxies = self.stage.api.proxies(&Scope::All).await.ok()?.proxies;
        proxies
            .into_iter()
            .find(|proxy| proxy.workload == "web")?
            .certificate_serial
    }

    async fn rotation(&mut self) -> Result<CheckResult, DemoError> {
        let began = Instant::now();
        let first = self.first_serial.clone();
        let short = |serial: &str| serial.chars().take(12).collect::<String>();
        while began.elapsed() < TIMEOUT {
            let now = self.serial().await;
            if let (Some(first), Some(now)) = (&first, &now)
                && first != now
            {
                let totals = self.totals();
                let text = format!(
                    "web's {}\u{2026} became {}\u{2026} under load",
                    short(first),
                    short(now)
                );
                return Ok(if totals.failures == 0 {
                    Ok(text)
                } else {
                    Err(self.lost(&totals))
                });
            }
            self.stage.all_alive()?;
            tokio::time::sleep(POLL).await;
        }
        Ok(Err(format!(
            "web's certificate is still {}",
            first.as_deref().map_or("unknown".into(), short)
        )))
    }

    async fn route_change(&mut self) -> Result<CheckResult, DemoError> {
        if self.stage.site.broken != Some(Broken::RouteChange) {
            shift_traffic(&self.stage.site.config())?;
        }
        let began = Instant::now();
        // The change takes effect when the new cart is called twice in a row more often than one
        // call in ten would explain; measuring starts there.
        let mut before = self.totals();
        loop {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let now = self.totals();
            let new = now.cart("v2") - before.cart("v2");
            let all = new + now.cart("v1") - before.cart("v1");
            if all >= 20 && new * 3 > all {
                break;
            }
            if began.elapsed() > Duration::from_secs(8) {
                return Ok(Err(
                    "the route was changed to half and half; traffic did not follow".into(),
                ));
            }
            before = now;
        }
        let before = self.totals();
        let failures = before.failures;
        let result = self.split(0.50, before, 200).await?;
        let totals = self.totals();
        Ok(if totals.failures > failures {
            Err(self.lost(&totals))
        } else {
            result
        })
    }

    /// Shows the traffic until the time is over, or for ever.
    async fn live(&mut self, began: Instant, lasting: Option<Duration>) -> Result<(), DemoError> {
        let terminal = std::io::stdout().is_terminal();
        let mut before = (Instant::now(), self.totals());
        if lasting.is_none() {
            println!(
                "\nThe mesh stays up until Ctrl-C. Try: anyam edges, anyam tap {NAMESPACE}/web\n"
            );
        }
        while lasting.is_none_or(|lasting| began.elapsed() < lasting) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.stage.all_alive()?;
            let now = (Instant::now(), self.totals());
            if terminal {
                let seconds = (now.0 - before.0).as_secs_f64();
                let rate = (now.1.visits - before.1.visits) as f64 / seconds;
                print!(
                    "\r  {rate:7.1} visits/s   {} visits   {} failed  ",
                    now.1.visits, now.1.failures
                );
                // A terminal that is gone ends the demo by SIGHUP.
                let _ = std::io::stdout().flush();
            }
            before = now;
        }
        if terminal {
            println!();
        }
        Ok(())
    }
}
