//! What the visitor has seen.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Totals the visitor prints.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Totals {
    pub visits: u64,
    pub failures: u64,
    pub last_failure: Option<String>,
    pub carts: BTreeMap<String, u64>,
    pub replicas: BTreeMap<String, u64>,
}

impl Totals {
    /// Calls that this version of the cart answered.
    pub fn cart(&self, version: &str) -> u64 {
        self.carts.get(version).copied().unwrap_or(0)
    }
}
