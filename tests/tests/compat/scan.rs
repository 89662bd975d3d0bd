//! Reads the compiler's source: which messages it takes apart, and what it does with each field.
//!
//! A field that a pattern binds is supported, unless `unsupported!` or `ignored!` names it after
//! that. A case of a oneof is what its arm does: one that only fails rejects the case.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use syn::visit::{self, Visit};
use syn::{Expr, Pat, Stmt, UseTree};

use super::names;

/// The reason where the source gives none of its own.
pub const UNSUPPORTED: &str = "is not supported by this proxy";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Supported,
    Rejected(String),
    Ignored(String),
}

/// What was found, over all files.
#[derive(Default)]
pub struct Scan {
    /// Messages that are taken apart, by full name.
    pub messages: BTreeSet<String>,
    /// Messages that some type names: what is handed round, by full name.
    pub named: BTreeSet<String>,
    /// Messages the schema lacks: an unknown field of theirs would not be found either.
    pub unknown: BTreeSet<String>,
    /// By message and plain field name.
    pub fields: HashMap<(String, String), Status>,
}

impl Scan {
    /// # Errors
    /// When the text is no Rust.
    pub fn file(&mut self, text: &str) -> syn::Result<()> {
        let file = syn::parse_file(text)?;
        let mut visitor = Visitor {
            scan: self,
            scopes: Vec::new(),
            bound: HashMap::new(),
            own: HashMap::new(),
            in_tests: 0,
        };
        visitor.visit_file(&file);
        Ok(())
    }

    /// What is done somewhere is done: support outweighs rejection in another place.
    fn note(&mut self, key: (String, String), status: Status) {
        match self.fields.get(&key) {
            Some(Status::Supported) => {}
            _ => {
                self.fields.insert(key, status);
            }
        }
    }
}

/// The `use`s and type aliases of one scope, a module or a block: what a name stands for there.
#[derive(Default)]
struct Uses(HashMap<String, Vec<String>>);

impl Uses {
    fn tree(&mut self, tree: &UseTree, path: &mut Vec<String>) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                self.tree(&inner.tree, path);
                path.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = path.last() {
                    self.0.insert(last.clone(), path.clone());
                }
            }
            UseTree::Name(name) => self.add(&name.ident.to_string(), &name.ident, path),
            UseTree::Rename(name) => self.add(&name.rename.to_string(), &name.ident, path),
            UseTree::Group(group) => {
                for inner in &group.items {
                    self.tree(inner, path);
                }
            }
            UseTree::Glob(_) => {}
        }
    }

    fn add(&mut self, name: &str, ident: &syn::Ident, path: &[String]) {
        let mut full = path.to_vec();
        if ident != "self" {
            full.push(ident.to_string());
        }
        self.0.insert(name.to_owned(), full);
    }

    fn item(&mut self, item: &syn::Item) {
        match item {
            syn::Item::Use(item) => self.tree(&item.tree, &mut Vec::new()),
            syn::Item::Type(item) => {
                if let syn::Type::Path(path) = &*item.ty {
                    let path = path.path.segments.iter().map(|s| s.ident.to_string());
                    self.0.insert(item.ident.to_string(), path.collect());
                }
            }
            _ => {}
        }
    }

    fn of<'a>(items: impl IntoIterator<Item = &'a syn::Item>) -> Self {
        let mut uses = Uses::default();
        for item in items {
            uses.item(item);
        }
        uses
    }
}

struct Visitor<'a> {
    scan: &'a mut Scan,
    /// The innermost last. Two functions of a file may give one name to different things.
    scopes: Vec<Uses>,
    /// Which field a variable of the function holds.
    bound: HashMap<String, (String, String)>,
    /// What the function does with the fields that it takes out.
    own: HashMap<(String, String), Status>,
    in_tests: usize,
}

