//! `docs/envoy-compat.md` states for each field of each message what becomes of it, and states so
//! because the compiler's source does: the table is made from it, and this test holds it to it.
//!
//! - `scan`: reads the source; `names`: which protobuf message a Rust path is
//! - `probe`: holds the rows against what the compiler does with resources
//!
//! After a change of the compiler: `ANYAM_BLESS=1 cargo test -p anyam-tests --test compat`.

#![allow(clippy::unwrap_used)]

mod names;
mod probe;
mod scan;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use scan::{Scan, Status};
use xds_proto::schema::{self, Field};

const FOLDERS: [&str; 2] = ["proxy/src/bootstrap", "proxy/src/config/compile"];
const BEGIN: &str = "<!-- Made from the source from here on; see tests/tests/compat. -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let tests = path.file_stem().is_some_and(|stem| stem == "tests");
        match path.is_dir() {
            _ if tests => {}
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

fn scanned() -> Scan {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&root().join(folder), &mut files);
    }
    let mut scan = Scan::default();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        scan.file(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    scan
}

/// What becomes of one field, with the reason.
fn verdict(scan: &Scan, message: &str, field: Field) -> (&'static str, String) {
    match scan
        .fields
        .get(&(message.to_owned(), names::plain(field.name())))
    {
        Some(Status::Rejected(why)) => ("rejected", why.clone()),
        Some(Status::Ignored(why)) => ("ignored", why.clone()),
        Some(Status::Supported) => ("supported", String::new()),
        // A case of a oneof that no arm of the compiler names.
        None => ("rejected", scan::UNSUPPORTED.to_owned()),
    }
}

fn table(scan: &Scan) -> String {
    let mut text = String::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let listed = |name: &str| scan.messages.contains(name) && !name.starts_with("google.");
    for message in schema::messages().filter(|message| listed(message.name())) {
        let _ = writeln!(text, "\n### {}\n", message.name());
        let _ = writeln!(text, "| field | | because |\n|---|---|---|");
        for field in message.fields() {
            let (status, why) = verdict(scan, message.name(), field);
            *counts.entry(status).or_default() += 1;
            let _ = writeln!(
                text,
                "| {} | {status} | {} |",
                field.name(),
                why.replace('|', "\\|")
            );
        }
    }
    let total: usize = counts.values().sum();
    let counted: Vec<String> = counts
        .iter()
        .map(|(status, count)| format!("{count} {status}"))
        .collect();
    format!("\n{total} fields: {}.\n{text}", counted.join(", "))
}

#[test]
fn the_document_says_what_the_compiler_does() {
    let path = root().join("docs/envoy-compat.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, found) = text
        .split_once(BEGIN)
        .unwrap_or_else(|| panic!("docs/envoy-compat.md lacks the line {BEGIN}"));
    let table = table(&scanned());
    if std::env::var_os("ANYAM_BLESS").is_some() {
        std::fs::write(&path, format!("{prose}{BEGIN}\n{table}")).unwrap();
        return;
    }
    let found: Vec<&str> = found.trim_start().lines().collect();
    let wanted: Vec<&str> = table.trim_start().lines().collect();
    let differing = wanted
        .iter()
        .zip(&found)
        .find(|(wanted, found)| wanted != found);
    assert!(
        wanted == found,
        "docs/envoy-compat.md is out of date ({differing:?}); run\n  ANYAM_BLESS=1 cargo test -p anyam-tests --test compat"
    );
}

#[test]
fn rows_are_true() {
    let path = root().join("tests/tests/compat/samples.yaml");
    let samples = probe::Samples::read(&std::fs::read_to_string(path).unwrap());
    let wrong = probe::differences(&scanned(), &samples);
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn no_message_is_read_that_the_table_lacks() {
    let scan = scanned();
    assert!(
        scan.unknown.is_empty(),
        "not in the schema: {:?}",
        scan.unknown
    );
    // A node goes to the control plane whole, as it was configured.
    let whole = "envoy.config.core.v3.Node";
    let of_envoy = |name: &&String| name.starts_with("envoy.") && *name != whole;
    let missing: Vec<_> = scan
        .named
        .difference(&scan.messages)
        .filter(of_envoy)
        .collect();
    assert!(
        missing.is_empty(),
        "handed round, and never taken apart: {missing:#?}"
    );
}

#[test]
fn the_source_is_understood() {
    let scan = scanned();
    for message in [
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.config.route.v3.RouteAction",
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.rbac.v3.RBAC",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ] {
        assert!(scan.messages.contains(message), "{message} was not found");
    }
    let of = |message: &str, field: &str| {
        let message = schema::message(message).unwrap();
        verdict(&scan, message.name(), message.field_by_name(field).unwrap()).0
    };
    let bootstrap = "envoy.config.bootstrap.v3.Bootstrap";
    assert_eq!(of(bootstrap, "node"), "supported");
    assert_eq!(of(bootstrap, "stats_sinks"), "rejected");
    assert_eq!(of(bootstrap, "stats_config"), "ignored");
    let address = "envoy.config.core.v3.Address";
    assert_eq!(of(address, "socket_address"), "supported");
    assert_eq!(of(address, "pipe"), "rejected");
    let source = "envoy.config.core.v3.ConfigSource";
    assert_eq!(of(source, "ads"), "supported");
    // Every message that is taken apart names all its fields: the compiler insists.
    for name in &scan.messages {
        let message = schema::message(name).unwrap();
        for field in message.fields().filter(|field| field.oneof().is_none()) {
            let key = (name.clone(), names::plain(field.name()));
            assert!(scan.fields.contains_key(&key), "{name}.{}", field.name());
        }
    }
}
