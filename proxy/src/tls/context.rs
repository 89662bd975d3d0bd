//! TLS contexts: the settings with which a listener accepts and a cluster dials.
//!
//! A context holds the settings, which never change, and [`Rotating`] slots for certificate and
//! trust bundle, which do. The rustls configuration made of both is kept until one of them is
//! replaced; then the next handshake makes a new one. The session cache and the ticket keys live in
//! that configuration, so no session outlives the bundle it was verified with. A renewal does not
//! affect open connections.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version};

use super::ConnectionInfo;
use super::error::TlsError;
use super::leaf::PeerRole;
use super::material::{Identity, Rotating, TrustBundle};
use super::provider::provider;
use super::verified_chains::VerifiedChains;
use super::verify::{PeerRules, Verifier};

/// Sessions that a client context keeps, over all its endpoints.
const CLIENT_SESSIONS: usize = 64;

/// TLS protocol versions, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Inclusive range of the versions that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub min: TlsVersion,
    pub max: TlsVersion,
}

impl Versions {
    pub const TLS13_ONLY: Versions = Versions {
        min: TlsVersion::Tls13,
        max: TlsVersion::Tls13,
    };

    /// The names as in [`ConnectionInfo::version`].
    fn names(self) -> &'static [&'static str] {
        match (self.min, self.max) {
            (TlsVersion::Tls13, _) => &["TLSv1.3"],
            (TlsVersion::Tls12, TlsVersion::Tls12) => &["TLSv1.2"],
            (TlsVersion::Tls12, TlsVersion::Tls13) => &["TLSv1.2", "TLSv1.3"],
        }
    }

    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match (self.min, self.max) {
            (TlsVersion::Tls13, _) => vec![&version::TLS13],
            (TlsVersion::Tls12, TlsVersion::Tls12) => vec![&version::TLS12],
            (TlsVersion::Tls12, TlsVersion::Tls13) => vec![&version::TLS13, &version::TLS12],
        }
    }
}

impl Default for Versions {
    fn default() -> Self {
        Versions {
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
        }
    }
}

/// Settings of a [`ServerContext`].
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub identity: Arc<Rotating<Identity>>,
    /// The trust bundle for clients; `None`: client certificates are not verified (and give no
    /// identity).
    pub trust: Option<Arc<Rotating<TrustBundle>>>,
    pub rules: PeerRules,
    /// Rejects clients without a certificate. If false and there is a bundle, a certificate is
    /// requested, and verified if sent.
    pub require_client_certificate: bool,
    /// In order of preference; empty: ALPN is not negotiated.
    pub alpn: Vec<Vec<u8>>,
    pub versions: Versions,
}

/// Accepts TLS (envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext).
pub struct ServerContext {
    options: ServerOptions,
    rules: Arc<PeerRules>,
    built: ArcSwapOption<BuiltServer>,
}

/// A configuration and what it was made of.
pub(super) struct BuiltServer {
    identity: Arc<Identity>,
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) config: Arc<ServerConfig>,
}

impl ServerContext {
    pub fn new(options: ServerOptions) -> Self {
        let rules = Arc::new(options.rules.clone());
        ServerContext {
            options,
            rules,
            built: ArcSwapOption::empty(),
        }
    }

    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Whether `other` would have accepted every peer that this one did.
    pub fn is_as_strict_as(&self, other: &ServerContext) -> bool {
        let (own, asked) = (&self.options, &other.options);
        let same_trust = match (&own.trust, &asked.trust) {
            (Some(own), Some(asked)) => Arc::ptr_eq(own, asked),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        same_trust
            && asked.rules.sans.is_empty()
            && own.rules.max_intermediates <= asked.rules.max_intermediates
            && (own.require_client_certificate || !asked.require_client_certificate)
            && own.versions.min >= asked.versions.min
            && own.versions.max <= asked.versions.max
    }

    /// Whether the context would accept the peer of an open connection. A certificate that has
    /// expired since the handshake does not end a connection.
    pub fn accepts(&self, tls: &ConnectionInfo) -> bool {
        let options = &self.options;
        if !options.versions.names().contains(&tls.version) {
            return false;
        }
        match (&tls.peer_certificate, &options.trust) {
            (None, _) => !options.require_client_certificate,
            (Some(_), None) => true,
            (Some(peer), Some(trust)) => {
                let trust = trust.load();
                trust.is_some_and(|trust| peer.is_trusted(&trust, &self.rules))
            }
        }
    }

    pub(super) fn rules(&self) -> &Arc<PeerRules> {
        &self.rules
    }

    /// # Errors
    /// [`TlsError::NotReady`] while there is no certificate or bundle yet.
    pub(super) fn current(&self) -> Result<Arc<BuiltServer>, TlsError> {
        let identity = self.options.identity.load().ok_or(NO_IDENTITY)?;
        let trust = current_trust(self.options.trust.as_ref())?;
        if let Some(built) = self.built.load_full()
            && Arc::ptr_eq(&built.identity, &identity)
            && same(built.trust.as_ref(), trust.as_ref())
        {
            return Ok(built);
        }
        let built = Arc::new(self.build(identity, trust)?);
        self.built.store(Some(built.clone()));
        Ok(built)
    }

    fn build(
        &self,
        identity: Arc<Identity>,
        trust: Option<Arc<TrustBundle>>,
    ) -> Result<BuiltServer, TlsError> {
        let options = &self.options;
        let builder = ServerConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&options.versions.list())
            .map_err(TlsError::Setup)?;
        let builder = if trust.is_none() && !options.require_client_certificate {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_verifier(Arc::new(Verifier {
                role: PeerRole::Client,
                trust: trust.clone(),
                rules: self.rules.clone(),
                mandatory: options.require_client_certificate,
                verified_chains: VerifiedChains::default(),
            }))
        };
        let resolver = OneCertificate(identity.certified().clone());
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = options.alpn.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
        // One ticket is enough for a peer that keeps its connections; each takes an encryption of
        // the peer's chain and a record.
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(BuiltServer {
            identity,
            trust,
            config: Arc::new(config),
        })
    }
}

