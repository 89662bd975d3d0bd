//! Reads `benches/budgets.txt`. Included by each test that measures.

use std::collections::BTreeMap;

/// The budgets of a kind, by name.
pub fn of(kind: &str) -> BTreeMap<String, f64> {
    let lines = include_str!("../../budgets.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let budgets = lines.filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [of, name, most] = words[..] else {
            panic!("budgets.txt: {line:?} is not: kind, name, most");
        };
        let most = most.parse().expect("budgets.txt: a number");
        (of == kind).then(|| (name.to_owned(), most))
    });
    budgets.collect()
}
