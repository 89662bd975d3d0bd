//! The kinds of ports.

/// Which pages a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Admin,
    /// `/stats/prometheus`.
    Metrics,
    /// `/healthz/ready`.
    Health,
    /// `/app-health/…`, `/stats/prometheus` with the app's metrics, `/healthz/ready`.
    Status,
}
