//! The way to the dashboard.

use std::process::ExitCode;

use super::{CommandError, Connection};
use crate::api::Scope;
use crate::cluster::{Forward, installed};

/// Print the address of the dashboard; in a cluster, forward a local port to it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "In a cluster the port is forwarded until Ctrl-C, and the address is good for one login, for a short
time. The page shows the namespace (-n), or all (-A), with your rights. It takes the rights to get and
create pods/portforward in the control plane's namespace.

Examples:
  anyam dashboard
  anyam dashboard -n shop
  anyam dashboard -A --port 15080"
)]
pub struct DashboardArguments {
    /// The local port in a cluster; 0: any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The control plane's namespace, where the cluster does not say it
    #[arg(long, value_name = "NAME", default_value = installed::NAMESPACE)]
    control_namespace: String,
}

pub async fn dashboard(
    connection: &Connection,
    arguments: DashboardArguments,
) -> Result<ExitCode, CommandError> {
    let mesh = connection.mesh().await?;
    let Some(cluster) = mesh.cluster.clone() else {
        mesh.whole("the dashboard")?;
        println!("{}", mesh.client.dashboard_url().unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    };
    let login = mesh.client.login(&mesh.scope).await?;
    let namespace = match login.pod_namespace.clone() {
        Some(namespace) => namespace,
        None => installed::namespace(&cluster)
            .await
            .unwrap_or(arguments.control_namespace),
    };
    let to = (namespace.as_str(), login.pod.as_str());
    let forward = Forward::open(cluster, to, login.port, arguments.port).await?;
    let address = forward.address()?;
    let shown = match &mesh.scope {
        Scope::All => "all namespaces".to_owned(),
        Scope::Namespace(name) => format!("namespace {name}"),
    };
    // The token in the fragment, which browsers do not send anywhere.
    println!("http://{address}/#token={}", login.token);
    eprintln!(
        "anyam: {shown}, from pod {}, until Ctrl-C; good for one login, until {}",
        login.pod, login.expires_at
    );
    tokio::select! {
        () = forward.serve(|why| eprintln!("anyam: {why}")) => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(ExitCode::SUCCESS)
}
