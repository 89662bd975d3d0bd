//! Which of the TLSRoutes on a port has which server names.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::manifest::route::Route;

/// Every name, and none: of a route without `hostnames`.
pub const ANY: &str = "";

/// The part of a route's server names that it has on a port.
pub struct NameShare<'a> {
    pub route: &'a Arc<Route>,
    pub names: Vec<&'a str>,
    /// Those that another route has, with that.
    pub lost: Vec<(&'a str, &'a Arc<Route>)>,
}

/// Divides the names among `routes`: of those that have one, the first gets it.
pub fn divide(routes: &[Arc<Route>]) -> Vec<NameShare<'_>> {
    let mut holders: HashMap<&str, &Arc<Route>> = HashMap::new();
    let share = |route| {
        let mut share = NameShare {
            route,
            names: Vec::new(),
            lost: Vec::new(),
        };
        for name in names(route) {
            match holders.get(name) {
                // A name that a route writes twice.
                Some(holder) if Arc::ptr_eq(holder, route) => {}
                Some(holder) => share.lost.push((name, *holder)),
                None => {
                    holders.insert(name, route);
                    share.names.push(name);
                }
            }
        }
        share
    };
    routes.iter().map(share).collect()
}

fn names(route: &Route) -> impl Iterator<Item = &str> {
    let any = route.hostnames.is_empty().then_some(ANY);
    route.hostnames.iter().map(String::as_str).chain(any)
}
