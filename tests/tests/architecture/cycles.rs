//! Top-level modules of a crate depend on each other in one direction only.
//!
//! Paths are read from the source by `syn`; code under `#[cfg(test)]` does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::{self, Visit};

/// Modules inside a top-level module that count as areas of their own: they use what the rest of
/// that module is used by.
const OWN_AREAS: [&str; 1] = ["config/compile"];

/// For each pair of areas (top-level modules), where the first names the second.
type Dependencies = BTreeMap<(String, String), BTreeSet<String>>;

struct Paths<'a> {
    /// The module that is read, from the crate's root.
    module: Vec<String>,
    file: &'a str,
    /// Top-level modules of the crate.
    tops: &'a BTreeSet<String>,
    dependencies: &'a mut Dependencies,
}

impl Paths<'_> {
    /// `path`: as it is written.
    fn see(&mut self, path: &[String]) {
        let mut absolute = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super" | "self") => self.module.clone(),
            _ => return,
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(absolute.pop()),
                name => absolute.push(name.to_owned()),
            }
        }
        if !absolute.first().is_some_and(|top| self.tops.contains(top)) {
            return;
        }
        let (from, to) = (area(&self.module), area(&absolute));
        if from != to {
            let place = format!("{}: {}", self.file, absolute.join("::"));
            self.dependencies
                .entry((from, to))
                .or_default()
                .insert(place);
        }
    }

    fn tree(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
            syn::UseTree::Name(name) => self.leaf(before, name.ident.to_string()),
            syn::UseTree::Rename(name) => self.leaf(before, name.ident.to_string()),
            syn::UseTree::Glob(_) => self.see(&before.clone()),
        }
    }

    fn leaf(&mut self, before: &[String], name: String) {
        let mut path = before.to_vec();
        path.push(name);
        self.see(&path);
    }
}

/// The area of a module; the root has none.
fn area(module: &[String]) -> String {
    let two = module.iter().take(2).cloned().collect::<Vec<_>>().join("/");
    match OWN_AREAS.contains(&two.as_str()) {
        true => two,
        false => module.first().cloned().unwrap_or_default(),
    }
}

pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(attribute.parse_args::<syn::Path>(), Ok(path) if path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&mut Vec::new(), &item.tree);
    }

    /// `pub(in path)` and the like use nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.see(&segments);
        visit::visit_path(self, path);
    }
}

/// `src/a/b.rs`, `src/a/b/mod.rs` → `["a", "b"]`.
fn module(path: &Path) -> Vec<String> {
    let mut parts: Vec<_> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

fn dependencies(source: &str) -> Dependencies {
    let files: Vec<_> = super::sources()
        .into_iter()
        .filter_map(|(name, text)| {
            let path = module(Path::new(name.strip_prefix(source)?));
            let is_code = !matches!(path[0].as_str(), "lib" | "main" | "tests")
                && !path.iter().any(|part| part.contains("tests"));
            is_code.then_some((name, path, text))
        })
        .collect();
    let tops: BTreeSet<_> = files.iter().map(|(_, path, _)| path[0].clone()).collect();
    let mut dependencies = Dependencies::new();
    for (file, path, text) in &files {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut paths = Paths {
            module: path.clone(),
            file,
            tops: &tops,
            dependencies: &mut dependencies,
        };
        paths.visit_file(&parsed);
    }
    dependencies
}

/// Areas that `from` depends on, directly or not.
fn reachable(dependencies: &Dependencies, from: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(area) = open.pop() {
        for (_, to) in dependencies.keys().filter(|(from, _)| *from == area) {
            if found.insert(to.clone()) {
                open.push(to.clone());
            }
        }
    }
    found
}

fn no_cycle_in(source: &str) {
    let dependencies = dependencies(source);
    assert!(
        !dependencies.is_empty(),
        "{source} has no dependency between its areas"
    );
    let cycles: Vec<_> = dependencies
        .iter()
        .filter(|((from, to), _)| reachable(&dependencies, to).contains(from))
        .map(|((from, to), places)| {
            let places: Vec<_> = places.iter().take(8).cloned().collect();
            format!("{from} -> {to}\n    {}", places.join("\n    "))
        })
        .collect();
    super::report("areas that depend on each other in a cycle", &cycles);
}

#[test]
fn no_dependency_cycle_in_the_proxy() {
    no_cycle_in("proxy/src/");
}

#[test]
fn no_dependency_cycle_in_the_control_plane() {
    no_cycle_in("control-plane/src/");
}
