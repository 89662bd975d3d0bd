//! Constants of the Inspect stream that both ends must agree on.

/// Upper bounds of `anyam.inspect.v1.Edge.latency`, milliseconds; one more bucket is unbounded.
pub const LATENCY_BOUNDS_MS: [f64; 16] = [
    0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 35.0, 60.0, 100.0, 250.0, 500.0, 1000.0, 2500.0,
    10_000.0,
];
