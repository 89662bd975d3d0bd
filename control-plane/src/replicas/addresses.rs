//! Where the other replicas are: endpoints of the control plane's own Service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use futures_util::StreamExt;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::kubernetes::call::{CallError, FailureLog, Right, watch_all};

/// The Service, and the name of its port for replicas.
const SERVICE: &str = "anyam-control";
const PORT: &str = "https-replicas";

const WATCH: Right = Right::new("watch", "endpointslices.discovery.k8s.io");

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// Its pod's name, else its address.
    pub name: String,
    /// `None`: it does not listen for replicas, as one of an older version.
    pub address: Option<SocketAddr>,
}

/// The replicas of each EndpointSlice, by its name.
#[derive(Default)]
struct KnownReplicas {
    slices: BTreeMap<String, Vec<ReplicaAddress>>,
    /// While a list is read: those in it.
    listing: Option<BTreeMap<String, Vec<ReplicaAddress>>>,
}

impl KnownReplicas {
    fn take_in(&mut self, event: watcher::Event<EndpointSlice>) {
        let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
        match event {
            watcher::Event::Init => self.listing = Some(BTreeMap::new()),
            watcher::Event::InitApply(slice) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(name(&slice), replicas(&slice));
            }
            watcher::Event::InitDone => self.slices = self.listing.take().unwrap_or_default(),
            watcher::Event::Apply(slice) => {
                self.slices.insert(name(&slice), replicas(&slice));
            }
            watcher::Event::Delete(slice) => {
                self.slices.remove(&name(&slice));
            }
        }
    }

    /// Each once, though it may have addresses of both families; without the pod `own`.
    fn others(&self, own: &str) -> Vec<ReplicaAddress> {
        let mut found: BTreeMap<&str, &ReplicaAddress> = BTreeMap::new();
        for replica in self.slices.values().flatten() {
            let known = found.entry(&replica.name).or_insert(replica);
            if known.address.is_none() {
                *known = replica;
            }
        }
        let others = found.into_values().filter(|it| it.name != own);
        others.cloned().collect()
    }
}

/// Those that serve, also while they end: their proxies are connected until then.
fn replicas(slice: &EndpointSlice) -> Vec<ReplicaAddress> {
    let ports = slice.ports.iter().flatten();
    let mut of_name = ports.filter(|port| port.name.as_deref() == Some(PORT));
    let port = of_name.find_map(|port| u16::try_from(port.port?).ok());
    let replica = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        if !ready && !conditions.serving.unwrap_or(false) {
            return None;
        }
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let pod = endpoint.target_ref.as_ref();
        let pod = pod.and_then(|pod| pod.name.clone());
        Some(ReplicaAddress {
            name: pod.unwrap_or_else(|| address.to_string()),
            address: port.map(|port| SocketAddr::new(address, port)),
        })
    };
    slice.endpoints.iter().filter_map(replica).collect()
}

/// Keeps `addresses` as the EndpointSlices in the control plane's namespace say; does not end. `own`:
/// this pod's name.
pub async fn follow(
    client: Client,
    namespace: String,
    own: String,
    addresses: watch::Sender<Vec<ReplicaAddress>>,
) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let of_service = format!("kubernetes.io/service-name={SERVICE}");
    let config = watch_all().labels(&of_service);
    let mut events = pin!(watcher(slices, config).default_backoff());
    let mut failures = FailureLog::new("following the addresses of the other replicas");
    let mut known = KnownReplicas::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                failures.succeeded();
                known.take_in(event);
                let others = known.others(&own);
                addresses.send_if_modified(|before| {
                    let differs = *before != others;
                    *before = others;
                    differs
                });
            }
            Err(error) => {
                if let Some(error) = CallError::of_watch(WATCH, &error) {
                    failures.failed(&error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, port: Option<u16>, endpoints: Value) -> EndpointSlice {
        let ports = match port {
            Some(port) => {
                json!([{"name": "grpc-xds", "port": 15012}, {"name": PORT, "port": port}])
            }
            None => json!([{"name": "grpc-xds", "port": 15012}]),
        };
        let slice = json!({
            "metadata": {"name": name}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        });
        serde_json::from_value(slice).unwrap()
    }

    fn endpoint(pod: &str, address: &str, conditions: Value) -> Value {
        json!({
            "addresses": [address], "conditions": conditions,
            "targetRef": {"kind": "Pod", "name": pod},
        })
    }

    fn names(known: &KnownReplicas) -> Vec<String> {
        let others = known.others("own").into_iter();
        let shown = others.map(|it| match it.address {
            Some(address) => format!("{}={address}", it.name),
            None => it.name,
        });
        shown.collect()
    }

    #[test]
    fn those_that_serve_are_the_others() {
        let ready = json!({"ready": true});
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let starting = json!({"ready": false, "serving": false});
        let all = json!([
            endpoint("own", "10.0.0.1", ready.clone()),
            endpoint("a", "10.0.0.2", ready.clone()),
            endpoint("b", "10.0.0.3", ending),
            endpoint("c", "10.0.0.4", starting),
            {"addresses": ["10.0.0.5"]},
        ]);
        let mut known = KnownReplicas::default();
        known.take_in(watcher::Event::Init);
        known.take_in(watcher::Event::InitApply(slice("s", Some(7), all)));
        assert!(names(&known).is_empty(), "the list is not read yet");
        known.take_in(watcher::Event::InitDone);
        let expected = ["10.0.0.5=10.0.0.5:7", "a=10.0.0.2:7", "b=10.0.0.3:7"];
        assert_eq!(names(&known), expected);

        // An older version beside it, and one replica's other address family.
        let older = json!([endpoint("old", "10.0.0.6", ready.clone())]);
        known.take_in(watcher::Event::Apply(slice("older", None, older)));
        let second = json!([endpoint("a", "fd00::2", ready)]);
        known.take_in(watcher::Event::Apply(slice("v6", Some(7), second)));
        assert_eq!(names(&known)[3], "old");
        assert_eq!(names(&known).len(), 4);

        let gone = slice("s", Some(7), json!([]));
        known.take_in(watcher::Event::Delete(gone));
        assert_eq!(names(&known), ["a=[fd00::2]:7", "old"]);
    }
}