impl fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContext")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`ClientContext`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `None`: no client certificate is shown.
    pub identity: Option<Arc<Rotating<Identity>>>,
    /// The trust bundle for the server; `None`: its certificate is not verified, as in Envoy
    /// without a validation context.
    pub trust: Option<Arc<Rotating<TrustBundle>>>,
    pub rules: PeerRules,
    /// The SNI to send; `None`: none.
    pub sni: Option<Box<str>>,
    /// In order of preference; empty: ALPN is not offered.
    pub alpn: Vec<Vec<u8>>,
    pub versions: Versions,
}

/// Dials TLS (envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext).
pub struct ClientContext {
    options: ClientOptions,
    rules: Arc<PeerRules>,
    built: ArcSwapOption<BuiltClient>,
}

/// A configuration and what it was made of.
pub(super) struct BuiltClient {
    identity: Option<Arc<Identity>>,
    pub(super) trust: Option<Arc<TrustBundle>>,
    pub(super) config: Arc<ClientConfig>,
}

impl ClientContext {
    pub fn new(options: ClientOptions) -> Self {
        let rules = Arc::new(options.rules.clone());
        ClientContext {
            options,
            rules,
            built: ArcSwapOption::empty(),
        }
    }

    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(super) fn rules(&self) -> &Arc<PeerRules> {
        &self.rules
    }

    /// The rustls configuration as of now, for clients off the data path.
    ///
    /// Whether its certificate and bundle are there.
    pub fn is_ready(&self) -> bool {
        !matches!(self.current(), Err(TlsError::NotReady(_)))
    }

    /// # Errors
    /// [`TlsError::NotReady`] while there is no certificate or bundle yet.
    pub fn rustls_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        Ok(self.current()?.config.clone())
    }

    /// # Errors
    /// [`TlsError::NotReady`] while there is no certificate or bundle yet.
    pub(super) fn current(&self) -> Result<Arc<BuiltClient>, TlsError> {
        let identity = match &self.options.identity {
            Some(live) => Some(live.load().ok_or(NO_IDENTITY)?),
            None => None,
        };
        let trust = current_trust(self.options.trust.as_ref())?;
        if let Some(built) = self.built.load_full()
            && same(built.identity.as_ref(), identity.as_ref())
            && same(built.trust.as_ref(), trust.as_ref())
        {
            return Ok(built);
        }
        let built = Arc::new(self.build(identity, trust)?);
        self.built.store(Some(built.clone()));
        Ok(built)
    }

    fn build(
        &self,
        identity: Option<Arc<Identity>>,
        trust: Option<Arc<TrustBundle>>,
    ) -> Result<BuiltClient, TlsError> {
        let options = &self.options;
        let builder = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&options.versions.list())
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier {
                role: PeerRole::Server,
                trust: trust.clone(),
                rules: self.rules.clone(),
                mandatory: true,
                verified_chains: VerifiedChains::default(),
            }));
        let mut config = match &identity {
            Some(identity) => {
                let shown = OneCertificate(identity.certified().clone());
                builder.with_client_cert_resolver(Arc::new(shown))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = options.alpn.clone();
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
        config.enable_early_data = false;
        Ok(BuiltClient {
            identity,
            trust,
            config: Arc::new(config),
        })
    }
}

impl fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientContext")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

const NO_IDENTITY: TlsError = TlsError::NotReady("no certificate yet");

fn current_trust(
    live: Option<&Arc<Rotating<TrustBundle>>>,
) -> Result<Option<Arc<TrustBundle>>, TlsError> {
    match live {
        // Configured but absent is not the same as not configured: fail closed.
        Some(live) => live
            .load()
            .map(Some)
            .ok_or(TlsError::NotReady("no trust bundle yet")),
        None => Ok(None),
    }
}

fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Sends the same certificate whatever the peer requests.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for OneCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
