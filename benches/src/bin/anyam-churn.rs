//! `anyam-churn`: what a cluster of changing pods costs, as a table. `tests/kube/run.sh churn` runs it.

use std::process::ExitCode;
use std::time::Duration;

use anyam_benches::churn::{ChurnPlan, ChurnReport, measure};
use clap::Parser;

#[derive(Parser)]
#[command(
    about = "Measures how changes of pods reach sidecars; needs root and tests/kube/build.sh"
)]
struct ChurnArguments {
    /// Pods, in all Services together; each is replaced once
    #[arg(long, default_value_t = 300)]
    pods: usize,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    services: u16,
    /// Pods that are replaced in a second
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rate: u16,
    /// Sidecars that watch all Services
    #[arg(long, default_value_t = 3)]
    sidecars: u8,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = ChurnArguments::parse();
    let plan = ChurnPlan {
        services: arguments.services.into(),
        pods: arguments.pods,
        rate: arguments.rate.into(),
        sidecars: arguments.sidecars,
    };
    // A pod's replacement takes a second, and a Service replaces one at a time.
    if plan.pods < plan.services || plan.rate > plan.services {
        eprintln!(
            "error: there must be a pod for each Service, and not more replacements in a second than Services"
        );
        return ExitCode::from(2);
    }
    let report = measure(plan).await;
    print(plan, &report);
    ExitCode::SUCCESS
}

fn print(plan: ChurnPlan, report: &ChurnReport) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let at = |share: f64| {
        let last = report.delays.len().saturating_sub(1);
        let index = (share * last as f64).round() as usize;
        let delay = report.delays.get(index).copied().unwrap_or_default();
        format!("{} ms", delay.as_millis())
    };
    let megabytes = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let percent = |share: f64| format!("{:.1} % of a core", share * 100.0);
    let [before, after, peak] = report.memory.map(megabytes);
    let rows = [
        ("machine", format!("{cores} x {model}")),
        (
            "pods replaced",
            format!(
                "{} in {} Services, {:.1} a second; {} sidecars that use all Services",
                plan.pods, plan.services, report.rate, plan.sidecars
            ),
        ),
        (
            "API server's acknowledgement to a sidecar's configuration",
            format!(
                "p50 {}, p99 {}, at most {} ({} changes)",
                at(0.5),
                at(0.99),
                at(1.0),
                report.delays.len()
            ),
        ),
        (
            "CPU of the control plane",
            format!(
                "{}, {} without changes; {} a replaced pod",
                percent(report.share),
                percent(report.idle_share),
                milliseconds(report.each)
            ),
        ),
        (
            "memory of the control plane",
            format!("{before} before, {after} after, {peak} at most"),
        ),
    ];
    println!("| | |\n|---|---|");
    for (what, value) in rows {
        println!("| {what} | {value} |");
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
