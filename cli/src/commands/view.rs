//! Tables of what is: proxies, golden signals, edges, routes.

use std::io;
use std::process::ExitCode;

use super::{CommandError, Connection, Output, age, millis, percent, print_json};
use crate::api::Scope;
use crate::api::types::{Edge, Proxy, RouteRule, Signals};
use crate::table::Align::{Left, Right};
use crate::table::{Table, printable};

/// List the proxies of the mesh, with the version and age of their configuration
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  anyam proxies\n  anyam proxies -A\n  anyam proxies -n shop -o json"
)]
pub struct ProxiesArguments {
    #[command(flatten)]
    common: Common,
}

/// Show golden signals of workloads and services
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  anyam stat\n  anyam stat -n shop")]
pub struct StatArguments {
    #[command(flatten)]
    common: Common,
}

/// Show who calls whom: rate, success, latency, identities
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  anyam edges\n  anyam edges -n shop -o json")]
pub struct EdgesArguments {
    #[command(flatten)]
    common: Common,
}

/// Show the routes of services in the order in which they are tried
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  anyam routes\n  anyam routes shop/cart\n  anyam routes -n shop svc/cart"
)]
pub struct RoutesArguments {
    /// Only this service: name, namespace/name or host; in a cluster also svc/NAME
    #[arg(default_value = "")]
    service: String,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Common {
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// For a table without rows: where was looked, and how to look elsewhere.
fn empty(what: &str, scope: &Scope) -> String {
    match scope {
        Scope::All => format!("{what}."),
        Scope::Namespace(_) => {
            format!("{what}{scope}; -n NAME looks into another one, -A into all.")
        }
    }
}

/// On standard error, whatever the output: replicas of the control plane that did not answer.
fn incomplete(unreachable: &[String]) {
    for replica in unreachable {
        let replica = printable(replica);
        eprintln!("anyam: proxies that are connected to another replica are missing: {replica}");
    }
}

pub async fn proxies(
    connection: &Connection,
    arguments: ProxiesArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let mut all = mesh.client.proxies(&mesh.scope).await?;
    incomplete(&all.unreachable_replicas);
    all.proxies.retain(|proxy| mesh.scope.has(&proxy.namespace));
    if arguments.common.output == Output::Json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        ("NAMESPACE", Left),
        ("WORKLOAD", Left),
        ("SOFTWARE", Left),
        ("CONFIG", Left),
        ("AGE", Right),
        ("CERTIFICATE", Left),
        ("CONNECTED", Right),
    ];
    let mut table = Table::new(&columns, &empty("No proxy is connected", &mesh.scope));
    for proxy in &all.proxies {
        table.row([
            proxy.namespace.clone(),
            proxy.workload.clone(),
            proxy.software.clone(),
            configuration(proxy),
            proxy.config_age_seconds.map_or("-".into(), age),
            certificate(proxy),
            age(proxy.connected_seconds),
        ]);
    }
    table.print(&mut io::stdout().lock())?;
    for proxy in &all.proxies {
        if let Some(rejected) = &proxy.rejected {
            let message = printable(&rejected.message);
            println!(
                "\n{}/{} rejected {}: {message}",
                proxy.namespace, proxy.workload, rejected.kind
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn configuration(proxy: &Proxy) -> String {
    match (&proxy.rejected, proxy.synced) {
        (Some(_), _) => "REJECTED".into(),
        (None, true) => "synced".into(),
        (None, false) => "pending".into(),
    }
}

fn certificate(proxy: &Proxy) -> String {
    match proxy.certificate_expires_in_seconds {
        Some(left) if left <= 0 => "EXPIRED".into(),
        Some(left) => format!("{} left", age(left.unsigned_abs())),
        None => "-".into(),
    }
}

pub async fn stat(
    connection: &Connection,
    arguments: StatArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let mut all = mesh.client.stats(&mesh.scope).await?;
    incomplete(&all.unreachable_replicas);
    all.stats.retain(|stat| mesh.scope.has(&stat.namespace));
    if arguments.common.output == Output::Json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut columns = vec![
        ("NAMESPACE", Left),
        ("KIND", Left),
        ("NAME", Left),
        ("MTLS", Right),
    ];
    columns.extend(SIGNAL_COLUMNS);
    let mut table = Table::new(
        &columns,
        &empty("No traffic was seen in the window", &mesh.scope),
    );
    for stat in &all.stats {
        let start = [
            stat.namespace.clone(),
            stat.kind.clone(),
            stat.name.clone(),
            percent(stat.mtls),
        ];
        table.row(start.into_iter().chain(signals(&stat.signals)));
    }
    table.print(&mut io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

const SIGNAL_COLUMNS: [(&str, crate::table::Align); 7] = [
    ("RPS", Right),
    ("SUCCESS", Right),
    ("DENIED", Right),
    ("P50", Right),
    ("P95", Right),
    ("P99", Right),
    ("FLAGS", Left),
];

fn signals(signals: &Signals) -> [String; 7] {
    [
        format!("{:.1}", signals.rate),
        percent(signals.success),
        signals.denied.to_string(),
        millis(signals.p50_ms),
        millis(signals.p95_ms),
        millis(signals.p99_ms),
        flags(signals),
    ]
}

/// Envoy's response flags, each with how often it was raised.
fn flags(signals: &Signals) -> String {
    let all: Vec<_> = signals
        .flags
        .iter()
        .map(|(flag, count)| format!("{flag} {count}"))
        .collect();
    if all.is_empty() {
        "-".to_owned()
    } else {
        all.join(", ")
    }
}

pub async fn edges(
    connection: &Connection,
    arguments: EdgesArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let mut all = mesh.client.edges(&mesh.scope).await?;
    incomplete(&all.unreachable_replicas);
    all.edges.retain(|edge| {
        mesh.scope.has(&edge.source_namespace) || mesh.scope.has(&edge.destination_namespace)
    });
    if arguments.common.output == Output::Json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut columns = vec![
        ("FROM", Left),
        ("TO", Left),
        ("PROTOCOL", Left),
        ("SECURED", Left),
    ];
    columns.extend(SIGNAL_COLUMNS);
    let mut table = Table::new(
        &columns,
        &empty("No traffic was seen in the window", &mesh.scope),
    );
    for edge in &all.edges {
        let secured = if edge.mtls { "mTLS" } else { "NO" }.to_owned();
        table.row(
            [from(edge), to(edge), edge.protocol.clone(), secured]
                .into_iter()
                .chain(signals(&edge.signals)),
        );
    }
    table.print(&mut io::stdout().lock())?;
    if all.dropped > 0 {
        println!("\n{} edges are not shown: the table is full.", all.dropped);
    }
    Ok(ExitCode::SUCCESS)
}

fn from(edge: &Edge) -> String {
    match edge.source_workload.as_str() {
        "" => "unknown".into(),
        workload => format!("{}/{workload}", edge.source_namespace),
    }
}

fn to(edge: &Edge) -> String {
    match edge.destination_version.as_str() {
        "" => format!(
            "{}/{}",
            edge.destination_namespace, edge.destination_service
        ),
        version => format!(
            "{}/{} ({version})",
            edge.destination_namespace, edge.destination_service
        ),
    }
}

pub async fn routes(
    connection: &Connection,
    arguments: RoutesArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let (scope, service) = mesh.service(&arguments.service);
    let mut all = mesh.client.routes(&scope, &service).await?;
    // `cart.shop.svc.cluster.local`
    let namespace = |host: &str| host.split('.').nth(1).unwrap_or_default().to_owned();
    all.services
        .retain(|service| scope.has(&namespace(&service.service)));
    if arguments.output == Output::Json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.services.is_empty() {
        println!("{}", empty("No such service, or it has no routes", &scope));
    }
    for service in &all.services {
        println!("{}:{}", printable(&service.service), service.port);
        for (number, rule) in service.rules.iter().enumerate() {
            println!("  {}. {}", number + 1, printable(&describe(rule)));
            for backend in &rule.backends {
                println!(
                    "       {:>3} \u{2192} {}:{} ({} endpoints)",
                    backend.weight,
                    printable(&backend.service),
                    backend.port,
                    backend.endpoints
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(rule: &RouteRule) -> String {
    let mut parts = vec![if rule.matches.is_empty() {
        "any request".into()
    } else {
        rule.matches.join(" and ")
    }];
    parts.extend(rule.actions.iter().cloned());
    parts.extend(
        rule.timeout_ms
            .map(|timeout| format!("at most {timeout} ms")),
    );
    parts.extend(
        rule.retries
            .iter()
            .map(|retries| format!("retries {retries}")),
    );
    match rule.name.as_str() {
        "" => parts.join("; "),
        name => format!("{name}: {}", parts.join("; ")),
    }
}
