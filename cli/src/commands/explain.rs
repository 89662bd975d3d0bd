//! What would happen to a request, decision by decision, evaluated by both proxies.

use std::process::ExitCode;

use super::{CommandError, Connection, Output, print_json};
use crate::api::types::{ExplainRequest, ExplainResponse};
use crate::table::printable;

/// Explain what would happen to a request: listener, route, policy, endpoint, and why
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Both proxies evaluate the request, with the matchers that carry the traffic.

Exit codes: 0 the request would be answered by the app, 1 it would not, 2 the mesh could not be asked.

Examples:
  anyam explain shop/web cart:8080 --path /items
  anyam explain shop/intruder catalogue.shop:9090 --method POST --path /shop.v1.Catalogue/Get
  anyam explain shop/web store:6380 --tcp
  anyam explain -n shop deploy/web cart"
)]
pub struct ExplainArguments {
    /// The caller: namespace/name; in a cluster also deploy/NAME, sts/NAME, job/NAME, svc/NAME, pod/NAME
    source: String,
    /// What is called, as the app would dial it: host:port, host (port 80) or ip:port
    destination: String,
    #[arg(long, default_value = "GET")]
    method: String,
    #[arg(long, default_value = "/")]
    path: String,
    /// Host header, when it is not the destination
    #[arg(long, default_value = "")]
    authority: String,
    /// A request header, `name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// An opaque TCP connection instead of a request
    #[arg(long, conflicts_with_all = ["method", "path", "authority", "headers"])]
    tcp: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is not a header such as `name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

pub async fn explain(
    connection: &Connection,
    arguments: ExplainArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let source = mesh.one_workload(&arguments.source).await?;
    let mut request = ExplainRequest {
        source: source.to_string(),
        destination: arguments.destination,
        ..ExplainRequest::default()
    };
    if !arguments.tcp {
        request.method = arguments.method;
        request.path = arguments.path;
        request.authority = arguments.authority;
        request.headers = arguments.headers;
    }
    let explained = mesh.client.explain(&source, &request).await?;
    if arguments.output == Output::Json {
        print_json(&explained)?;
    } else {
        print(&explained);
    }
    Ok(ExitCode::from(u8::from(explained.verdict != "allowed")))
}

fn print(explained: &ExplainResponse) {
    let mut proxy = String::new();
    for step in &explained.steps {
        let now = format!("{} ({})", step.proxy, step.direction);
        if now != proxy {
            println!("{}", printable(&now));
            proxy = now;
        }
        let mark = match step.outcome.as_str() {
            "chosen" | "allowed" => "\u{2714}",
            "denied" | "failed" => "\u{2718}",
            "lost" => "\u{2013}",
            _ => " ",
        };
        let text = format!(
            "{mark} {:<10} {}: {}",
            step.stage, step.subject, step.reason
        );
        println!("  {}", printable(&text));
    }
    for gap in &explained.gaps {
        println!("? {}", printable(gap));
    }
    println!("\n{}: {}", explained.verdict, printable(&explained.summary));
}
