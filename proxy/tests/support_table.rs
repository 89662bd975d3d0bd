//! The table of what the configuration compiler does with every field, made from its own sources:
//! a message is destructured whole there, and each field is refused, without effect for a stated
//! reason, or supported. `ANYAM_WRITE_DOCS=1` writes the page; without it the page is compared.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Field → what is done with it, by message.
type Table = BTreeMap<String, BTreeMap<String, String>>;

fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/compile");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("support.rs"))
        .collect();
    files.sort();
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]").next().unwrap().to_owned();
        (name, code)
    };
    files.into_iter().map(read).collect()
}

/// What a name stands for: `use xds_proto::a::b as c;`, `…::{d, e::f as g};`.
fn aliases(code: &str) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for statement in code.split("use xds_proto::").skip(1) {
        let statement = statement.split(';').next().unwrap();
        let (prefix, list) = match statement.split_once('{') {
            Some((prefix, list)) => (prefix, list.trim_end().trim_end_matches('}')),
            None => ("", statement),
        };
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (path, alias) = match item.split_once(" as ") {
                Some((path, alias)) => (path, alias),
                None => (item, item.rsplit("::").next().unwrap()),
            };
            let path = format!("{prefix}{path}").replace("r#", "");
            known.insert(alias.to_owned(), path);
        }
    }
    // Aliases of aliases: `use policies::common::v3::LocalityLbConfig;`.
    for line in code.lines().filter_map(|line| line.strip_prefix("use ")) {
        let path = line.trim_end_matches(';');
        let (Some((first, rest)), Some((_, last))) =
            (path.split_once("::"), path.rsplit_once("::"))
        else {
            continue;
        };
        if let Some(module) = known.get(first).cloned() {
            known.insert(last.to_owned(), format!("{module}::{rest}"));
        }
    }
    known
}

/// A message's name in full where its module is known by an alias.
fn full_name(path: &str, aliases: &BTreeMap<String, String>) -> String {
    let dotted = |path: &str| path.replace("::", ".");
    match path.split_once("::") {
        Some((first, rest)) => match aliases.get(first) {
            Some(module) => format!("{}.{}", dotted(module), dotted(rest)),
            None => dotted(path),
        },
        None => aliases
            .get(path)
            .map_or_else(|| path.to_owned(), |full| dotted(full)),
    }
}

fn scan(code: &str, table: &mut Table) {
    let aliases = aliases(code);
    // Messages destructured so far in this file, the latest last.
    let mut seen: Vec<(String, Vec<String>)> = Vec::new();
    let mut rest = code;
    while let Some((at, kind)) = next(rest) {
        rest = &rest[at..];
        let end = match kind {
            Kind::Pattern => {
                let Some((name, fields, end)) = pattern(rest) else {
                    rest = &rest[4..];
                    continue;
                };
                let name = full_name(&name, &aliases);
                // Types of our own are destructured too.
                if fields.is_empty() || !name.contains(".v1") && !name.contains(".v3") {
                    rest = &rest[end..];
                    continue;
                }
                let entry = table.entry(name.clone()).or_default();
                for field in &fields {
                    entry
                        .entry(field.clone())
                        .or_insert_with(|| "supported".into());
                }
                seen.push((name, fields));
                end
            }
            Kind::Unsupported | Kind::Ignored => {
                let end = rest.find(");").unwrap();
                let (what, fields) = judged(&rest[..end], kind);
                for field in fields {
                    let owner = seen
                        .iter()
                        .rev()
                        .find(|(_, fields)| fields.contains(&field));
                    let Some((message, _)) = owner else { continue };
                    let entry = table.get_mut(message).unwrap();
                    entry.insert(field, what.clone());
                }
                end
            }
        };
        rest = &rest[end..];
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Pattern,
    Unsupported,
    Ignored,
}

fn next(code: &str) -> Option<(usize, Kind)> {
    [
        ("let ", Kind::Pattern),
        ("unsupported!(", Kind::Unsupported),
        ("ignored!(", Kind::Ignored),
    ]
    .into_iter()
    .filter_map(|(text, kind)| Some((code.find(text)?, kind)))
    .min_by_key(|(at, _)| *at)
}

/// `let path::Message { a, b: c } = …` → its name, its fields, where the pattern ends.
fn pattern(code: &str) -> Option<(String, Vec<String>, usize)> {
    let open = code.find('{')?;
    let name = code["let ".len()..open].trim();
    let is_path = name
        .chars()
        .all(|c| c.is_alphanumeric() || "_:".contains(c));
    let last = name.rsplit("::").next()?;
    if !is_path || !last.starts_with(char::is_uppercase) {
        return None;
    }
    let close = open + code[open..].find('}')?;
    let body = &code[open + 1..close];
    if !code[close..]
        .trim_start_matches('}')
        .trim_start()
        .starts_with('=')
        || body.contains("..")
    {
        return None;
    }
    let field = |part: &str| part.split(':').next().unwrap().trim().replace("r#", "");
    let fields: Vec<_> = body
        .split(',')
        .map(field)
        .filter(|f| !f.is_empty())
        .collect();
    Some((name.to_owned(), fields, close))
}

fn judged(call: &str, kind: Kind) -> (String, Vec<String>) {
    let (what, list) = match kind {
        Kind::Ignored => {
            let mut parts = call.splitn(3, '"');
            parts.next();
            let reason = parts.next().unwrap_or_default();
            (
                format!("ignored: {reason}"),
                parts.next().unwrap_or_default(),
            )
        }
        _ => (
            "rejected".to_owned(),
            call.split_once(',').map_or("", |(_, list)| list),
        ),
    };
    let fields = list
        .split(',')
        .map(|f| f.trim().to_owned())
        .filter(|f| !f.is_empty());
    (what, fields.collect())
}

fn page(table: &Table) -> String {
    let mut page = String::from(
        "# What the proxy does with each field of its configuration\n\n\
         Made from the configuration compiler's sources; do not edit. A field marked *rejected* is \
         refused with its full path when it is set; the last good version of the resource serves on. \
         A supported field may refuse some of its values, again by path.\n",
    );
    for (message, fields) in table {
        write!(page, "\n## {message}\n\n| Field | |\n|---|---|\n").unwrap();
        for (field, what) in fields {
            writeln!(page, "| `{field}` | {what} |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_is_what_the_sources_say() {
    let mut table = Table::new();
    for (_, code) in sources() {
        scan(&code, &mut table);
    }
    let cluster = &table["envoy.config.cluster.v3.Cluster"];
    assert_eq!(cluster["health_checks"], "rejected");
    assert_eq!(cluster["name"], "supported");
    assert!(cluster["alt_stat_name"].starts_with("ignored: "));
    assert!(table.len() > 60, "{}", table.len());

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/xds-support.md");
    let page = page(&table);
    if std::env::var_os("ANYAM_WRITE_DOCS").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/xds-support.md is out of date: run `ANYAM_WRITE_DOCS=1 cargo test -p anyam-proxy --test support_table`"
    );
}
