//! Services with pods that are objects of the API server only, and their turnover: new pods in place
//! of old ones as in rolling updates, Services that come and go. What kubelet and the EndpointSlice
//! controller would write is written here.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::held::Endpoints;

/// The namespace that all of it is in.
const NAMESPACE: &str = "fakes";
const PORT: u16 = 80;
const TARGET_PORT: u16 = 8080;
/// Of the first pod.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 78, 0, 1]);

/// A change of a Service's endpoints that the API server has acknowledged.
#[derive(Clone, Debug)]
pub struct Change {
    /// `name.namespace`.
    pub service: String,
    /// Address and port.
    pub endpoint: String,
    /// Whether it was added, or removed.
    pub added: bool,
    pub acknowledged: SystemTime,
}

/// See the module.
pub struct FakeShop {
    services: Api<Service>,
    pods: Api<Pod>,
    slices: Api<EndpointSlice>,
    of_services: Vec<ServicePods>,
    /// Pods made so far.
    made: u32,
    /// Services made and deleted again so far.
    passing: u32,
}

/// A Service and its pods.
struct ServicePods {
    name: String,
    address: Ipv4Addr,
    pods: VecDeque<FakePod>,
}

#[derive(Clone)]
struct FakePod {
    name: String,
    address: Ipv4Addr,
    is_ending: bool,
}

fn typed<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn service(name: &str) -> Service {
    typed(json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": PORT, "targetPort": TARGET_PORT}],
        },
    }))
}

fn endpoints(pods: &VecDeque<FakePod>) -> Value {
    let endpoint = |pod: &FakePod| {
        json!({
            "addresses": [pod.address],
            "conditions": {"ready": !pod.is_ending, "serving": true, "terminating": pod.is_ending},
            "targetRef": {"kind": "Pod", "name": pod.name, "namespace": NAMESPACE},
        })
    };
    pods.iter().map(endpoint).collect()
}

fn slice(service: &str, pods: &VecDeque<FakePod>) -> EndpointSlice {
    typed(json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}],
        "endpoints": endpoints(pods),
    }))
}

fn at_port(address: Ipv4Addr) -> String {
    format!("{address}:{TARGET_PORT}")
}

impl FakeShop {
    /// `services` Services, of `each` pods.
    ///
    /// # Panics
    /// When the API server refuses an object, here and below.
    pub async fn create(client: Client, services: usize, each: usize) -> Self {
        let parameters = PostParams::default();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = typed(json!({"metadata": {"name": NAMESPACE}}));
        namespaces.create(&parameters, &namespace).await.unwrap();
        // A controller would make it.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
        let account = typed(json!({"metadata": {"name": "default"}}));
        accounts.create(&parameters, &account).await.unwrap();
        let mut shop = FakeShop {
            services: Api::namespaced(client.clone(), NAMESPACE),
            pods: Api::namespaced(client.clone(), NAMESPACE),
            slices: Api::namespaced(client, NAMESPACE),
            of_services: Vec::new(),
            made: 0,
            passing: 0,
        };
        for number in 0..services {
            let name = format!("svc-{number}");
            let service = shop.services.create(&parameters, &service(&name)).await;
            let address = service.unwrap().spec.unwrap().cluster_ip.unwrap();
            let mut pods = VecDeque::new();
            for _ in 0..each {
                pods.push_back(shop.start_pod(&name).await);
            }
            let slice = slice(&name, &pods);
            shop.slices.create(&parameters, &slice).await.unwrap();
            shop.of_services.push(ServicePods {
                name,
                address: address.parse().unwrap(),
                pods,
            });
        }
        shop
    }

    /// How many Services stay.
    pub fn len(&self) -> usize {
        self.of_services.len()
    }

    pub fn is_empty(&self) -> bool {
        self.of_services.is_empty()
    }

    /// Where their Services are called.
    pub fn addresses(&self) -> impl Iterator<Item = (Ipv4Addr, u16)> {
        self.of_services.iter().map(|it| (it.address, PORT))
    }

