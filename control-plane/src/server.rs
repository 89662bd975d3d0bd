//! The servers of one control plane, over whatever resources it is given.
//!
//! - [`start`] opens every socket and file before anything is served, so that errors in them are
//!   reported at once.
//! - [`Running`] is what is open, until [`Running::stop`].
//! - `secrets`: the CA, and our own certificate.

mod secrets;

pub use self::secrets::Issuing;
use self::secrets::Secrets;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use xds_proto::anyam::inspect::v1::inspect_server::InspectServer;
use xds_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use xds_proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;

use crate::ads::Resources;
use crate::ads::admission::{Admission, ConnectionLimits};
use crate::ads::listen::Acceptor;
use crate::ads::registry::Registry;
use crate::ads::service::{Ads, SharedAds};
use crate::ads::session::SessionLimits;
use crate::ads::streams::StreamLimit;
use crate::api::auth::Auth;
use crate::api::{Api, ApiPort, Declared};
use crate::ca::authority::Lifetimes;
use crate::ca::service::{self, Authenticate, CertificateService, SharedCa};
use crate::ca::{Authority, CaError, serving};
use crate::descriptors;
use crate::inspect::Agents;
use crate::inspect::service::InspectService;
use crate::metrics::Metrics;
use crate::supervise::{LongLivedTasks, TaskEnded};

/// A request may carry the versions of everything a large proxy has.
const MAX_REQUEST: usize = 16 << 20;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);
/// ADS, Inspect, and some certificate calls.
const STREAMS_PER_CONNECTION: u32 = 64;
const STOP: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Options {
    pub state_dir: PathBuf,
    pub trust_domain: String,
    pub cluster_domain: String,
    pub xds_listen: SocketAddr,
    pub api_listen: SocketAddr,
    /// Metrics and health, without authentication.
    pub metrics_listen: Option<SocketAddr>,
    pub insecure_ads_listen: Option<SocketAddr>,
    pub names: Vec<String>,
    pub api_hosts: Vec<String>,
    pub lifetimes: Lifetimes,
    pub max_streams: usize,
    /// Connections to the xDS port from one address.
    pub max_connections_per_address: usize,
    /// How long a connection to the xDS port lasts.
    pub max_connection_age: Duration,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error("{what} can't listen on {address}: {source}; choose another with {flag}")]
    Listen {
        what: &'static str,
        flag: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("--insecure-ads-listen {0} is not loopback: it believes whatever a client says")]
    NotLoopback(SocketAddr),
    #[error("another control plane uses {0}; stop it, or give this one its own --state-dir")]
    InUse(PathBuf),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A control plane that serves.
pub struct Running {
    pub xds: SocketAddr,
    pub api: SocketAddr,
    pub metrics_port: Option<SocketAddr>,
    pub insecure_ads: Option<SocketAddr>,
    pub token_file: PathBuf,
    /// What the API shows.
    pub shown: Arc<Api>,
    pub authority: Arc<Authority>,
    pub metrics: Arc<Metrics>,
    closing: watch::Sender<bool>,
    tasks: LongLivedTasks,
    /// Held while we run.
    _lock: File,
}

impl Running {
    /// Waits until something that it does ends by itself.
    pub async fn ended(&mut self) -> TaskEnded {
        self.tasks.ended().await
    }

