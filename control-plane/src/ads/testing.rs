//! A mesh in memory, for tests of sessions and of the server.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::watch;

use super::resources::{Extent, History, Marks, Resource, Resources, Scope, Touched, View};

type ByName = BTreeMap<(String, String), Resource>;

#[derive(Clone)]
pub(crate) struct MemoryView {
    generation: u64,
    resources: ByName,
    history: History,
    accounts: HashMap<(String, String), String>,
    forget: bool,
}

impl View for MemoryView {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, type_url: &str, name: &str, _: &Scope) -> Option<Resource> {
        let key = (type_url.to_owned(), name.to_owned());
        self.resources.get(&key).cloned()
    }

    fn list(&self, type_url: &str, _: &Scope) -> Vec<Resource> {
        let of_type = self.resources.iter().filter(|((of, _), _)| of == type_url);
        of_type.map(|(_, resource)| resource.clone()).collect()
    }

    /// Of names like `ip:10.0.0.1`.
    fn address(&self, _: &str, name: &str) -> Option<IpAddr> {
        name.strip_prefix("ip:")?.parse().ok()
    }

    fn extent(&self) -> Extent {
        Extent {
            resources: self.resources.len(),
            name_bytes: self.resources.keys().map(|(_, name)| name.len()).sum(),
        }
    }

    fn touched_since(&self, generation: u64) -> Touched {
        if self.forget {
            return Touched::All;
        }
        self.history.since(generation)
    }

    fn service_account(&self, namespace: &str, workload: &str) -> Option<String> {
        let key = (namespace.to_owned(), workload.to_owned());
        self.accounts.get(&key).cloned()
    }
}

pub(crate) struct Memory {
    view: Mutex<MemoryView>,
    generations: watch::Sender<u64>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let view = MemoryView {
            generation: 1,
            resources: BTreeMap::new(),
            history: History::new(64),
            accounts: HashMap::new(),
            forget: false,
        };
        Memory {
            view: Mutex::new(view),
            generations: watch::Sender::new(1),
        }
    }

    pub(crate) fn workload(self, namespace: &str, name: &str, account: &str) -> Self {
        let key = (namespace.to_owned(), name.to_owned());
        let mut view = self.view.lock().unwrap();
        view.accounts.insert(key, account.to_owned());
        drop(view);
        self
    }

    /// Reports every change as touching anything.
    pub(crate) fn forgetful(self) -> Self {
        self.view.lock().unwrap().forget = true;
        self
    }

    /// Sets one resource to a real message.
    pub(crate) fn set(&self, type_url: &str, name: &str, message: &impl prost::Message) {
        self.put(&[(type_url, name, Some(&message.encode_to_vec()))]);
    }

    /// Sets (`Some`) and removes (`None`) in one generation.
    pub(crate) fn change(&self, changes: &[(&str, &str, Option<&str>)]) {
        let mut encoded = Vec::new();
        for (type_url, name, content) in changes {
            encoded.push((*type_url, *name, content.map(str::as_bytes)));
        }
        self.put(&encoded);
    }

    fn put(&self, changes: &[(&str, &str, Option<&[u8]>)]) {
        let mut view = self.view.lock().unwrap();
        view.generation += 1;
        let mut touched = Marks::default();
        for (type_url, name, content) in changes {
            let key = (type_url.to_string(), name.to_string());
            touched.names.add(type_url, name);
            match content {
                None => view.resources.remove(&key),
                Some(content) => view.resources.insert(
                    key,
                    Resource {
                        name: (*name).into(),
                        version: version(content),
                        body: Bytes::copy_from_slice(content),
                    },
                ),
            };
        }
        let generation = view.generation;
        view.history.push(generation, Touched::Some(touched));
        drop(view);
        self.generations.send_replace(generation);
    }
}

impl Resources for Memory {
    fn view(&self) -> Arc<dyn View> {
        Arc::new(self.view.lock().unwrap().clone())
    }

    fn generations(&self) -> watch::Receiver<u64> {
        self.generations.subscribe()
    }
}

/// Readable where the content is short text.
fn version(content: &[u8]) -> Arc<str> {
    let start = String::from_utf8_lossy(&content[..content.len().min(8)]).into_owned();
    format!("v{}{start}", content.len()).into()
}
