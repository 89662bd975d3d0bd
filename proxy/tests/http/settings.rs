//! What a test's configuration is before it changes anything.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyam_proxy::config::cluster::UpstreamHttp1;
use anyam_proxy::config::filter::{
    FaultInjection, FaultPart, FilterConfig, FilterName, FilterNames, HttpFilter, Percent,
    RouteRateLimits,
};
use anyam_proxy::config::http::{
    CodecType, ForwardClientCert, Http1Options, Http2Options, HttpConnectionManager, ServerHeader,
    StripPort, UnderscoresInNames,
};
use anyam_proxy::config::policy::{Permission, Policy, Principal, Rbac, RbacAction, Rules};
use anyam_proxy::config::route::{
    Action, ClusterSpecifier, HeaderEdits, HostRewrite, PathMatch, PathRewrite, RetryOn,
    RetryPolicy, Route, RouteAction, RouteMatch,
};
use anyam_proxy::config::{ClusterRef, RouteRef};
use anyam_proxy::message::path::PathOptions;
use anyam_proxy::metadata::Object;

pub fn route(path: PathMatch, action: Action) -> Arc<Route> {
    Arc::new(Route {
        name: "route".into(),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            metadata: Vec::new(),
            grpc: false,
            fraction: None,
            plaintext: None,
        },
        action,
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        filters: None,
    })
}

pub fn forward() -> RouteAction {
    RouteAction {
        target: ClusterSpecifier::Cluster(ClusterRef(0)),
        cluster_not_found: 503,
        rewrite: PathRewrite::None,
        host_rewrite: HostRewrite::None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        max_stream_duration: None,
        max_grpc_timeout: None,
        retry: None,
        hash_policy: None,
        subset: None,
        upgrades: Vec::new(),
        rate_limits: RouteRateLimits::default(),
        mirrors: Vec::new(),
    }
}

/// Retries with short pauses.
pub fn retry(on: RetryOn, times: u32) -> Option<Arc<RetryPolicy>> {
    let policy = RetryPolicy {
        avoid_previous_hosts: true,
        ..retry_after(Duration::from_millis(1), on, times)
    };
    Some(Arc::new(policy))
}

/// Retries after pauses of `back_off` at least and ten times as much at most.
pub fn retry_after(back_off: Duration, on: RetryOn, times: u32) -> RetryPolicy {
    RetryPolicy {
        on,
        num_retries: times,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        back_off_floor: Duration::ZERO,
        back_off_base: back_off,
        back_off_max: back_off * 10,
        avoid_previous_hosts: false,
    }
}

/// The rules of one policy.
pub fn rules(
    action: RbacAction,
    name: &str,
    permissions: Vec<Permission>,
    principal: Principal,
) -> Arc<Rbac> {
    let policy = Policy {
        name: name.into(),
        permissions,
        principals: vec![principal],
    };
    Arc::new(Rbac {
        enforced: Some(Rules {
            action,
            policies: vec![policy],
        }),
        shadow: None,
    })
}

/// A filter's name, the same for the chain and for routes.
pub fn filter_name(name: &str) -> FilterName {
    static NAMES: LazyLock<FilterNames> = LazyLock::new(FilterNames::default);
    NAMES.intern(name)
}

pub fn filter(name: &str, config: FilterConfig) -> HttpFilter {
    HttpFilter {
        name: filter_name(name),
        disabled: false,
        config,
    }
}

pub fn rbac(rules: Arc<Rbac>) -> HttpFilter {
    filter("rbac", FilterConfig::Rbac(rules))
}

/// Delays every request; `active`: how many are being delayed.
pub fn delay(time: Duration, active: Arc<AtomicU32>) -> FaultInjection {
    let percent = Percent {
        numerator: 100,
        denominator: 100,
    };
    FaultInjection {
        delay: Some(FaultPart {
            percent,
            fixed: Some(time),
        }),
        abort: None,
        response_rate: None,
        upstream_cluster: None,
        headers: Vec::new(),
        downstream_nodes: Vec::new(),
        max_active: None,
        metadata: Object::default(),
        active,
    }
}

pub fn http1() -> UpstreamHttp1 {
    UpstreamHttp1 {
        preserve_case: true,
        forward_reason: true,
    }
}

pub fn http2() -> Http2Options {
    Http2Options {
        max_concurrent_streams: 100,
        initial_stream_window: 256 * 1024,
        initial_connection_window: 1 << 20,
        max_frame_size: 16384,
        max_resets: 50,
        keepalive_interval: None,
        keepalive_timeout: Duration::from_secs(5),
        allow_connect: true,
    }
}

pub fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        codec: CodecType::Auto,
        routes: RouteRef(0),
        filters: Vec::new(),
        access_log: Vec::new(),
        path: PathOptions::default(),
        strip_port: StripPort::Keep,
        strip_trailing_host_dot: false,
        server_header: ServerHeader::PassThrough,
        via: None,
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_uri: false,
        generate_request_id: true,
        preserve_external_request_id: false,
        always_set_request_id_in_response: false,
        proxy_100_continue: false,
        upgrades: vec!["websocket".into(), "connect".into()],
        idle_timeout: Some(Duration::from_secs(60)),
        max_connection_duration: None,
        max_requests_per_connection: None,
        max_stream_duration: None,
        stream_idle_timeout: Some(Duration::from_secs(60)),
        request_timeout: None,
        request_headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        delayed_close_timeout: Duration::from_secs(1),
        max_request_headers_bytes: 60 * 1024,
        max_headers_count: 100,
        underscores: UnderscoresInNames::Allow,
        http1: Http1Options {
            accept_http_10: true,
            allow_absolute_url: true,
            preserve_case: true,
            forward_reason: true,
        },
        http2: http2(),
        local_replies: None,
        proxy_status: true,
    }
}
