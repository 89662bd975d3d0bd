//! States that ADS serves from.
//!
//! Each state is immutable. Resources are encoded at the first subscription and kept in a cache
//! that all states share; a new state takes out what its change touched.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::sync::watch;

use super::cache::Cache;
use super::resource;
use super::touched::touched;
use crate::ads::resources::{Extent, History, Resource, Resources, Scope, TYPES, Touched, View};
use crate::model::mesh::affected::Changed;
use crate::model::mesh::builder::Builder;
use crate::model::{Mesh, ObjectId};
use crate::source::{FileError, Observed};

/// Changes kept one by one; a stream that is further behind compares everything.
const HISTORY: usize = 256;
/// Bytes of encoded resources kept; scopes multiply them, so the sum is bounded.
const MAX_CACHED: usize = 256 << 20;

/// One state.
pub struct State {
    pub generation: u64,
    pub mesh: Arc<Mesh>,
    pub file_errors: Arc<Vec<FileError>>,
    cache: Arc<Cache>,
    history: History,
    /// Counted at its first use, because that takes a walk over the whole mesh.
    extent: OnceLock<Extent>,
}

/// Takes the reports of a source and publishes states. One writer, any number of readers.
pub struct Translator {
    builder: Mutex<Builder>,
    current: RwLock<Arc<State>>,
    generations: watch::Sender<u64>,
}

impl Translator {
    /// With an empty mesh of generation 0.
    pub fn new(builder: Builder) -> Self {
        let state = State {
            generation: 0,
            mesh: Arc::clone(builder.mesh()),
            file_errors: Arc::default(),
            cache: Arc::new(Cache::new(MAX_CACHED)),
            history: History::new(HISTORY),
            extent: OnceLock::new(),
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

    /// Takes what a source found and publishes the state that follows. Gives the objects whose
    /// conditions or places changed.
    pub fn apply(&self, observed: Observed) -> BTreeSet<Arc<ObjectId>> {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let (mesh, changed) = builder.apply(observed.delta);
        if let Err(error) = builder.save() {
            tracing::error!(%error, "allotted addresses cannot be kept over a restart");
        }
        if let Err(error) = builder.save_holders() {
            tracing::error!(%error, "which object has an address that several claim cannot be kept over a restart");
        }
        let state = self.state();
        let errors = observed.errors.map(Arc::new);
        let errors = errors.unwrap_or_else(|| Arc::clone(&state.file_errors));
        self.publish(state.next(mesh, &changed, errors));
        changed.statuses
    }

    /// Time has passed: publishes a state without what was kept of earlier ones, if there is such.
    /// Gives what [`Self::apply`] does.
    pub fn settle(&self) -> BTreeSet<Arc<ObjectId>> {
        let mut builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((mesh, changed)) = builder.settle() else {
            return BTreeSet::new();
        };
        let state = self.state();
        let errors = Arc::clone(&state.file_errors);
        self.publish(state.next(mesh, &changed, errors));
        changed.statuses
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
    fn next(&self, mesh: Arc<Mesh>, changed: &Changed, file_errors: Arc<Vec<FileError>>) -> State {
        let generation = self.generation + 1;
        let touched = match self.generation {
            0 => Touched::All,
            _ => touched(&self.mesh, &mesh, changed),
        };
        self.cache.advance(generation, &touched);
        let mut history = self.history.clone();
        history.push(generation, touched);
        State {
            generation,
            mesh,
            file_errors,
            cache: self.cache.clone(),
            history,
            extent: OnceLock::new(),
        }
    }
}

impl View for State {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn get(&self, type_url: &str, name: &str, scope: &Scope) -> Option<Resource> {
        let variant = resource::variant(&self.mesh, type_url, name, scope)?;
        let cached = self.cache.get(self.generation, type_url, name, &variant);
        if cached.is_some() {
            return cached;
        }
        let made = resource::make(&self.mesh, type_url, name, scope)?;
        Some(self.cache.keep(self.generation, type_url, variant, made))
    }

    fn list(&self, type_url: &str, scope: &Scope) -> Vec<Resource> {
        let names = resource::names(&self.mesh, type_url, scope);
        names
            .iter()
            .filter_map(|name| self.get(type_url, name, scope))
            .collect()
    }

    fn address(&self, type_url: &str, name: &str) -> Option<IpAddr> {
        resource::address(type_url, name)
    }

    fn extent(&self) -> Extent {
        *self.extent.get_or_init(|| {
            let mut extent = Extent::default();
            for kind in TYPES {
                let names = resource::names(&self.mesh, kind, &Scope::default());
                extent.resources += names.len();
                extent.name_bytes += names.iter().map(String::len).sum::<usize>();
            }
            extent
        })
    }

    fn touched_since(&self, generation: u64) -> Touched {
        self.history.since(generation)
    }

    fn service_account(&self, namespace: &str, workload: &str) -> Option<String> {
        let entry = self.mesh.workload(namespace, workload)?;
        Some(entry.workload.service_account.clone())
    }
}