    /// Ends the streams, and waits until they are closed, some seconds at most.
    pub async fn stop(mut self) {
        self.closing.send_replace(true);
        if tokio::time::timeout(STOP, self.tasks.join()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

async fn bind(
    what: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let error = |source| StartError::Listen {
        what,
        flag,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let bound = listener.local_addr().map_err(error)?;
    Ok((listener, bound))
}

/// A socket that listens, and where.
type Bound = (TcpListener, SocketAddr);

/// What is open before anything is served.
struct Sockets {
    xds: Bound,
    api: Bound,
    metrics: Option<Bound>,
    insecure: Option<Bound>,
}

impl Sockets {
    async fn open(options: &Options) -> Result<Self, StartError> {
        let plain = options.insecure_ads_listen;
        if let Some(address) = plain.filter(|address| !address.ip().is_loopback()) {
            return Err(StartError::NotLoopback(address));
        }
        Ok(Sockets {
            xds: bind("xDS", "--xds-listen", options.xds_listen).await?,
            api: bind("the API", "--api-listen", options.api_listen).await?,
            metrics: match options.metrics_listen {
                Some(address) => Some(bind("metrics", "--metrics-listen", address).await?),
                None => None,
            },
            insecure: match options.insecure_ads_listen {
                Some(address) => {
                    Some(bind("plaintext ADS", "--insecure-ads-listen", address).await?)
                }
                None => None,
            },
        })
    }
}

impl Options {
    fn connection_limits(&self) -> ConnectionLimits {
        let files = descriptors::raise();
        let unverified = ConnectionLimits::unverified_of(files);
        let wanted = u64::try_from(self.max_streams + unverified).unwrap_or(u64::MAX);
        if wanted > files {
            tracing::warn!(
                files,
                max_streams = self.max_streams,
                "there may be fewer open files than proxies; raise RLIMIT_NOFILE (`ulimit -n`, `LimitNOFILE=`) or lower --max-streams"
            );
        }
        ConnectionLimits {
            verified: self.max_streams,
            unverified,
            of_address: self.max_connections_per_address,
            age: self.max_connection_age,
        }
    }
}

/// The xDS port, and the one for ADS without TLS, for tests and trusted networks.
fn serve_xds(
    tasks: &mut LongLivedTasks,
    grpc: Grpc,
    (secure, plaintext): (Bound, Option<Bound>),
    tls: Arc<ServerConfig>,
) -> (SocketAddr, Option<SocketAddr>) {
    tasks.spawn("waking streams", grpc.ads.0.dispatch());
    let (listener, xds) = secure;
    tasks.spawn("serving xDS", grpc.clone().serve(listener, Some(tls)));
    let plaintext = plaintext.map(|(listener, address)| {
        tracing::warn!(%address, "plaintext ADS is open: clients that reach it are believed without a certificate");
        tasks.spawn("serving plaintext ADS", grpc.serve(listener, None));
        address
    });
    (xds, plaintext)
}

/// The API's port, and the one for metrics and health.
fn serve_api(
    tasks: &mut LongLivedTasks,
    api: Arc<Api>,
    (people, monitoring): (Bound, Option<Bound>),
    closed: &watch::Receiver<bool>,
) -> (SocketAddr, Option<SocketAddr>) {
    let monitoring = monitoring.map(|(listener, address)| {
        let serving = Arc::clone(&api).serve(listener, ApiPort::Monitoring, closed.clone());
        tasks.spawn("serving metrics", serving);
        address
    });
    let (listener, address) = people;
    let serving = api.serve(listener, ApiPort::People, closed.clone());
    tasks.spawn("serving the API", serving);
    (address, monitoring)
}

/// With the CA of the state directory.
///
/// # Errors
/// When a file or folder of the state directory is not as it must be, or a socket can't be opened.
pub async fn start(
    options: Options,
    resources: Arc<dyn Resources>,
    declared: Arc<dyn Declared>,
) -> Result<Running, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    start_with(options, None, metrics, (resources, declared)).await
}

/// With another CA, where one is given: then the state directory has the API's token and nothing else.
///
/// # Errors
/// As [`start`].
pub async fn start_with(
    options: Options,
    issuing: Option<Issuing>,
    metrics: Arc<Metrics>,
    (resources, declared): (Arc<dyn Resources>, Arc<dyn Declared>),
) -> Result<Running, StartError> {
    let sockets = Sockets::open(&options).await?;
    let secrets = Secrets::open(&options, issuing)?;
    let token_file = options.state_dir.join("api-token");
    let auth = Auth::open(&token_file, sockets.api.1, &options.api_hosts)?;
    let (closing, closed) = watch::channel(false);
    let registry = Arc::new(Registry::default());
    let agents = Arc::new(Agents::new(Arc::clone(&metrics)));
    let limits = options.connection_limits();
    let Issuing { authority, first } = secrets.issuing;
    let domain = options.trust_domain;
    let grpc = Grpc {
        ads: SharedAds(Arc::new(Ads::new(
            Arc::clone(&resources),
            Arc::clone(&registry),
            Arc::clone(&metrics),
            closed.clone(),
            (options.max_streams, SessionLimits::default()),
            &domain,
        ))),
        ca: SharedCa(Arc::new(CertificateService::new(
            Arc::clone(&authority),
            first,
            Arc::clone(&resources),
            Arc::clone(&metrics),
        ))),
        inspect: InspectService {
            agents: Arc::clone(&agents),
            resources: Arc::clone(&resources),
            trust_domain: domain,
            streams: StreamLimit::new(options.max_streams),
            closing: closed.clone(),
        },
        admission: Admission::new(limits),
        limits,
        metrics: Arc::clone(&metrics),
        closing: closed.clone(),
    };
    let shown = Arc::new(Api {
        auth,
        registry,
        agents,
        resources,
        declared,
        authority: Arc::clone(&authority),
        metrics: Arc::clone(&metrics),
        load: Arc::default(),
        others: OnceLock::new(),
    });
    let mut tasks = LongLivedTasks::default();
    let ports = (sockets.xds, sockets.insecure);
    let (xds, insecure_ads) = serve_xds(&mut tasks, grpc, ports, secrets.tls);
    let ports = (sockets.api, sockets.metrics);
    let (api, metrics_port) = serve_api(&mut tasks, Arc::clone(&shown), ports, &closed);
    let renewal = serving::keep_renewed(
        secrets.serving,
        Arc::clone(&authority),
        secrets.renew_in,
        closed,
    );
    tasks.spawn("renewing the control plane's certificate", renewal);
    Ok(Running {
        xds,
        api,
        metrics_port,
        insecure_ads,
        token_file,
        shown,
        authority,
        metrics,
        closing,
        tasks,
        _lock: secrets.lock,
    })
}

/// The gRPC services, for each port that serves them.
#[derive(Clone)]
struct Grpc {
    ads: SharedAds,
    ca: SharedCa,
    inspect: InspectService,
    admission: Arc<Admission>,
    limits: ConnectionLimits,
    metrics: Arc<Metrics>,
    closing: watch::Receiver<bool>,
}

impl Grpc {
    async fn serve(self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        let (ready, connections) = mpsc::channel(16);
        let acceptor = Acceptor {
            tls: tls.map(TlsAcceptor::from),
            admission: self.admission,
            limits: self.limits,
            metrics: self.metrics,
        };
        let accepting = tokio::spawn(acceptor.run(listener, ready));
        let ads =
            AggregatedDiscoveryServiceServer::new(self.ads).max_decoding_message_size(MAX_REQUEST);
        let authenticate = Authenticate(Arc::clone(&self.ca.0));
        let ca = IstioCertificateServiceServer::new(self.ca)
            .max_decoding_message_size(service::MAX_REQUEST);
        let ca = InterceptedService::new(ca, authenticate);
        let mut closing = self.closing;
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
            .max_connection_age(self.limits.age)
            .max_connection_age_grace(self.limits.grace())
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_max_header_list_size(16 << 10)
            .add_service(ads)
            .add_service(ca)
            .add_service(InspectServer::new(self.inspect))
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                // Closed: the process ends anyway.
                let _ = closing.wait_for(|closing| *closing).await;
            });
        if let Err(error) = served.await {
            tracing::error!(%error, "the gRPC server ended");
        }
        accepting.abort();
    }
}
