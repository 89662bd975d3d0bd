//! The shop's manifests, and what its programs are, read from those manifests.

use std::net::Ipv4Addr;
use std::path::Path;

use super::{Broken, DemoError};

/// File name and content, as shipped in `deploy/demo`.
const FILES: [(&str, &str); 5] = [
    (
        "services.yaml",
        include_str!("../../../deploy/demo/services.yaml"),
    ),
    (
        "workloads.yaml",
        include_str!("../../../deploy/demo/workloads.yaml"),
    ),
    (ROUTES, include_str!("../../../deploy/demo/routes.yaml")),
    (POLICIES, include_str!("../../../deploy/demo/policies.yaml")),
    (
        RESILIENCE,
        include_str!("../../../deploy/demo/resilience.yaml"),
    ),
];
const ROUTES: &str = "routes.yaml";
const POLICIES: &str = "policies.yaml";
const RESILIENCE: &str = "resilience.yaml";

pub const NAMESPACE: &str = "shop";
pub const TRUST_DOMAIN: &str = "anyam.local";

/// One program of the shop, and its address.
pub struct Program {
    pub name: &'static str,
    pub account: &'static str,
    pub address: Ipv4Addr,
    /// Arguments of `anyam-shop`; empty for the intruder, which runs when a check starts it.
    pub arguments: &'static [&'static str],
}

const fn program(
    name: &'static str,
    account: &'static str,
    host: u8,
    arguments: &'static [&'static str],
) -> Program {
    Program {
        name,
        account,
        address: Ipv4Addr::new(10, 77, host, 2),
        arguments,
    }
}

/// In the order in which they start; a test holds them against `workloads.yaml`.
pub const PROGRAMS: [Program; 9] = [
    program(
        "store",
        "store",
        8,
        &["store", "--listen", "10.77.8.2:6380"],
    ),
    program(
        "cart-v1",
        "cart",
        6,
        &["cart", "--listen", "10.77.6.2:8080", "--version", "v1"],
    ),
    program(
        "cart-v2",
        "cart",
        7,
        &["cart", "--listen", "10.77.7.2:8080", "--version", "v2"],
    ),
    program(
        "catalogue-1",
        "catalogue",
        3,
        &[
            "catalogue",
            "--listen",
            "10.77.3.2:9090",
            "--replica",
            "catalogue-1",
        ],
    ),
    program(
        "catalogue-2",
        "catalogue",
        4,
        &[
            "catalogue",
            "--listen",
            "10.77.4.2:9090",
            "--replica",
            "catalogue-2",
        ],
    ),
    program(
        "catalogue-3",
        "catalogue",
        5,
        &[
            "catalogue",
            "--listen",
            "10.77.5.2:9090",
            "--replica",
            "catalogue-3",
        ],
    ),
    program("web", "web", 2, &["web", "--listen", "10.77.2.2:8080"]),
    program(
        "visitor",
        "visitor",
        1,
        &["visitor", "--url", "http://web:8080"],
    ),
    program("intruder", "intruder", 9, &[]),
];

/// Writes the manifests, save what `broken` switches off.
///
/// # Errors
/// When a file cannot be written.
pub fn write_manifests(folder: &Path, broken: Option<Broken>) -> Result<(), DemoError> {
    for (name, text) in FILES {
        let text = match (name, broken) {
            (ROUTES, Some(Broken::Split)) => continue,
            // Without a policy, what is safe to try again still would be.
            (RESILIENCE, Some(Broken::Resilience)) => without_resilience(text),
            (POLICIES, Some(Broken::Authorization)) => first_document(text).to_owned(),
            (POLICIES, Some(Broken::Mtls)) => {
                first_document(text).replace("mode: Strict", "mode: Disabled")
            }
            _ => text.to_owned(),
        };
        write(&folder.join(name), &text)?;
    }
    Ok(())
}

/// The route after the change the demo makes: the new cart takes half.
///
/// # Errors
/// When the file cannot be written.
pub fn shift_traffic(folder: &Path) -> Result<(), DemoError> {
    let text = FILES
        .iter()
        .find(|(name, _)| *name == ROUTES)
        .map_or("", |(_, text)| text);
    let text = text
        .replace("weight: 90", "weight: 50")
        .replace("weight: 10 ", "weight: 50 ");
    write(&folder.join(ROUTES), &text)
}

/// Replaces a file in one step, so that no reader sees half of it.
fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|error| DemoError::File {
            path: path.to_owned(),
            error,
        })
}

/// The catalogue's policy with retries switched off and no outlier detection.
fn without_resilience(text: &str) -> String {
    text.lines()
        .filter(|line| !line.contains("outlierDetection:"))
        .map(|line| match line.split_once("retry:") {
            Some((indent, _)) => format!("{indent}retry: {{ attempts: 0 }}\n"),
            None => format!("{line}\n"),
        })
        .collect()
}

fn first_document(text: &str) -> &str {
    text.split("\n---").next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_the_workloads_of_the_manifests() {
        let (_, workloads) = FILES
            .iter()
            .find(|(name, _)| *name == "workloads.yaml")
            .unwrap();
        for program in &PROGRAMS {
            let text = workloads
                .split("---")
                .find(|text| text.contains(&format!("name: {}\n", program.name)))
                .unwrap();
            assert!(
                text.contains(&format!("[{}]", program.address)),
                "{}",
                program.name
            );
            assert!(text.contains(&format!("serviceAccount: {}\n", program.account)));
        }
        assert_eq!(workloads.matches("kind: Workload").count(), PROGRAMS.len());
    }

    #[test]
    fn without_resilience_nothing_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        write_manifests(dir.path(), Some(Broken::Resilience)).unwrap();
        let text = std::fs::read_to_string(dir.path().join(RESILIENCE)).unwrap();
        assert!(text.ends_with("  retry: { attempts: 0 }\n"), "{text}");
    }

    #[test]
    fn the_shifted_route_is_half_and_half() {
        let dir = tempfile::tempdir().unwrap();
        shift_traffic(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(ROUTES)).unwrap();
        assert_eq!(text.matches("weight: 50").count(), 2, "{text}");
    }
}
