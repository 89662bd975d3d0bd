//! `anyam-proxy redirect`: netfilter rules in a pod's network namespace.
//!
//! - `rules`: the nftables program, as text, from [`RedirectOptions`]
//!
//! One `inet` table holds everything, so that installing is one atomic transaction and removing
//! is one command. What it does, in the order a packet meets it:
//!
//! - a connection from outside to any port → inbound port, save excluded ports and the proxy's own
//!   (port 15008, where tunnels come in, is the inbound listener's and redirected as all are);
//! - a connection of the app to anywhere → outbound port, save loopback addresses;
//! - the app's DNS → the DNS port, whatever the resolver;
//! - the proxy's own traffic passes, with one exception: when it calls its own pod's address (the
//!   app called its own service) the connection goes to the inbound port, as a peer's would.
//!   Delivery to the app is distinguished by its source address, 127.0.0.6 or ::6.

mod rules;

use std::io::Write;
use std::process::{Command, Stdio};

pub use rules::{RedirectOptions, program};

/// The table that holds the rules.
pub const TABLE: &str = "anyam";

/// Why the rules could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error("cannot run `{0}`: {1}; install the package that has it (Debian: nftables, iproute2)")]
    Missing(&'static str, #[source] std::io::Error),
    #[error(
        "`{command}` refused the rules: {output}\nThis needs the capability NET_ADMIN in the pod's network namespace and a kernel with nftables NAT"
    )]
    Refused {
        command: &'static str,
        output: String,
    },
}

/// Installs the rules in the current network namespace, in place of those of an earlier run.
///
/// # Errors
/// When nft is not installed, or the kernel or missing rights refuse the rules.
pub fn install(options: &RedirectOptions) -> Result<(), RedirectError> {
    run("nft", &["-f", "-"], &program(options))?;
    // IPv6 has no address like 127.0.0.6 on loopback by default. A namespace without IPv6 needs none.
    if options.ipv6 && has_ipv6() {
        run(
            "ip",
            &["-6", "address", "replace", "::6/128", "dev", "lo"],
            "",
        )?;
    }
    Ok(())
}

fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0")
}

/// Removes the rules; nothing happens when there are none.
///
/// # Errors
/// As [`install`].
pub fn remove() -> Result<(), RedirectError> {
    run(
        "nft",
        &["-f", "-"],
        &format!("table inet {TABLE} {{}}\ndelete table inet {TABLE}\n"),
    )
}

fn run(command: &'static str, arguments: &[&str], input: &str) -> Result<(), RedirectError> {
    let missing = |error| RedirectError::Missing(command, error);
    let mut child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(missing)?;
    }
    let output = child.wait_with_output().map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(RedirectError::Refused { command, output })
}
