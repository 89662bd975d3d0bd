//! The order of runs: every contestant once a round, one after the other.

use std::time::{Duration, Instant};

use crate::cases::{Case, Contestant, Work};
use crate::control;
use crate::load::held::{self, Kind};
use crate::load::{self, Load};
use crate::peers::{Program, Running, spawn};
use crate::report::{Metric, Outcome, Series};
use crate::{BenchError, Programs};

#[derive(Clone)]
pub struct Timing {
    /// Names of contestants; empty: all.
    pub only: Vec<String>,
    pub rounds: usize,
    pub seconds: u64,
}

/// Answers of this size and more are counted by their bytes.
const BULK: usize = 64 * 1024;
/// Descriptors beside those of the held connections.
const SPARE: usize = 50;
/// After this time a program has finished its start, and freed its memory of it.
const START: Duration = Duration::from_secs(4);
/// Attempts at the first stream; what comes after it must succeed at once.
const WARM_UPS: usize = 5;
/// Starts in a round: each is short.
const STARTS: usize = 5;

/// Measures a case.
///
/// # Errors
/// When a contestant cannot be started, or anything fails while it works.
pub fn measure(case: Case, timing: &Timing, programs: &Programs) -> Result<Outcome, BenchError> {
    let mut plan = case.plan();
    if !timing.only.is_empty() {
        plan.contestants
            .retain(|one| timing.only.iter().any(|only| only == one.name));
    }
    let mut all: Vec<_> = plan
        .contestants
        .iter()
        .map(|c| Series::new(c.name))
        .collect();
    // Memory varies little between rounds: one is enough, and the first counts.
    let (first, last) = match plan.work {
        Work::Idle(_) => (1, 1),
        Work::Load(_) | Work::Start { .. } | Work::Change => (0, timing.rounds),
    };
    let _server = match plan.work {
        Work::Load(load) => load.server()?,
        Work::Idle(_) | Work::Start { .. } | Work::Change => None,
    };
    let mut meshes = match plan.work {
        Work::Change => meshes(&plan.contestants)?,
        _ => Vec::new(),
    };
    for round in first..=last {
        for (contestant, series) in plan.contestants.iter().zip(&mut all) {
            let mut scrap = Series::new(contestant.name);
            let into = if round == 0 { &mut scrap } else { series };
            let done = match plan.work {
                Work::Load(load) => loaded(contestant, load, timing, programs, into),
                Work::Idle(kind) => idle(contestant, kind, programs, into),
                Work::Start { tls } => start(contestant, tls, programs, into),
                Work::Change => change(contestant, &mut meshes, into),
            };
            done.map_err(|error| BenchError::At {
                case: case.name(),
                contestant: contestant.name,
                error: Box::new(error),
            })?;
        }
    }
    Ok(Outcome::new(case, plan.title, is_bulk(plan.work), all))
}

fn is_bulk(work: Work) -> bool {
    match work {
        Work::Load(Load::Stream { .. }) => true,
        Work::Load(load) => load.answer() >= BULK,
        Work::Idle(_) | Work::Start { .. } | Work::Change => false,
    }
}

