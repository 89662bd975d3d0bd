//! States that ADS serves from.
//!
//! Each state is immutable. Resources are encoded when they are first asked for and kept; the next
//! state begins with all that no change touched.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use xds_proto::type_url;

use super::naming::{self, Outbound};
use super::resource::{self, Variant};
use super::touched::{Asked, touched};
use crate::ads::resources::{History, Resource, Resources, Scope, Touched, View};
use crate::model::Mesh;
use crate::model::mesh::builder::Builder;
use crate::model::mesh::change::{Change, Delta};
use crate::source::{FileError, Observed};

/// Changes told apart; a stream that is further behind compares everything.
const HISTORY: usize = 256;
/// Encoded resources kept; scopes multiply them, so there has to be an end.
const MAX_CACHED: usize = 400_000;
/// Addresses for which undeclared ports are remembered.
const MAX_ASKED: usize = 50_000;

type Cache = HashMap<(String, String, Variant), Resource>;

/// One state.
pub struct State {
    pub generation: u64,
    pub mesh: Arc<Mesh>,
    pub file_errors: Vec<FileError>,
    cache: RwLock<Cache>,
    history: History,
    asked: Arc<Mutex<Asked>>,
}

/// Takes what a source says and publishes states. One writer, any number of readers.
pub struct Translator {
    builder: Mutex<Builder>,
    current: RwLock<Arc<State>>,
    generations: watch::Sender<u64>,
}

impl Translator {
    /// With an empty mesh of generation 0.
    pub fn new(mut builder: Builder) -> Self {
        let (mesh, _) = builder.apply(Delta::default());
        let state = State {
            generation: 0,
            mesh,
            file_errors: Vec::new(),
            cache: RwLock::default(),
            history: History::new(HISTORY),
            asked: Arc::default(),
        };
        Translator {
            builder: Mutex::new(builder),
            current: RwLock::new(Arc::new(state)),
            generations: watch::Sender::new(0),
        }
    }

    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes what a source found and publishes the state that follows.
    pub fn apply(&self, observed: Observed) {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let (mesh, changes) = builder.apply(observed.delta);
        if let Err(error) = builder.save() {
            tracing::error!(%error, "allotted addresses cannot be kept over a restart");
        }
        let state = self.state();
        let errors = observed.errors.unwrap_or_else(|| state.file_errors.clone());
        self.publish(state.next(mesh, &changes, errors));
    }

    /// Time has passed: publishes a state without what was kept of earlier ones, if there is such.
    pub fn settle(&self) {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((mesh, changes)) = builder.settle() {
            let state = self.state();
            self.publish(state.next(mesh, &changes, state.file_errors.clone()));
        }
    }

    fn publish(&self, next: State) {
        let generation = next.generation;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.generations.send_replace(generation);
    }
}

impl Resources for Translator {
    fn view(&self) -> Arc<dyn View> {
        self.state()
    }

    fn generations(&self) -> watch::Receiver<u64> {
        self.generations.subscribe()
    }
}

impl State {
    fn next(&self, mesh: Arc<Mesh>, changes: &[Change], file_errors: Vec<FileError>) -> State {
        let generation = self.generation + 1;
        let touched = match self.generation {
            0 => Touched::All,
            _ => {
                let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                touched(&self.mesh, &mesh, changes, &asked)
            }
        };
        let cache = match &touched {
            Touched::All => Cache::new(),
            Touched::Names(names) => {
                let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
                let kept = cache.iter().filter(|((kind, name, _), _)| {
                    !names
                        .get(kind)
                        .is_some_and(|names| names.contains(name.as_str()))
                });
                kept.map(|(key, resource)| (key.clone(), resource.clone()))
                    .collect()
            }
        };
        let mut history = self.history.clone();
        history.push(generation, touched);
        State {
            generation,
            mesh,
            file_errors,
            cache: RwLock::new(cache),
            history,
            asked: self.asked.clone(),
        }
    }

    /// Remembers undeclared ports of workloads that proxies hold something of.
    fn remember(&self, kind: &str, name: &str) {
        let at = match kind {
            type_url::LISTENER => naming::parse_listener(name),
            type_url::CLUSTER | type_url::ROUTE => {
                Outbound::parse(name).and_then(|it| Some(SocketAddr::new(it.ip()?, it.port)))
            }
            _ => None,
        };
        let Some(at) = at else { return };
        let declared =
            |entry: &crate::model::mesh::WorkloadEntry| entry.ports.contains_key(&at.port());
        if self
            .mesh
            .workload_by_ip(at.ip())
            .is_none_or(|entry| declared(entry))
        {
            return;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < MAX_ASKED || asked.contains_key(&at.ip()) {
            asked.entry(at.ip()).or_default().insert(at.port());
        }
    }
}

impl View for State {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, type_url: &str, name: &str, scope: &Scope) -> Option<Resource> {
        let variant = resource::variant(&self.mesh, type_url, name, scope)?;
        let key = (type_url.to_owned(), name.to_owned(), variant);
        let cached = self
            .cache
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if cached.is_some() {
            return cached;
        }
        let made = resource::make(&self.mesh, type_url, name, scope)?;
        self.remember(type_url, name);
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        // Whoever was first is shared, so that equal content is one allocation.
        Some(cache.entry(key).or_insert(made).clone())
    }

    fn list(&self, type_url: &str, scope: &Scope) -> Vec<Resource> {
        let names = resource::names(&self.mesh, type_url, scope);
        names
            .iter()
            .filter_map(|name| self.get(type_url, name, scope))
            .collect()
    }

    fn touched_since(&self, generation: u64) -> Touched {
        self.history.since(generation)
    }

    fn service_account(&self, namespace: &str, workload: &str) -> Option<String> {
        let entry = self.mesh.workload(namespace, workload)?;
        Some(entry.workload.service_account.clone())
    }
}
