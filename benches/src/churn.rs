//! A cluster whose pods change all the time: an API server, a control plane and sidecars, all real, and
//! pods that are objects only. How long a change takes from the API server's acknowledgement to each
//! sidecar's configuration, and what the control plane needs meanwhile.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyam_tests_kube::held::{self, HeldVersion};
use anyam_tests_kube::{Bench, Change, FakeShop, PodHost, PodNetwork, until};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::usage::{Usage, usage};

/// How often a sidecar's configuration is read. It says itself since when it has it, so that this
/// does not limit what is measured.
const POLL: Duration = Duration::from_millis(100);
/// How long the control plane is looked at before anything changes.
const IDLE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Clocks of one machine; a watch may be quicker than the response to the write.
const AHEAD: Duration = Duration::from_secs(1);
/// Replacements of pods for each Service that comes and goes.
const EACH_SERVICE: usize = 10;
const PAGE: &str = "/config_dump?include_eds&resource=dynamic_endpoint_configs";

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct ChurnPlan {
    pub services: usize,
    /// Of all Services together; each is replaced once.
    pub pods: usize,
    /// Replacements of a pod in a second.
    pub rate: usize,
    pub sidecars: u8,
}

/// What was measured.
#[derive(Debug)]
pub struct ChurnReport {
    /// Replacements in a second, as they were.
    pub rate: f64,
    /// From the acknowledgement of a change to a sidecar's configuration, sorted.
    pub delays: Vec<Duration>,
    /// Of the control plane: its share of a core without changes and with them, and its CPU for one
    /// replacement of a pod.
    pub idle_share: f64,
    pub share: f64,
    pub each: Duration,
    /// Of the control plane, in bytes: before, after, and at most.
    pub memory: [u64; 3],
}

/// A sidecar, and the versions of endpoints that it had.
struct Watched {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<HeldVersion>>,
}

impl Watched {
    fn begin(pod: Arc<PodHost>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut last: HashMap<String, HeldVersion> = HashMap::new();
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for version in held::versions(&pod.admin(PAGE)) {
                    let before = last.insert(version.service.clone(), version.clone());
                    if before.as_ref() != Some(&version) {
                        seen.push(version);
                    }
                }
                std::thread::sleep(POLL);
            }
            seen
        });
        Watched { stop, thread }
    }

    /// # Panics
    /// When it could not be read.
    fn end(self) -> Vec<HeldVersion> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("the sidecar's admin page was read")
    }
}

/// Measures, in a network of its own, which needs root.
///
/// # Panics
/// When something of it does not start, or a sidecar ends with other endpoints than the API server has.
pub async fn measure(plan: ChurnPlan) -> ChurnReport {
    let mut network = PodNetwork::enter();
    let bench = Bench::start_at(PodNetwork::CONTROL);
    bench.namespace("shop", &["web"]);
    let client = bench.server.client().await;
    let each = plan.pods / plan.services;
    let mut shop = FakeShop::create(client, plan.services, each).await;
    let control = bench.control("control-0", &[]).await;
    let root = bench.root("shop").await;
    let joins = (control.xds().await, &*root);
    let mut pods = Vec::new();
    for number in 0..plan.sidecars {
        let (name, address) = (
            format!("web-{number}"),
            Ipv4Addr::new(10, 77, 1, number + 1),
        );
        let pod = network.pod(&bench, (&name, "web"), address, joins, &[]);
        let pod = pod.await;
        pod.use_all(shop.addresses().map(SocketAddr::from));
        pods.push(Arc::new(pod));
    }
    agree(&pods, &shop).await;

    let before = usage(control.pid());
    tokio::time::sleep(IDLE).await;
    let idle = usage(control.pid());
    let watched: Vec<_> = pods
        .iter()
        .map(|pod| Watched::begin(Arc::clone(pod)))
        .collect();
    let began = Instant::now();
    let changes = replace_all(&mut shop, plan).await;
    let took = began.elapsed();
    agree(&pods, &shop).await;
    let after = usage(control.pid());
    tokio::time::sleep(2 * POLL).await;
    let mut delays = Vec::new();
    for sidecar in watched {
        let versions = sidecar.end();
        delays.extend(changes.iter().map(|change| delay(change, &versions)));
    }
    delays.sort_unstable();
    report(plan, took, delays, [before, idle, after])
}

fn report(
    plan: ChurnPlan,
    took: Duration,
    delays: Vec<Duration>,
    [before, idle, after]: [Usage; 3],
) -> ChurnReport {
    let cpu = after.cpu.saturating_sub(idle.cpu);
    let replaced = plan.services * (plan.pods / plan.services);
    ChurnReport {
        rate: replaced as f64 / took.as_secs_f64(),
        delays,
        idle_share: (idle.cpu.saturating_sub(before.cpu)).as_secs_f64() / IDLE.as_secs_f64(),
        share: cpu.as_secs_f64() / took.as_secs_f64(),
        each: cpu / u32::try_from(replaced.max(1)).unwrap_or(u32::MAX),
        memory: [idle.resident, after.resident, after.peak],
    }
}

/// Waits until all sidecars balance over what the API server lists.
async fn agree(pods: &[Arc<PodHost>], shop: &FakeShop) {
    let listed = shop.listed().await;
    for pod in pods {
        until("the endpoints that are listed", TIMEOUT, async || {
            let mut held = held::in_force(&pod.admin("/clusters?format=json"));
            held.retain(|service, _| listed.contains_key(service));
            match held == listed {
                true => Ok(()),
                false => Err(format!("{held:?} and not {listed:?}")),
            }
        })
        .await;
    }
}

/// Replaces each pod once, as rolling updates of all Services at a time would: a new one becomes ready,
/// half a second later an old one begins to end, and after another it is gone.
async fn replace_all(shop: &mut FakeShop, plan: ChurnPlan) -> Vec<Change> {
    let services = shop.len();
    let replaced = services * (plan.pods / plan.services);
    let later = plan.rate.div_ceil(2);
    let mut changes = Vec::new();
    let tick = Duration::from_secs(1) / u32::try_from(plan.rate.max(1)).unwrap_or(1);
    let mut ticks = tokio::time::interval(tick);
    for now in 0..replaced + 2 * later {
        ticks.tick().await;
        if now < replaced {
            changes.push(shop.add_pod(now % services).await);
            if now % EACH_SERVICE == 0 {
                shop.turn_over_service().await;
            }
        }
        let of = |delay: usize| now.checked_sub(delay).filter(|then| *then < replaced);
        if let Some(then) = of(later) {
            changes.push(shop.terminate_oldest(then % services).await);
        }
        if let Some(then) = of(2 * later) {
            shop.delete_terminated(then % services).await;
        }
    }
    changes
}

/// From a change's acknowledgement to a sidecar's first configuration with it.
///
/// # Panics
/// When the sidecar never had it.
fn delay(change: &Change, versions: &[HeldVersion]) -> Duration {
    let earliest = change.acknowledged - AHEAD;
    let of_service = versions.iter().filter(|it| it.service == change.service);
    let with_it = of_service.filter(|it| it.endpoints.contains(&change.endpoint) == change.added);
    let mut times = with_it.map(|it| time_of(&it.since));
    let first = times.find(|since| *since >= earliest);
    let first = first.unwrap_or_else(|| panic!("no sidecar had {change:?}"));
    first
        .duration_since(change.acknowledged)
        .unwrap_or_default()
}

fn time_of(text: &str) -> SystemTime {
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.expect("the admin page has times of RFC 3339").into()
}
