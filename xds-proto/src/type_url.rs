//! Type URLs of the resources that travel over xDS.

/// Every type URL begins with this.
pub const PREFIX: &str = "type.googleapis.com/";

pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
pub const WORKLOAD: &str = "type.googleapis.com/anyam.workload.v1.Workload";
pub const NAME: &str = "type.googleapis.com/anyam.dns.v1.Name";
