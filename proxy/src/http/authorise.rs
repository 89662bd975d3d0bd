//! The authorisation step of a request: which rules apply, and what they say.

use super::error::Failure;
use super::observe::RequestInfo;
use crate::config::policy::Rbac;
use crate::config::route::{RbacOverride, Route};

/// Judges a request by one RBAC filter, or by what the route puts in its place.
///
/// # Errors
/// When the rules refuse it.
pub fn check(filter: &Rbac, route: &Route, info: &RequestInfo) -> Result<(), Failure> {
    let rules = match &route.rbac {
        RbacOverride::Inherit => filter,
        RbacOverride::Disabled => return Ok(()),
        RbacOverride::Replace(own) => own,
    };
    let _ = (rules, info);
    // Fails closed until there is somebody to ask.
    Err(Failure::Denied("none".into()))
}
