//! The rules of the tree, held by tests: which module may import which, how long a file and a
//! function may be, where unsafe code may stand.
//!
//! `cycles`: no dependency cycle between the top-level modules of a crate; `names`: no two public
//! types of a crate have one name; `walks`: what ARCHITECTURE.md names exists.

#![allow(clippy::unwrap_used)]

mod cycles;
mod names;
mod walks;

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code in a file, before its tests.
const MAX_FILE: usize = 400;
/// Lines of a function, its signature and braces included.
const MAX_FUNCTION: usize = 80;

/// The low-level files that may hold unsafe code.
const UNSAFE_FILES: [&str; 7] = [
    "benches/tests/counters/allocations.rs",
    "cli/src/demo/capture.rs",
    "cli/src/demo/netns.rs",
    "proxy/src/dispatcher/future_slab.rs",
    "proxy/src/memory.rs",
    "proxy/src/socket.rs",
    "proxy/src/dispatcher/timer/timer_fd.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Every Rust file of the workspace's crates, by its path from the top.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    for part in [
        "xds-proto",
        "persistent",
        "http2-frames",
        "proxy",
        "control-plane",
        "cli",
        "benches",
        "tests",
    ] {
        walk(&root.join(part), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

/// A file without its tests: each item under `#[cfg(test)]` is blank, lines keep their numbers.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            code.push('\n');
            continue;
        }
        // rustfmt closes an item at the indentation it opened.
        let indent = &line[..line.len() - line.trim_start().len()];
        let closing = format!("{indent}}}");
        code.push('\n');
        for line in lines.by_ref() {
            code.push('\n');
            let ends = line.ends_with(';') || line.ends_with("{}") || *line == closing;
            if ends && line.starts_with(indent) && !line[indent.len()..].starts_with(' ') {
                break;
            }
        }
    }
    code
}

/// Lines up to the last that is not blank.
fn length(code: &str) -> usize {
    code.trim_end().lines().count()
}

fn report(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources()
        .iter()
        .map(|(name, text)| (length(&code(text)), name))
        .filter(|(lines, _)| *lines > MAX_FILE)
        .map(|(lines, name)| format!("{name}: {lines}"))
        .collect();
    report("split these by meaning, not by length", &long);
}

/// The lines that a destructuring pattern takes do not count: one line a field is how the
/// configuration compiler sees new fields.
fn function_length(lines: &[&str]) -> usize {
    let mut counted = 0;
    let mut pattern = false;
    for line in lines {
        let trimmed = line.trim();
        if trimmed.starts_with("let ") && trimmed.ends_with('{') && !trimmed.contains('=') {
            pattern = true;
        }
        if !pattern {
            counted += 1;
        }
        if pattern && trimmed.starts_with('}') {
            pattern = false;
        }
    }
    counted
}

#[test]
fn functions_stay_short() {
    let mut long = Vec::new();
    for (name, text) in sources() {
        let code = code(&text);
        let lines: Vec<_> = code.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_function = head.starts_with("fn ")
                || (head.starts_with("pub")
                    || head.starts_with("async")
                    || head.starts_with("const"))
                    && head.contains(" fn ");
            // A trait's method without a body has nothing to measure.
            let mut signature = lines[start..].iter().map(|line| line.trim_end());
            let end = signature.find(|line| line.ends_with([';', '{', '}']));
            if !is_function || end.is_some_and(|line| line.ends_with(';')) {
                continue;
            }
            // rustfmt closes a function at the indentation it opened.
            let close = format!("{}}}", " ".repeat(indent));
            let Some(length) = lines[start..].iter().position(|l| **l == close) else {
                continue;
            };
            if function_length(&lines[start..=start + length]) > MAX_FUNCTION {
                long.push(format!("{name}:{}: {}", start + 1, head));
            }
        }
    }
    report("more than 80 lines", &long);
}

#[test]
fn unsafe_code_stands_only_where_it_is_expected() {
    let marker = concat!("allow(unsafe", "_code)");
    let found: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| text.contains(marker))
        .map(|(name, _)| name)
        .collect();
    let listed = |name: &String| UNSAFE_FILES.contains(&name.as_str());
    let outside: Vec<_> = found.iter().filter(|name| !listed(name)).cloned().collect();
    report("unsafe code outside the list in this test", &outside);
    let stale = UNSAFE_FILES.iter().map(|name| (*name).to_owned());
    let stale: Vec<_> = stale.filter(|name| !found.contains(name)).collect();
    report("listed in this test, without unsafe code", &stale);
}

