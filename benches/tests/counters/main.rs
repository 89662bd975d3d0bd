//! What a request costs in numbers that do not depend on the load of the machine, against the
//! budgets in `benches/budgets.txt`.
//!
//! - `fixture`: the proxies and the app; one connection, closed loop
//! - `syscalls` (strace), `instructions` (callgrind): of the optimised program
//! - `allocations`: by an allocator that counts, with the proxy inside this process
//!
//! The sizes of futures are in the same file; the crate that owns them checks them.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

mod allocations;
mod budgets;
mod fixture;
mod instructions;
mod syscalls;

use std::collections::BTreeMap;

/// Measured values by name, beside their budgets.
struct Sheet {
    kind: &'static str,
    budgets: BTreeMap<String, f64>,
    over: Vec<String>,
}

impl Sheet {
    /// The budgets whose first word is `kind`.
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            budgets: budgets::of(kind),
            over: Vec::new(),
        }
    }

    fn measured(&mut self, name: &str, value: f64) {
        let most = self.budgets.remove(name);
        let most = most.unwrap_or_else(|| panic!("budgets.txt has no {} {name}", self.kind));
        println!(
            "{:<12} {name:<24} {value:10.2}  at most {most:.2}",
            self.kind
        );
        if value > most {
            self.over
                .push(format!("{name}: {value:.2}, at most {most:.2}"));
        }
    }

    fn close(self) {
        let Self {
            kind,
            budgets,
            over,
        } = self;
        assert!(over.is_empty(), "{kind} over budget: {over:#?}");
        assert!(budgets.is_empty(), "{kind} without a measure: {budgets:?}");
    }
}
