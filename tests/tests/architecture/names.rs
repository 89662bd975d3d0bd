//! One name, one meaning: no two types of a crate are called the same.
//!
//! Read from the source by `syn`; code under `#[cfg(test)]` does not count.

use std::collections::BTreeMap;

use super::cycles::is_test;

const CRATES: [&str; 7] = [
    "benches",
    "cli",
    "control-plane",
    "http2-frames",
    "persistent",
    "proxy",
    "xds-proto",
];

/// Types of the API that are views of the model's types and have their names, in JSON and on the
/// command line too.
const IN_THE_API: [&str; 4] = ["Condition", "FileError", "Object", "Objects"];
const API: &str = "control-plane/src/types.rs";

/// Names that private types of several modules may have: what they mean there, the module says.
const GENERIC: [&str; 3] = ["Connection", "Inner", "State"];

/// Types of a file, those of its inline modules included.
fn types(items: &[syn::Item], found: &mut Vec<String>) {
    for item in items {
        let (attributes, visibility, name) = match item {
            syn::Item::Struct(it) => (&it.attrs, &it.vis, &it.ident),
            syn::Item::Enum(it) => (&it.attrs, &it.vis, &it.ident),
            syn::Item::Union(it) => (&it.attrs, &it.vis, &it.ident),
            syn::Item::Trait(it) => (&it.attrs, &it.vis, &it.ident),
            syn::Item::Type(it) => (&it.attrs, &it.vis, &it.ident),
            syn::Item::Mod(it) => {
                if let Some((_, items)) = &it.content
                    && !is_test(&it.attrs)
                {
                    types(items, found);
                }
                continue;
            }
            _ => continue,
        };
        let name = name.to_string();
        let may_repeat =
            matches!(visibility, syn::Visibility::Inherited) && GENERIC.contains(&name.as_str());
        if !may_repeat && !is_test(attributes) {
            found.push(name);
        }
    }
}

#[test]
fn no_two_types_of_a_crate_have_one_name() {
    let mut by_name: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (file, text) in super::sources() {
        let within = |name: &&&str| {
            let source = file
                .strip_prefix(**name)
                .and_then(|rest| rest.strip_prefix("/src/"));
            source.is_some_and(|rest| !rest.contains("tests") && !rest.starts_with("bin/"))
        };
        let Some(name) = CRATES.iter().find(within) else {
            continue;
        };
        let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut found = Vec::new();
        types(&parsed.items, &mut found);
        for one in found {
            if file != API || !IN_THE_API.contains(&one.as_str()) {
                by_name.entry((name, one)).or_default().push(file.clone());
            }
        }
    }
    assert!(by_name.len() > 1000, "only {} types", by_name.len());
    let twice: Vec<_> = by_name
        .iter()
        .filter(|(_, files)| files.len() > 1)
        .map(|((_, name), files)| format!("{name}: {}", files.join(", ")))
        .collect();
    super::report("one name for several types of a crate", &twice);
}