    /// A pod that runs; its Service does not list it yet.
    async fn start_pod(&mut self, service: &str) -> FakePod {
        let name = format!("{service}-{}", self.made);
        let address = Ipv4Addr::from(FIRST_ADDRESS + self.made);
        self.made += 1;
        let pod = typed(json!({
            "metadata": {"name": name, "labels": {"app": service}},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": TARGET_PORT}]}],
            },
        }));
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(status));
        let patched = self.pods.patch_status(&name, &parameters, &patch).await;
        patched.unwrap();
        FakePod {
            name,
            address,
            is_ending: false,
        }
    }

    /// Writes which pods a Service has; returns when that is acknowledged.
    async fn write_slice(&self, service: usize) -> SystemTime {
        let ServicePods { name, pods, .. } = &self.of_services[service];
        let patch = Patch::Merge(json!({"endpoints": endpoints(pods)}));
        let parameters = PatchParams::default();
        let patched = self.slices.patch(name, &parameters, &patch).await;
        patched.unwrap();
        SystemTime::now()
    }

    /// Starts another pod of a Service, which lists it as ready.
    ///
    /// # Panics
    /// As [`Self::create`].
    pub async fn add_pod(&mut self, service: usize) -> Change {
        let name = self.of_services[service].name.clone();
        let pod = self.start_pod(&name).await;
        let address = pod.address;
        self.of_services[service].pods.push_back(pod);
        let acknowledged = self.write_slice(service).await;
        self.change(service, address, true, acknowledged)
    }

    /// The oldest pod of a Service begins to end: its Service lists it as terminating.
    ///
    /// # Panics
    /// As [`Self::create`].
    pub async fn terminate_oldest(&mut self, service: usize) -> Change {
        let mut pods = self.of_services[service].pods.iter_mut();
        let oldest = pods.find(|pod| !pod.is_ending).unwrap();
        oldest.is_ending = true;
        let address = oldest.address;
        let acknowledged = self.write_slice(service).await;
        self.change(service, address, false, acknowledged)
    }

    /// The pods of a Service that were ending have ended, and are deleted.
    ///
    /// # Panics
    /// As [`Self::create`].
    pub async fn delete_terminated(&mut self, service: usize) {
        let pods = std::mem::take(&mut self.of_services[service].pods);
        let (ended, left): (VecDeque<_>, _) = pods.into_iter().partition(|pod| pod.is_ending);
        self.of_services[service].pods = left;
        self.write_slice(service).await;
        let at_once = DeleteParams::default().grace_period(0);
        for pod in ended {
            self.pods.delete(&pod.name, &at_once).await.unwrap();
        }
    }

    /// Makes a Service with an endpoint that is no pod, and deletes the one that was made before.
    ///
    /// # Panics
    /// As [`Self::create`].
    pub async fn turn_over_service(&mut self) {
        let name = |number: u32| format!("passing-{number}");
        let (parameters, made) = (PostParams::default(), name(self.passing));
        let service = service(&made);
        self.services.create(&parameters, &service).await.unwrap();
        let slice = slice(&made, &VecDeque::new());
        self.slices.create(&parameters, &slice).await.unwrap();
        if let Some(before) = self.passing.checked_sub(1).map(name) {
            let delete = DeleteParams::default();
            self.services.delete(&before, &delete).await.unwrap();
            self.slices.delete(&before, &delete).await.unwrap();
        }
        self.passing += 1;
    }

    fn change(
        &self,
        service: usize,
        address: Ipv4Addr,
        added: bool,
        acknowledged: SystemTime,
    ) -> Change {
        Change {
            service: format!("{}.{NAMESPACE}", self.of_services[service].name),
            endpoint: at_port(address),
            added,
            acknowledged,
        }
    }

    /// What the API server says: the ready endpoints of the Services that stay.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn listed(&self) -> Endpoints {
        let slices = self.slices.list(&ListParams::default()).await.unwrap();
        let mut all = Endpoints::new();
        for slice in slices {
            let name = slice.metadata.name.unwrap();
            if !self.of_services.iter().any(|it| it.name == name) {
                continue;
            }
            let is_ready = |endpoint: &Endpoint| {
                let conditions = endpoint.conditions.as_ref();
                conditions.and_then(|it| it.ready) != Some(false)
            };
            let ready = slice.endpoints.into_iter().filter(is_ready);
            let addresses: BTreeSet<String> = ready
                .flat_map(|endpoint| endpoint.addresses)
                .map(|address| format!("{address}:{TARGET_PORT}"))
                .collect();
            all.insert(format!("{name}.{NAMESPACE}"), addresses);
        }
        all
    }
}
