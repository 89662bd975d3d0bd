//! What ADS needs from the translation: resources by name within the scope of one node.
//!
//! `Resources` publishes immutable [`View`]s. A stream takes one view per push, so that the
//! clusters, endpoints, listeners and routes it sends belong together, and gets from it what was
//! touched since the view before: a change then costs what it touches, not proxies × mesh.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use xds_proto::type_url;

use crate::model::Key;

/// The types of which views have resources.
pub const TYPES: [&str; 7] = [
    type_url::SECRET,
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
    type_url::WORKLOAD,
    type_url::NAME,
];

/// One resource, encoded once; every proxy that holds it shares these bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// A hash of the content: equal versions mean equal bytes.
    pub version: Arc<str>,
    /// The encoded message: the `value` of the `Any` on the wire.
    pub body: Bytes,
}

/// What decides which resources a node sees and in which form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub namespace: String,
    pub workload: String,
    pub service_account: String,
    pub trust_domain: String,
    /// Our own proxy: secrets come by CSR, and it subscribes to what it needs by name.
    pub anyam: bool,
    /// A proxy whose certificates are files: translation points at them.
    pub tls_files: Option<TlsFiles>,
    pub ports: Ports,
}

/// Where a sidecar takes what netfilter redirects to it: node metadata `OUTBOUND_PORT` and
/// `INBOUND_PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    pub outbound: u16,
    pub inbound: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            outbound: 15001,
            inbound: 15006,
        }
    }
}

/// Node metadata `TLS_CERT_CHAIN`, `TLS_KEY` and `TLS_ROOT_CERT` of a proxy that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    pub certificate_chain: String,
    pub private_key: String,
    pub root_certificate: String,
}

/// Where views come from.
pub trait Resources: Send + Sync + 'static {
    /// The newest view.
    fn view(&self) -> Arc<dyn View>;

    /// The generation of the newest view, published after [`Resources::view`] returns that view.
    fn generations(&self) -> watch::Receiver<u64>;
}

/// An immutable state of everything that can be served.
pub trait View: Send + Sync {
    /// Grows with every change.
    fn generation(&self) -> u64;

    /// `None`: no such resource, or not one this scope may see.
    fn get(&self, type_url: &str, name: &str, scope: &Scope) -> Option<Resource>;

    /// Everything of a type in scope, for clients that subscribe to all. Each name once.
    fn list(&self, type_url: &str, scope: &Scope) -> Vec<Resource>;

    /// The address that the name of a resource stands for, if it does. Undeclared ports are
    /// resources as soon as a client subscribes to them, so a change lists their address, and not
    /// their names.
    fn address(&self, type_url: &str, name: &str) -> Option<IpAddr>;

    /// The number and size of the names of all types: what a client may hold that subscribes to
    /// everything.
    fn extent(&self) -> Extent;

    /// What may differ between an older generation and this one.
    fn touched_since(&self, generation: u64) -> Touched;

    /// The service account of a declared workload: what its credential is checked against.
    /// `None`: no such workload is declared.
    fn service_account(&self, namespace: &str, workload: &str) -> Option<String>;
}

/// How much there is in a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub resources: usize,
    /// Bytes of their names together.
    pub name_bytes: usize,
}

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Touched {
    /// Anything: too much changed, or too long ago to be kept.
    #[default]
    All,
    Some(Marks),
}

/// Names that may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// For every client that subscribes to them.
    pub names: Names,
    /// Everything that clients subscribe to by an address ([`View::address`]).
    pub addresses: HashSet<IpAddr>,
    /// For the proxies of single workloads.
    pub nodes: HashMap<Key, NodeMarks>,
}

/// What may have changed for the proxy of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeMarks {
    All,
    Names(Names),
}

/// Names by type URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(pub HashMap<String, HashSet<Arc<str>>>);

impl Names {
    pub fn add(&mut self, type_url: &str, name: impl AsRef<str>) {
        self.add_all(type_url, [name]);
    }

    pub fn add_all(&mut self, type_url: &str, names: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut names = names.into_iter().peekable();
        if names.peek().is_none() {
            return;
        }
        if !self.0.contains_key(type_url) {
            self.0.insert(type_url.to_owned(), HashSet::new());
        }
        if let Some(known) = self.0.get_mut(type_url) {
            known.extend(names.map(|name| Arc::from(name.as_ref())));
        }
    }

    pub fn of(&self, type_url: &str) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(type_url).into_iter().flatten()
    }

    pub fn contains(&self, type_url: &str, name: &str) -> bool {
        self.0
            .get(type_url)
            .is_some_and(|names| names.contains(name))
    }

    fn merge(&mut self, other: &Names) {
        for (type_url, names) in &other.0 {
            let mine = self.0.entry(type_url.clone()).or_default();
            mine.extend(names.iter().cloned());
        }
    }
}

