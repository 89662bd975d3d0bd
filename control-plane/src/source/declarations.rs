//! All declarations of objects, which of them are in service, and what has changed since the last
//! report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{FileError, Sourced, duplicates};
use crate::incumbents::Incumbents;
use crate::model::ObjectId;
use crate::model::mesh::change::{ObjectDelta, Origin};

/// What a file declares.
pub type DeclaredObjects = BTreeMap<ObjectId, Sourced>;

/// See the module.
#[derive(Debug, Default)]
pub struct Declarations {
    /// The files that declare an object.
    places: HashMap<ObjectId, BTreeSet<String>>,
    /// Each object as it is in service.
    served: DeclaredObjects,
    /// Declarations that are not used.
    unused: BTreeMap<ObjectId, Vec<FileError>>,
    /// Objects that may have changed since the last report, with their version in that report.
    reported: BTreeMap<ObjectId, Option<Sourced>>,
    /// Objects whose declarations may have changed since one of them was chosen.
    unsettled: BTreeSet<ObjectId>,
    /// Files in service, of objects that several declare.
    incumbents: Incumbents,
}

impl Declarations {
    /// With the files that were in service in an earlier run.
    pub fn remember(&mut self, incumbents: Incumbents) {
        self.incumbents = incumbents;
    }

    /// Each object as it is in service.
    pub fn served(&self) -> &DeclaredObjects {
        &self.served
    }

    /// The files that declare an object.
    pub fn files(&self, id: &ObjectId) -> impl Iterator<Item = &String> {
        self.places.get(id).into_iter().flatten()
    }

    /// Of declarations that are not used.
    pub fn errors(&self) -> impl Iterator<Item = &FileError> {
        self.unused.values().flatten()
    }

    /// A file declares something else.
    pub fn replace(&mut self, file: &str, before: &DeclaredObjects, now: &DeclaredObjects) {
        for (id, object) in before {
            if now.get(id) != Some(object) {
                self.unsettled.insert(id.clone());
            }
            if !now.contains_key(id)
                && let Some(places) = self.places.get_mut(id)
            {
                places.remove(file);
                if places.is_empty() {
                    self.places.remove(id);
                }
            }
        }
        for id in now.keys().filter(|id| !before.contains_key(*id)) {
            let places = self.places.entry(id.clone()).or_default();
            places.insert(file.to_owned());
            self.unsettled.insert(id.clone());
        }
    }

    /// Chooses among the declarations of objects, when all files have been read: in which order
    /// that was does not matter. `declared`: an object as a file declares it.
    pub fn settle<'a>(&mut self, declared: impl Fn(&str, &ObjectId) -> Option<&'a Sourced>) {
        for id in std::mem::take(&mut self.unsettled) {
            let places = self.places.get(&id).into_iter().flatten();
            let all = places.filter_map(|file| declared(file, &id));
            let served = self.served.get(&id);
            let earlier = || self.incumbents.earlier(&id);
            let incumbent = served.map(|it| &*it.file).or_else(earlier);
            let (used, unused) = match duplicates::choose(&id, all, incumbent) {
                Some((used, unused)) => (Some(used.clone()), unused),
                None => (None, Vec::new()),
            };
            let of_several = used.as_ref().filter(|_| !unused.is_empty());
            self.incumbents.note(&id, of_several.map(|it| &it.file));
            match unused.is_empty() {
                true => self.unused.remove(&id),
                false => self.unused.insert(id.clone(), unused),
            };
            if used.as_ref() == served {
                continue;
            }
            let before = match used {
                Some(used) => self.served.insert(id.clone(), used),
                None => self.served.remove(&id),
            };
            self.reported.entry(id).or_insert(before);
        }
    }

    /// The differences to the last report. Which declarations are in service is kept first.
    pub fn report(&mut self) -> ObjectDelta {
        if let Err(error) = self.incumbents.save() {
            tracing::error!(%error, "which declarations are in service cannot be kept over a restart");
        }
        let mut delta = ObjectDelta::default();
        for (id, before) in std::mem::take(&mut self.reported) {
            match self.served.get(&id) {
                Some(now) if before.as_ref() == Some(now) => {}
                Some(Sourced { object, file, line }) => {
                    let (file, line) = (file.clone(), *line);
                    delta
                        .set
                        .push((object.clone(), Origin::File { file, line }));
                }
                None if before.is_some() => delta.removed.push(id),
                None => {}
            }
        }
        delta
    }
}