type Meshes = Vec<(&'static str, control::Mesh)>;

/// The meshes of all contestants, made once.
fn meshes(contestants: &[Contestant]) -> Result<Meshes, BenchError> {
    let taking_part = |name: &str| contestants.iter().any(|one| one.name == name);
    let sizes = control::SIZES
        .into_iter()
        .filter(|(name, _)| taking_part(name));
    sizes
        .map(|(name, services)| Ok((name, control::Mesh::new(services)?)))
        .collect()
}

fn change(
    contestant: &Contestant,
    meshes: &mut Meshes,
    into: &mut Series,
) -> Result<(), BenchError> {
    let mesh = meshes.iter_mut().find(|(name, _)| *name == contestant.name);
    if let Some((_, mesh)) = mesh {
        into.add(Metric::Change, mesh.measure()?);
    }
    Ok(())
}

fn loaded(
    contestant: &Contestant,
    load: Load,
    timing: &Timing,
    programs: &Programs,
    into: &mut Series,
) -> Result<(), BenchError> {
    let running = Running::start(
        contestant.program,
        &contestant.hops,
        contestant.workers,
        programs,
    )?;
    // Connections and pools are warm before the clock starts.
    let scratch = &programs.scratch;
    let warming = || load.run(Duration::from_secs(1), contestant.port, scratch);
    match load {
        Load::Stream { .. } => again(warming)?,
        _ => warming()?,
    };
    let before = running.cpu()?;
    let done = load.run(
        Duration::from_secs(timing.seconds),
        contestant.port,
        scratch,
    )?;
    let cpu = running.cpu()?.saturating_sub(before).as_secs_f64();
    if contestant.program != Program::Direct {
        into.add(
            Metric::Cpu,
            match is_bulk(Work::Load(load)) {
                true => cpu / (done.bytes as f64 / f64::from(1 << 30)),
                false => cpu * 1e6 / done.requests as f64,
            },
        );
    }
    into.add(Metric::Rate, done.requests as f64 / done.seconds);
    for (metric, value) in [(Metric::P50, done.p50), (Metric::P99, done.p99)] {
        if let Some(value) = value {
            into.add(metric, value);
        }
    }
    Ok(())
}

/// Tries again, because iperf3's server refuses a client while it still handles the connection that
/// checked whether a proxy's port is open. Other failures last longer than these attempts.
fn again<T>(load: impl Fn() -> Result<T, BenchError>) -> Result<T, BenchError> {
    let mut done = load();
    for _ in 1..WARM_UPS {
        if done.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
        done = load();
    }
    done
}

fn idle(
    contestant: &Contestant,
    kind: Kind,
    programs: &Programs,
    into: &mut Series,
) -> Result<(), BenchError> {
    let running = Running::start(contestant.program, &contestant.hops, 1, programs)?;
    let scratch = &programs.scratch;
    std::thread::sleep(START);
    // Memory that the process allocates once, with its first connection, is not counted per
    // connection.
    held::hold(kind, 1, scratch)?.close();
    let before = settled(&running);
    into.add(Metric::Resident, before / 1024.0);
    let many = programs.connections - SPARE;
    into.add(Metric::Held, many as f64);
    for (count, metric) in [
        (1_000, Metric::PerConnectionOfFew),
        (many, Metric::PerConnection),
    ] {
        let held = held::hold(kind, count, scratch)?;
        let now = settled(&running);
        into.add(metric, (now - before) / count as f64);
        held.close();
        let after = settled(&running);
        if count == many {
            into.add(Metric::AfterClose, after / before);
        }
    }
    Ok(())
}

/// Connections that a proxy can hold: each takes two of its descriptors.
pub fn allowed() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let fits = soft.unwrap_or(1024usize).saturating_sub(500) / 2;
    fits.clamp(2 * SPARE, 10_000 + SPARE)
}

/// Resident memory once it moves no more, or after a while.
fn settled(running: &Running) -> f64 {
    let began = Instant::now();
    let mut last = running.resident();
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = running.resident();
        let still = (now - last).abs() < 64.0;
        if still || began.elapsed() > Duration::from_secs(15) {
            return now;
        }
        last = now;
    }
}

fn start(
    contestant: &Contestant,
    tls: bool,
    programs: &Programs,
    into: &mut Series,
) -> Result<(), BenchError> {
    for _ in 0..STARTS {
        let Some(hop) = contestant.hops.first() else {
            continue;
        };
        let began = Instant::now();
        let mut process = spawn(contestant.program, hop, 0, 1, programs)?;
        let answered = load::first_answer(tls, &programs.scratch, Duration::from_secs(10));
        let took = began.elapsed().as_secs_f64() * 1e3;
        // Fails only if the process has ended.
        let _ = process.kill();
        let _ = process.wait();
        answered?;
        into.add(Metric::Start, took);
    }
    Ok(())
}
