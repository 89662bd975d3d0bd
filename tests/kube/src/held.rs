//! The endpoints that a sidecar holds, by the Service's name: from the pages of its admin port.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The endpoints of each Service.
pub type Endpoints = BTreeMap<String, BTreeSet<String>>;

/// Of `/clusters?format=json`: what requests are balanced over.
///
/// # Panics
/// When it is not such a page.
pub fn in_force(clusters: &str) -> Endpoints {
    let page: Value = serde_json::from_str(clusters).unwrap();
    let mut all = Endpoints::new();
    for cluster in page["cluster_statuses"].as_array().unwrap() {
        let Some(service) = service(cluster["name"].as_str().unwrap()) else {
            continue;
        };
        let hosts = cluster["host_statuses"].as_array().unwrap();
        let hosts = hosts.iter().map(|host| socket_address(&host["address"]));
        all.entry(service).or_default().extend(hosts);
    }
    all
}

/// A Service's endpoints as they were taken in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldVersion {
    pub service: String,
    pub endpoints: BTreeSet<String>,
    /// RFC 3339, in milliseconds.
    pub since: String,
}

/// Of `/config_dump?include_eds&resource=dynamic_endpoint_configs`.
///
/// # Panics
/// When it is not such a page.
pub fn versions(dump: &str) -> Vec<HeldVersion> {
    let page: Value = serde_json::from_str(dump).unwrap();
    let entries = page["configs"].as_array().unwrap().iter();
    let version = |entry: &Value| {
        let config = &entry["endpoint_config"];
        let name = field(config, "cluster_name", "clusterName").as_str();
        let localities = config["endpoints"].as_array();
        let endpoints = localities.into_iter().flatten().flat_map(|locality| {
            let endpoints = field(locality, "lb_endpoints", "lbEndpoints").as_array();
            let endpoints = endpoints.into_iter().flatten();
            endpoints.map(|endpoint| socket_address(&endpoint["endpoint"]["address"]))
        });
        Some(HeldVersion {
            service: service(name?)?,
            endpoints: endpoints.collect(),
            since: entry["last_updated"].as_str()?.to_owned(),
        })
    };
    entries.filter_map(version).collect()
}

/// Of `outbound|80||name.namespace.svc.cluster.local`: `name.namespace`.
fn service(cluster: &str) -> Option<String> {
    let host = cluster.strip_prefix("outbound|")?.rsplit('|').next()?;
    host.strip_suffix(".svc.cluster.local").map(str::to_owned)
}

/// A field by its name in protobuf, or in its JSON mapping.
fn field<'v>(of: &'v Value, name: &str, json: &str) -> &'v Value {
    of.get(name).unwrap_or(&of[json])
}

fn socket_address(address: &Value) -> String {
    let socket = field(address, "socket_address", "socketAddress");
    let ip = socket["address"].as_str().unwrap_or_default();
    format!("{ip}:{}", field(socket, "port_value", "portValue"))
}
