//! Bounds, what is kept, and any endpoints and criteria.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::members::MAX_OF_ENDPOINT;
use super::super::{MAX_RESOLVED, MAX_SUBSETS};
use super::{
    Fixture, criteria, documented, documented_selectors, list, metadata, parsed, priority,
    selector, settings,
};
use crate::config::balancing::SubsetFallback;
use crate::upstream::endpoint::{Endpoint, Priority};

#[test]
fn subsets_are_bounded_and_compared_with_the_last() {
    let many: Vec<_> = (0..MAX_SUBSETS + 10)
        .map(|n| parsed(&format!("n={n}")))
        .collect();
    let endpoints = many.iter().map(|metadata| {
        Arc::new(Endpoint {
            lb_metadata: Some(Arc::new(metadata.clone())),
            ..Endpoint::at(SocketAddr::from(([10, 0, 0, 1], 80)))
        })
    });
    let all = Priority {
        endpoints: endpoints.collect(),
    };
    let settings = settings(vec![selector(&["n"], None)], SubsetFallback::None);
    let fixture = Fixture::new(settings.clone(), &[all]);
    assert_eq!(
        (fixture.table.count(), fixture.table.dropped),
        (MAX_SUBSETS, 10)
    );
    let few = Fixture::new(settings, &[priority(&["n=1", "n=x"].map(parsed))]);
    assert_eq!(few.table.not_in(Some(&fixture.table)), 1);
    assert_eq!(fixture.table.not_in(Some(&few.table)), MAX_SUBSETS - 1);
    assert_eq!(few.table.not_in(None), 2);
    // Lists in which every combination would be a subset.
    let elements: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let wide = ["a", "b", "c", "d"].map(|key| (key, list(&elements)));
    let mut settings = Fixture::settings(&["a", "b", "c", "d"]);
    settings.list_as_any = true;
    let fixture = Fixture::new(settings, &[priority(&[metadata(&wide)])]);
    assert_eq!(fixture.table.count(), MAX_OF_ENDPOINT);
}

#[test]
fn what_criteria_mean_is_found_once() {
    let settings = settings(documented_selectors(), SubsetFallback::None);
    let fixture = Fixture::new(settings, &[documented()]);
    let asked = criteria("version=1.1");
    for _ in 0..3 {
        fixture.chosen(Some(&asked));
    }
    assert_eq!(fixture.table.resolved.load().len(), 1);
    for _ in 0..MAX_RESOLVED * 2 {
        assert_eq!(fixture.ports("version=1.0"), [1, 2, 5]);
    }
    assert_eq!(fixture.table.resolved.load().len(), MAX_RESOLVED);
}

proptest! {
    /// A pick by criteria has the metadata asked for; without such endpoints there is none.
    #[test]
    fn picks_match_their_criteria(
        endpoints in prop::collection::vec((0u8..4, 0u8..4), 1..20), asked in (0u8..5, 0u8..5), both: bool,
    ) {
        let of: Vec<_> = endpoints.iter().map(|(a, b)| parsed(&format!("a={a} b={b}"))).collect();
        let selectors = vec![selector(&["a"], None), selector(&["a", "b"], None)];
        let fixture = Fixture::new(settings(selectors, SubsetFallback::None), &[priority(&of)]);
        let fits = |(a, b): &(u8, u8)| *a == asked.0 && (!both || *b == asked.1);
        let expected: Vec<u16> = (1u16..).zip(&endpoints).filter(|(_, e)| fits(e)).map(|(port, _)| port).collect();
        let text = match both {
            true => format!("a={} b={}", asked.0, asked.1),
            false => format!("a={}", asked.0),
        };
        prop_assert_eq!(fixture.ports(&text), expected);
    }
}
