//! A Kubernetes cluster, as its users reach it.
//!
//! - `access`: finds it as kubectl does: kubeconfig, or the pod's own cluster; `error`: what the API
//!   server's answers mean
//! - `names`: `deploy/web` and the like into pods; `forward`: a port of a pod
//! - [`installed`]: what is wrong with a mesh's installation; [`preflight`]: what would be in the way
//!   of one
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod access;
mod error;
mod forward;
pub mod installed;
mod names;
pub mod preflight;

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response};
use kube::client::Body as KubeBody;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use access::{Access, KubeContext};
pub use error::{ClusterError, Refusal};
pub use forward::Forward;
pub use names::{ObjectName, PodsFound};

/// An answer that takes longer is no answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer read whole.
const MAX_ANSWER: usize = 64 << 20;
/// The largest error read whole.
const MAX_ERROR: usize = 1 << 20;

/// A cluster and the credentials for it.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    /// `context prod`, in messages.
    name: String,
    server: String,
    namespace: String,
}

impl Cluster {
    /// Where it is, for messages.
    pub fn place(&self) -> String {
        format!("{}, {}", self.name, self.server)
    }

    /// The namespace of the kubeconfig's context, or of the pod's service account.
    pub fn default_namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a request to the API server, and returns its answer if it is a good one.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub async fn send(
        &self,
        request: hyper::http::Result<Request<Vec<u8>>>,
    ) -> Result<Response<KubeBody>, ClusterError> {
        let request = request.map_err(kube::Error::HttpError);
        let request = request.map_err(|error| ClusterError::of_call(self, &error))?;
        let path = request.uri().path().to_owned();
        let answer = self.client.send(request.map(KubeBody::from)).await;
        let response = answer.map_err(|error| ClusterError::of_call(self, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_ERROR).collect();
        let body = body.await.map(|body| body.to_bytes()).unwrap_or_default();
        let refusal = Refusal::new(self, &path, status.as_u16(), &body);
        Err(ClusterError::Refused(Box::new(refusal)))
    }

    /// An object or a list.
    ///
    /// # Errors
    /// When there is no answer in time, a refusal, or something else than expected.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClusterError> {
        self.whole(path, Request::get(path).body(Vec::new())).await
    }

    /// An object; `None`: there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ClusterError> {
        match self.read(path).await {
            Ok(found) => Ok(Some(found)),
            Err(ClusterError::Refused(refusal)) if refusal.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object that is not kept, such as a review.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn review<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &Value,
    ) -> Result<T, ClusterError> {
        let request = Request::post(path).header("content-type", "application/json");
        let body = object.to_string().into_bytes();
        self.whole(path, request.body(body)).await
    }

    async fn whole<T: DeserializeOwned>(
        &self,
        path: &str,
        request: hyper::http::Result<Request<Vec<u8>>>,
    ) -> Result<T, ClusterError> {
        let answer = async {
            let response = self.send(request).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER);
            let collected = body.collect().await;
            let bytes = collected.map(|body| body.to_bytes());
            let bytes = bytes.map_err(|error| ClusterError::Unreachable {
                place: self.place(),
                why: error.to_string(),
            })?;
            serde_json::from_slice(&bytes).map_err(|error| ClusterError::Unexpected {
                path: path.to_owned(),
                place: self.place(),
                error,
            })
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(ClusterError::Late {
                place: self.place(),
            }),
        }
    }
}

/// Labels by which the objects of an installation are found.
const PART_OF: &str = "app.kubernetes.io/part-of";

/// A string inside of an object; empty if it is not there.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A list inside of an object; empty if it is not there.
fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// A condition of a status, by its type.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = items(object, "/status/conditions").iter();
    all.find(|condition| text(condition, "/type") == kind)
}
