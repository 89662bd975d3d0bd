//! Names that injection writes into a pod, by which the rest of the control plane recognises a
//! sidecar.

/// The prefix of Anyam's labels and annotations.
pub const GROUP: &str = "mesh.anyam.dev/";
/// The annotation that records what injection changed.
pub const STATUS: &str = "mesh.anyam.dev/status";
/// Names of annotations (below [`GROUP`]) and of flags of the init container (after `--`).
pub const INCLUDE_INBOUND_PORTS: &str = "include-inbound-ports";
pub const EXCLUDE_INBOUND_PORTS: &str = "exclude-inbound-ports";
pub const INCLUDE_INBOUND_CIDRS: &str = "include-inbound-cidrs";
pub const EXCLUDE_INBOUND_CIDRS: &str = "exclude-inbound-cidrs";
/// As an annotation, and as a flag: whether IPv6 is redirected, too.
pub const REDIRECT_IPV6: &str = "redirect-ipv6";
pub const IPV6: &str = "ipv6";
/// A flag of the init container, no annotation.
pub const OPEN_PORTS: &str = "open-ports";
/// The name of the sidecar's container.
pub const SIDECAR: &str = "anyam-proxy";
/// The name of the init container that sets the pod's netfilter rules.
pub const INIT: &str = "anyam-init";

pub const METRICS_PORT: u16 = 15090;
pub const HEALTH_PORT: u16 = 15021;
/// The port at which the sidecar performs the app's probes and serves merged metrics.
pub const STATUS_PORT: u16 = 15020;
