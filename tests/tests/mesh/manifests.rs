//! Manifests that several tests write.

use std::net::IpAddr;

/// Only mTLS in the mesh.
pub const STRICT: &str = "
apiVersion: mesh.anyam.dev/v1alpha1
kind: MeshPolicy
metadata: { name: default, namespace: shop }
spec:
  mtls: { mode: Strict }
";

/// A Service of HTTP on port 8080, at `vip`, in front of the workloads labelled `app`.
pub fn service(name: &str, app: &str, vip: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: shop }}
spec:
  clusterIP: {vip}
  selector: {{ app: {app} }}
  ports:
    - {{ name: http, port: 8080, appProtocol: http }}
"
    )
}

/// A Workload with a sidecar, an account of its own name, and HTTP on port 8080.
pub fn workload(name: &str, app: &str, address: impl Into<IpAddr>) -> String {
    let address = address.into();
    format!(
        "---
apiVersion: mesh.anyam.dev/v1alpha1
kind: Workload
metadata: {{ name: {name}, namespace: shop, labels: {{ app: {app} }} }}
spec:
  addresses: ['{address}']
  serviceAccount: {name}
  ports:
    - {{ name: http, port: 8080, appProtocol: http }}
"
    )
}
