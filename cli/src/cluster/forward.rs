//! A local port whose connections end at a port of a pod, through the API server and the kubelet.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::error::chain;
use super::{Cluster, ClusterError};

/// A browser opens six or so at a time.
const MAX_CONNECTIONS: usize = 64;
/// After this long without a stream to the pod a connection is given up.
const OPEN: Duration = Duration::from_secs(15);
/// Before the next attempt, when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The way to one port of one pod.
pub struct Forward {
    listener: TcpListener,
    pods: Api<Pod>,
    pod: String,
    port: u16,
    cluster: Cluster,
}

impl Forward {
    /// Listens on loopback (port 0: any that is free), and opens one stream to the pod, so that what
    /// is in the way is known at once.
    ///
    /// # Errors
    /// When the local port is taken, or the pod can't be reached.
    pub async fn open(
        cluster: Cluster,
        (namespace, pod): (&str, &str),
        port: u16,
        local: u16,
    ) -> Result<Self, ClusterError> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, local));
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|error| ClusterError::Forward {
            what: format!("{at} can't be listened on"),
            place: cluster.place(),
            error: error.into(),
            todo: "choose another port with --port".to_owned(),
        })?;
        let forward = Forward {
            listener,
            pods: Api::namespaced(cluster.client.clone(), namespace),
            pod: pod.to_owned(),
            port,
            cluster,
        };
        let tried = tokio::time::timeout(OPEN, forward.pods.portforward(pod, &[port])).await;
        match tried {
            Ok(Ok(stream)) => stream.abort(),
            Ok(Err(error)) => return Err(forward.refused(namespace, &error)),
            Err(_) => {
                return Err(ClusterError::Late {
                    place: forward.cluster.place(),
                });
            }
        }
        Ok(forward)
    }

    fn refused(&self, namespace: &str, error: &kube::Error) -> ClusterError {
        let pod = &self.pod;
        let todo = match error {
            kube::Error::Api(status) if status.code == 403 => format!(
                "forwarding takes the rights to get and create pods/portforward in the control plane's \
                 namespace: an administrator grants them by `kubectl --namespace {namespace} create role \
                 anyam-dashboard --verb=get,create --resource=pods/portforward`, and `kubectl --namespace \
                 {namespace} create rolebinding anyam-dashboard --role=anyam-dashboard --user=NAME`"
            ),
            kube::Error::Api(status) if status.code == 404 => {
                "the pod has ended meanwhile: try again".to_owned()
            }
            _ => format!(
                "`kubectl --namespace {namespace} port-forward {pod} {}` shows whether the API server reaches the node's kubelet",
                self.port
            ),
        };
        ClusterError::Forward {
            what: format!(
                "there is no way to port {} of pod {namespace}/{pod}",
                self.port
            ),
            place: self.cluster.place(),
            error: chain(error).into(),
            todo,
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves connections until it is dropped; says on `report` why one failed.
    pub async fn serve(self, report: impl Fn(&str) + Clone + Send + 'static) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let connection = match self.listener.accept().await {
                Ok((connection, _)) => connection,
                Err(error) => {
                    report(&error.to_string());
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (pods, pod, port) = (self.pods.clone(), self.pod.clone(), self.port);
            let report = report.clone();
            tokio::spawn(async move {
                if let Err(why) = relay(connection, &pods, &pod, port).await {
                    report(&why);
                }
                drop(slot);
            });
        }
    }
}

async fn relay(
    mut connection: TcpStream,
    pods: &Api<Pod>,
    pod: &str,
    port: u16,
) -> Result<(), String> {
    let opened = tokio::time::timeout(OPEN, pods.portforward(pod, &[port])).await;
    let opened = opened.map_err(|_| format!("pod {pod} does not answer"))?;
    let mut forwarder = opened.map_err(|error| format!("pod {pod}: {}", chain(&error)))?;
    let (stream, error) = (forwarder.take_stream(port), forwarder.take_error(port));
    let Some(mut stream) = stream else {
        return Err(format!("pod {pod}: port {port} was not opened"));
    };
    // Either end may go at any time; a browser's does.
    let _ = copy_bidirectional(&mut connection, &mut stream).await;
    drop(stream);
    forwarder.abort();
    match error {
        Some(error) => match error.await {
            Some(why) if !why.is_empty() => Err(format!("pod {pod}: {why}")),
            _ => Ok(()),
        },
        None => Ok(()),
    }
}