/// Uses of `needle` in the code of files under `folders`.
fn uses(folders: &[&str], needles: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources() {
        if !folders.iter().any(|folder| name.starts_with(folder)) || name.contains("/tests") {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            let line = line.split("//").next().unwrap();
            if needles.iter().any(|needle| line.contains(needle)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

const DATA_PATH: [&str; 5] = [
    "proxy/src/tcp",
    "proxy/src/hbone",
    "proxy/src/relay",
    "proxy/src/http/",
    "proxy/src/listener",
];

#[test]
fn the_data_path_sees_neither_xds_nor_protobufs() {
    let found = uses(
        &DATA_PATH,
        &["crate::xds", "xds_proto", "prost::", "envoy_types"],
    );
    report(
        "tcp, http and listener read config, never xds or protobufs",
        &found,
    );
}

#[test]
fn only_compile_and_xds_see_protobufs_of_resources() {
    let folders = [
        "proxy/src/dispatcher",
        "proxy/src/policy",
        "proxy/src/stream",
        "proxy/src/tls",
        "proxy/src/upstream",
        "proxy/src/worker",
    ];
    report(
        "protobufs end at config/compile",
        &uses(&folders, &["xds_proto::envoy", "envoy_types"]),
    );
}

#[test]
fn the_data_path_uses_neither_hyper_nor_tokio_rustls() {
    let found = uses(&DATA_PATH, &["hyper::", "hyper_util", "tokio_rustls"]);
    report("forwarding is our own work", &found);
}

/// A worker's runtime has no timers: this would panic there.
#[test]
fn workers_take_time_from_their_own_wheel() {
    let on_workers = [
        "proxy/src/app/workers",
        "proxy/src/http/",
        "proxy/src/listener",
        "proxy/src/relay",
        "proxy/src/stream",
        "proxy/src/tcp",
        "proxy/src/telemetry",
        "proxy/src/dispatcher",
        "proxy/src/hbone",
        "proxy/src/tls",
        "proxy/src/upstream/connect",
        "proxy/src/worker",
    ];
    report(
        "workers have `Timers`, not `tokio::time`",
        &uses(&on_workers, &["tokio::time"]),
    );
}

#[test]
fn the_proxy_shares_nothing_but_xds_proto_and_maps() {
    let manifest = fs::read_to_string(root().join("proxy/Cargo.toml")).unwrap();
    for other in ["anyam-control", "anyam-tests", "anyam ="] {
        assert!(
            !manifest.contains(other),
            "proxy/Cargo.toml depends on {other}"
        );
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for part in [
        "xds-proto",
        "persistent",
        "http2-frames",
        "proxy",
        "control-plane",
        "cli",
        "benches",
        "tests",
        "tests/kube",
    ] {
        let manifest = fs::read_to_string(root().join(part).join("Cargo.toml")).unwrap();
        let mut dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                dependencies = line.contains("dependencies");
            } else if dependencies && line.contains('=') {
                assert!(
                    line.contains(" # "),
                    "{part}/Cargo.toml: no reason given: {line}"
                );
            }
        }
    }
}

/// The modules, and files of other modules, that see what peers send; a module's rule holds for all its
/// files.
const DECODERS: [&str; 36] = [
    "http2-frames/src/lib.rs",
    "control-plane/src/ads/mod.rs",
    "control-plane/src/api/mod.rs",
    "control-plane/src/ca/mod.rs",
    "control-plane/src/inject/mod.rs",
    "control-plane/src/inspect/mod.rs",
    "control-plane/src/kubernetes/mod.rs",
    "proxy/src/admin/mod.rs",
    "proxy/src/connection_limit.rs",
    "proxy/src/dispatcher/mod.rs",
    "proxy/src/dns/mod.rs",
    "proxy/src/hbone/mod.rs",
    "proxy/src/health/mod.rs",
    "proxy/src/http/mod.rs",
    "proxy/src/identity/mod.rs",
    "proxy/src/inspect/mod.rs",
    "proxy/src/jwks.rs",
    "proxy/src/jwt/mod.rs",
    "proxy/src/lifecycle.rs",
    "proxy/src/listener/mod.rs",
    "proxy/src/matcher.rs",
    "proxy/src/message/mod.rs",
    "proxy/src/metrics/mod.rs",
    "proxy/src/overload.rs",
    "proxy/src/policy/mod.rs",
    "proxy/src/probe/mod.rs",
    "proxy/src/relay/mod.rs",
    "proxy/src/socket.rs",
    "proxy/src/stream/mod.rs",
    "proxy/src/tcp/mod.rs",
    "proxy/src/telemetry/mod.rs",
    "proxy/src/tls/mod.rs",
    "proxy/src/upstream/mod.rs",
    "proxy/src/xds/mod.rs",
    "xds-proto/src/json/mod.rs",
    "xds-proto/src/wire.rs",
];

#[test]
fn decoders_cannot_panic_and_a_panic_is_survived() {
    let root = root();
    let lax: Vec<_> = DECODERS
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(root.join(file)).unwrap();
            let lints = ["arithmetic_side_effects", "indexing_slicing", "unwrap_used"];
            !lints
                .iter()
                .all(|lint| text.contains(&format!("clippy::{lint}")))
        })
        .map(|file| (*file).to_owned())
        .collect();
    report("these must deny what can panic", &lax);
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("panic = \"abort\""),
        "release builds unwind"
    );
}