impl Visitor<'_> {
    /// The path with its first name replaced by what it stands for, as often as it takes.
    fn resolve(&self, path: &syn::Path) -> Vec<String> {
        let mut full: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        for _ in 0..4 {
            let mut scopes = self.scopes.iter().rev();
            let known = full
                .first()
                .and_then(|first| scopes.find_map(|uses| uses.0.get(first)));
            match known {
                Some(known) if full[0] != "xds_proto" => {
                    full.splice(0..1, known.iter().cloned());
                }
                _ => break,
            }
        }
        full
    }

    /// `unsupported!(at, field, …)` and `ignored!("reason", field, …)`.
    fn verdict(&mut self, tokens: &syn::Macro) {
        let Some(name) = tokens.path.segments.last() else {
            return;
        };
        let name = name.ident.to_string();
        if name != "unsupported" && name != "ignored" {
            return;
        }
        let list = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
        let Ok(list) = tokens.parse_body_with(list) else {
            return;
        };
        let status = match list.first() {
            Some(Expr::Lit(reason)) => match &reason.lit {
                // Another file takes it up.
                syn::Lit::Str(reason) if reason.value().starts_with("read by ") => {
                    Status::Supported
                }
                syn::Lit::Str(reason) => Status::Ignored(reason.value()),
                _ => return,
            },
            _ => Status::Rejected(UNSUPPORTED.to_owned()),
        };
        for field in list.iter().skip(1) {
            let Expr::Path(field) = field else { continue };
            let Some(ident) = field.path.get_ident() else {
                continue;
            };
            if let Some((message, field)) = self.bound.get(&ident.to_string()) {
                self.settle(message.clone(), field.clone(), status.clone());
            }
        }
    }

    /// A field as such, or all cases of a oneof.
    fn settle(&mut self, message: String, field: String, status: Status) {
        let cases = self.cases(&message, &field);
        for case in cases {
            self.own.insert((message.clone(), case), status.clone());
        }
        self.own.insert((message, field), status);
    }

    fn function(&mut self, visit: impl FnOnce(&mut Self)) {
        self.bound.clear();
        visit(self);
        for (key, status) in std::mem::take(&mut self.own) {
            self.scan.note(key, status);
        }
    }

    /// The cases of the oneof that `field` is, if it is no field itself: prost has one field for
    /// all of them, with the oneof's name. Of several oneofs it is the one whose cases begin so;
    /// where none does, only the arms of the compiler show.
    fn cases(&self, message: &str, field: &str) -> Vec<String> {
        let Some(message) = xds_proto::schema::message(message) else {
            return Vec::new();
        };
        let is_field = message
            .fields()
            .any(|known| names::plain(known.name()) == *field);
        if is_field {
            return Vec::new();
        }
        let mut oneofs: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for known in message.fields() {
            if let Some(oneof) = known.oneof() {
                let cases = oneofs.entry(oneof).or_default();
                cases.push(names::plain(known.name()));
            }
        }
        if oneofs.len() > 1 {
            oneofs.retain(|_, cases| cases.iter().any(|case| case.starts_with(field)));
        }
        oneofs.into_values().flatten().collect()
    }

    fn mention(&mut self, path: &syn::Path, status: Status) {
        if let Some((message, field)) = names::case(&self.resolve(path)) {
            let key = (message.name().to_owned(), names::plain(field.name()));
            self.scan.note(key, status);
        }
    }

    fn mention_all(&mut self, pattern: &Pat, status: &Status) {
        match pattern {
            Pat::Or(or) => {
                for case in &or.cases {
                    self.mention_all(case, status);
                }
            }
            Pat::Paren(inner) => self.mention_all(&inner.pat, status),
            Pat::Reference(inner) => self.mention_all(&inner.pat, status),
            Pat::Tuple(tuple) => {
                for element in &tuple.elems {
                    self.mention_all(element, status);
                }
            }
            Pat::TupleStruct(inner) => {
                self.mention(&inner.path, status.clone());
                for element in &inner.elems {
                    self.mention_all(element, status);
                }
            }
            Pat::Path(inner) => self.mention(&inner.path, status.clone()),
            _ => {}
        }
    }
}

/// The reason, when an arm does nothing but fail.
fn failure(body: &Expr) -> Option<String> {
    match body {
        Expr::Return(inner) => failure(inner.expr.as_deref()?),
        Expr::Block(block) => match block.block.stmts.last()? {
            Stmt::Expr(last, _) => failure(last),
            _ => None,
        },
        Expr::Call(call) => match &*call.func {
            Expr::Path(function) => {
                let name = function.path.segments.last()?.ident.to_string();
                let fails = ["not_supported", "unknown_type", "Err"].contains(&name.as_str());
                fails.then(|| UNSUPPORTED.to_owned())
            }
            _ => None,
        },
        Expr::MethodCall(call) if call.method == "fail" => {
            let why = match call.args.first() {
                Some(Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(why),
                    ..
                })) => why.value(),
                _ => UNSUPPORTED.to_owned(),
            };
            Some(why)
        }
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_file(&mut self, file: &'ast syn::File) {
        self.scopes.push(Uses::of(&file.items));
        visit::visit_file(self, file);
        self.scopes.pop();
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.scopes
            .push(Uses::of(block.stmts.iter().filter_map(|stmt| match stmt {
                Stmt::Item(item) => Some(item),
                _ => None,
            })));
        visit::visit_block(self, block);
        self.scopes.pop();
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let tests = item.ident == "tests";
        self.in_tests += usize::from(tests);
        if self.in_tests == 0 {
            let items = item.content.iter().flat_map(|(_, items)| items);
            self.scopes.push(Uses::of(items));
            visit::visit_item_mod(self, item);
            self.scopes.pop();
        }
        self.in_tests -= usize::from(tests);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(|visitor| visit::visit_item_fn(visitor, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(|visitor| visit::visit_impl_item_fn(visitor, item));
    }

    fn visit_type_path(&mut self, path: &'ast syn::TypePath) {
        if let Some(message) = names::message(&self.resolve(&path.path)) {
            self.scan.named.insert(message.name().to_owned());
        }
        visit::visit_type_path(self, path);
    }

    fn visit_pat_struct(&mut self, pattern: &'ast syn::PatStruct) {
        let path = self.resolve(&pattern.path);
        let message = names::message(&path);
        if message.is_none() && path.first().is_some_and(|first| first == "xds_proto") {
            self.scan.unknown.insert(path.join("::"));
        }
        if let Some(message) = message {
            self.scan.messages.insert(message.name().to_owned());
            for field in &pattern.fields {
                let syn::Member::Named(member) = &field.member else {
                    continue;
                };
                let key = (message.name().to_owned(), names::plain(&member.to_string()));
                self.own.entry(key.clone()).or_insert(Status::Supported);
                if let Pat::Ident(variable) = &*field.pat {
                    self.bound.insert(variable.ident.to_string(), key);
                }
            }
        }
        visit::visit_pat_struct(self, pattern);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        match failure(&arm.body) {
            // With a guard it fails for some values only.
            Some(why) if arm.guard.is_none() => {
                self.mention_all(&arm.pat, &Status::Rejected(why));
            }
            Some(_) => {}
            None => self.mention_all(&arm.pat, &Status::Supported),
        }
        visit::visit_arm(self, arm);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.mention_all(&local.pat, &Status::Supported);
        visit::visit_local(self, local);
    }

    fn visit_expr_let(&mut self, condition: &'ast syn::ExprLet) {
        self.mention_all(&condition.pat, &Status::Supported);
        visit::visit_expr_let(self, condition);
    }

    fn visit_macro(&mut self, tokens: &'ast syn::Macro) {
        self.verdict(tokens);
    }
}