impl Default for NodeMarks {
    fn default() -> Self {
        NodeMarks::Names(Names::default())
    }
}

impl NodeMarks {
    pub fn add(&mut self, type_url: &str, name: impl AsRef<str>) {
        if let NodeMarks::Names(names) = self {
            names.add(type_url, name);
        }
    }

    fn merge(&mut self, other: &NodeMarks) {
        match (&mut *self, other) {
            (NodeMarks::All, _) => {}
            (_, NodeMarks::All) => *self = NodeMarks::All,
            (NodeMarks::Names(mine), NodeMarks::Names(theirs)) => mine.merge(theirs),
        }
    }
}

impl Touched {
    pub fn nothing() -> Self {
        Touched::Some(Marks::default())
    }

    pub fn merge(&mut self, other: &Touched) {
        match (&mut *self, other) {
            (Touched::All, _) => {}
            (_, Touched::All) => *self = Touched::All,
            (Touched::Some(mine), Touched::Some(theirs)) => {
                mine.names.merge(&theirs.names);
                mine.addresses.extend(&theirs.addresses);
                for (node, marks) in &theirs.nodes {
                    mine.nodes.entry(node.clone()).or_default().merge(marks);
                }
            }
        }
    }
}

/// Records what the last changes touched; for implementors of [`View`].
#[derive(Clone, Debug)]
pub struct History {
    /// Generation and what it touched, oldest first.
    changes: VecDeque<(u64, Arc<Touched>)>,
    capacity: usize,
    /// Changes of generations up to here are no longer kept.
    forgotten: u64,
}

impl History {
    /// Keeps the last `capacity` changes; a stream that is further behind compares everything.
    pub fn new(capacity: usize) -> Self {
        History {
            changes: VecDeque::new(),
            capacity,
            forgotten: 0,
        }
    }

    pub fn push(&mut self, generation: u64, touched: Touched) {
        self.changes.push_back((generation, Arc::new(touched)));
        while self.changes.len() > self.capacity {
            if let Some((gone, _)) = self.changes.pop_front() {
                self.forgotten = gone;
            }
        }
    }

    /// What was touched after `generation`.
    pub fn since(&self, generation: u64) -> Touched {
        if generation < self.forgotten {
            return Touched::All;
        }
        let mut all = Touched::nothing();
        for (_, touched) in self.changes.iter().filter(|(at, _)| *at > generation) {
            all.merge(touched);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(type_url: &str, names: &[&str]) -> Touched {
        let mut marks = Marks::default();
        marks.names.add_all(type_url, names);
        Touched::Some(marks)
    }

    #[test]
    fn history_tells_what_changed_and_admits_what_it_forgot() {
        let mut history = History::new(2);
        history.push(1, names("a", &["x"]));
        history.push(2, names("a", &["y"]));
        assert_eq!(history.since(0), names("a", &["x", "y"]));
        assert_eq!(history.since(1), names("a", &["y"]));
        assert_eq!(history.since(2), Touched::nothing());
        history.push(3, names("b", &["z"]));
        assert_eq!(history.since(0), Touched::All, "generation 1 was forgotten");
        let mut both = names("a", &["y"]);
        both.merge(&names("b", &["z"]));
        assert_eq!(history.since(1), both);
    }

    #[test]
    fn marks_of_nodes_and_addresses_are_merged() {
        let of = |node: &str, marks: NodeMarks, ip: [u8; 4]| {
            Touched::Some(Marks {
                addresses: HashSet::from([ip.into()]),
                nodes: HashMap::from([(Key::new("shop", node), marks)]),
                ..Marks::default()
            })
        };
        let mut some = NodeMarks::default();
        some.add("a", "x");
        let mut touched = of("web", some.clone(), [10, 0, 0, 1]);
        touched.merge(&of("web", NodeMarks::All, [10, 0, 0, 2]));
        touched.merge(&of("cart", some.clone(), [10, 0, 0, 2]));
        let Touched::Some(marks) = touched else {
            panic!("all")
        };
        assert_eq!(marks.addresses.len(), 2);
        assert_eq!(marks.nodes[&Key::new("shop", "web")], NodeMarks::All);
        assert_eq!(marks.nodes[&Key::new("shop", "cart")], some);
    }

    #[test]
    fn all_swallows_names() {
        let mut touched = names("a", &["x"]);
        touched.merge(&Touched::All);
        touched.merge(&names("a", &["y"]));
        assert_eq!(touched, Touched::All);
    }
}
