//! What injection leaves in a pod, by which the rest of the control plane recognises a sidecar.

/// What our labels and annotations begin with.
pub const GROUP: &str = "mesh.anyam.dev/";
/// The annotation that says what injection changed.
pub const STATUS: &str = "mesh.anyam.dev/status";
/// Annotations, below [`GROUP`], and flags of the init container, after `--`.
pub const INCLUDE_INBOUND_PORTS: &str = "include-inbound-ports";
pub const EXCLUDE_INBOUND_PORTS: &str = "exclude-inbound-ports";
/// A flag of the init container.
pub const OPEN_PORTS: &str = "open-ports";
/// The container that the sidecar runs in.
pub const SIDECAR: &str = "anyam-proxy";
/// The init container that sets the pod's netfilter rules.
pub const INIT: &str = "anyam-init";

pub const METRICS_PORT: u16 = 15090;
pub const HEALTH_PORT: u16 = 15021;
/// Where the sidecar performs the app's probes and shows merged metrics.
pub const STATUS_PORT: u16 = 15020;
