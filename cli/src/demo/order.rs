//! The checks, in the order in which the demo makes them.

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Traffic,
    Wire,
    Denied,
    Canary,
    App,
    Sidecar,
    Rotation,
    Route,
}

/// In their order, as the screen names them.
pub const CHECKS: &[(&str, Check)] = &[
    ("traffic", Check::Traffic),
    ("mTLS on the wire", Check::Wire),
    ("unauthorised call", Check::Denied),
    ("canary 10 %", Check::Canary),
    ("replica's app killed", Check::App),
    ("replica's sidecar killed", Check::Sidecar),
    ("certificate rotated", Check::Rotation),
    ("route changed", Check::Route),
];
