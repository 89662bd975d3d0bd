//! What the CA needs of Kubernetes: which pod a service-account token was made for. The API server
//! says so; [`crate::kubernetes::token_review`] asks it.

/// A pod that shows a token of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPod {
    pub namespace: String,
    pub name: String,
    /// The one that the pod runs as, which the token is of.
    pub service_account: String,
}

/// Why a token gets no certificate; in words for the log of the sidecar that shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PodTokenError {
    /// The token is not good, or not for this CA.
    #[error("{0}")]
    Invalid(String),
    /// The token is good, and its pod may have no certificate.
    #[error("{0}")]
    Pod(String),
    /// The API server did not say. The token may be good: it can be shown again.
    #[error("{0}")]
    Unavailable(String),
}

/// Finds the pod of a token. Bounded in time, and in how many are examined at once.
#[tonic::async_trait]
pub trait PodTokens: Send + Sync + 'static {
    /// The audience that a token must be for.
    fn audience(&self) -> &str;

    /// # Errors
    /// When it is of no pod that may have a certificate, or that cannot be found out now.
    async fn pod(&self, token: &str) -> Result<TokenPod, PodTokenError>;
}
