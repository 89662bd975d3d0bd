//! Key sets that are fetched.

use std::sync::Arc;
use std::time::Duration;

use xds_proto::envoy::config::core::v3 as core;
use xds_proto::envoy::extensions::filters::http::jwt_authn::v3 as pb;

use crate::config::compile::support::{
    At, CompileError, duration, ignored, positive, required, u32_or, unsupported,
};
use crate::jwt::remote::{FetchRetries, RemoteKeys, RemoteSettings};
use crate::metrics::JwtAuthnMetrics;

/// Envoy's defaults.
const CACHED: Duration = Duration::from_secs(600);
const REFETCH: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_secs(1);
/// The longest that one attempt may take, whatever is configured: requests wait for it.
const LONGEST: Duration = Duration::from_secs(300);
const MOST_RETRIES: u32 = 100;

pub fn remote(
    at: At<'_>,
    m: &pb::RemoteJwks,
    metrics: &Arc<JwtAuthnMetrics>,
) -> Result<Arc<RemoteKeys>, CompileError> {
    let pb::RemoteJwks {
        http_uri,
        cache_duration,
        async_fetch,
        retry_policy,
    } = m;
    let m = required!(at, http_uri);
    let cached = positive(at.field("cache_duration"), cache_duration, CACHED)?;
    let refetch = match async_fetch {
        Some(m) => Some(refetch(at.field("async_fetch"), m)?),
        None => None,
    };
    let retries = match retry_policy {
        Some(m) => retries(at.field("retry_policy"), m)?,
        None => FetchRetries::default(),
    };
    let settings = RemoteSettings {
        cached,
        refetch,
        retries,
        ..settings(at.field("http_uri"), m)?
    };
    Ok(Arc::new(RemoteKeys::new(settings, metrics.clone())))
}

/// Where from.
fn settings(at: At<'_>, m: &core::HttpUri) -> Result<RemoteSettings, CompileError> {
    let core::HttpUri {
        uri,
        timeout,
        http_upstream_type,
    } = m;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) = required!(at, http_upstream_type);
    if cluster.is_empty() {
        return at.field("cluster").fail("is required");
    }
    let timeout = match duration(at.field("timeout"), timeout)? {
        None => return at.field("timeout").fail("is required"),
        Some(Duration::ZERO) => return at.field("timeout").fail("must be above zero"),
        Some(time) => time.min(LONGEST),
    };
    let at = at.field("uri");
    let Ok(parsed) = uri.parse::<http::Uri>() else {
        return at.fail(format_args!("`{uri}` is not a URI"));
    };
    let scheme = match parsed.scheme_str() {
        Some("http") => "http",
        Some("https") => "https",
        _ => return at.fail("is neither http nor https"),
    };
    let authority = parsed.authority().map(http::uri::Authority::as_str);
    let authority = authority.filter(|text| !text.is_empty() && !text.contains('@'));
    let Some(authority) = authority else {
        return at.fail("has no host, or names a user");
    };
    Ok(RemoteSettings {
        cluster: cluster.as_str().into(),
        scheme,
        authority: authority.into(),
        path: parsed
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .into(),
        timeout,
        cached: CACHED,
        retries: FetchRetries::default(),
        refetch: None,
    })
}

fn refetch(at: At<'_>, m: &pb::JwksAsyncFetch) -> Result<Duration, CompileError> {
    let pb::JwksAsyncFetch {
        fast_listener,
        failed_refetch_duration,
    } = m;
    ignored!(
        "listeners open at once, and a request waits for the first fetch",
        fast_listener
    );
    let at = at.field("failed_refetch_duration");
    positive(at, failed_refetch_duration, REFETCH)
}

fn retries(at: At<'_>, m: &core::RetryPolicy) -> Result<FetchRetries, CompileError> {
    let core::RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
    } = m;
    unsupported!(at, retry_priority, retry_host_predicate);
    ignored!(
        "a fetch is tried again after whatever failed, as in Envoy",
        retry_on
    );
    ignored!(
        "an endpoint that was not tried is found whenever there is one",
        host_selection_retry_max_attempts
    );
    let most = u32_or(num_retries, 1);
    if most > MOST_RETRIES {
        let at = at.field("num_retries");
        return at.fail(format_args!("is more than {MOST_RETRIES}"));
    }
    let (base, max) = match retry_back_off {
        None => (BACK_OFF, BACK_OFF * 10),
        Some(m) => {
            let at = at.field("retry_back_off");
            let core::BackoffStrategy {
                base_interval,
                max_interval,
            } = m;
            let base = positive(at.field("base_interval"), base_interval, BACK_OFF)?;
            let most = base.saturating_mul(10);
            let max = positive(at.field("max_interval"), max_interval, most)?;
            if max < base {
                return at.field("max_interval").fail("is below base_interval");
            }
            (base, max)
        }
    };
    Ok(FetchRetries { most, base, max })
}
