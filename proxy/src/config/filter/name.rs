//! Names of HTTP filters. Connection managers and route tables are configured apart, and a table may
//! serve chains that differ: what they have in common is the name by which a route overrides a
//! filter. So that requests compare no text, equal names share one allocation.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Name;

/// The name of a filter, out of [`FilterNames`]. Names of different `FilterNames` are not equal.
#[derive(Clone, Debug)]
pub struct FilterName(Name);

impl FilterName {
    pub fn shared(&self) -> &Name {
        &self.0
    }
}

impl Deref for FilterName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq for FilterName {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FilterName {}

/// The names in use, each once. One per process, used while configuration is compiled.
#[derive(Debug, Default)]
pub struct FilterNames(Mutex<HashSet<Name>>);

impl FilterNames {
    /// Drops unused names as the set grows.
    pub fn intern(&self, name: &str) -> FilterName {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return FilterName(known.clone());
        }
        if known.len() == known.capacity() {
            known.retain(|name| Arc::strong_count(name) > 1);
        }
        let name = Name::from(name);
        known.insert(name.clone());
        FilterName(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_and_unused_ones_are_dropped() {
        let names = FilterNames::default();
        let cors = names.intern("cors");
        assert_eq!(cors, names.intern("cors"));
        assert_ne!(cors, names.intern("rbac"));
        assert_ne!(cors, FilterNames::default().intern("cors"));
        for at in 0..1000 {
            names.intern(&at.to_string());
        }
        assert!(names.0.lock().unwrap().len() < 100);
        assert_eq!(cors, names.intern("cors"));
    }
}
