//! Counters per listener, per cluster and (`filter`) per HTTP filter, under Envoy's names. Handles are
//! taken when the resource compiles; a dropped resource removes its series.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::registry::{Registry, RegistryError};

/// The largest number of event types in one counter.
pub const MAX_TYPES: usize = 7;

/// A counter by type of event, of which few ever happen: a series begins with its first one.
pub struct ByType {
    family: IntCounterVec,
    name: Box<str>,
    series: [OnceLock<(IntCounter, &'static str)>; MAX_TYPES],
}

impl ByType {
    fn new(name: &str, family: &IntCounterVec) -> Self {
        Self {
            family: family.clone(),
            name: name.into(),
            series: Default::default(),
        }
    }

    /// `index`: of the type, below how many there are; `label`: its name.
    pub fn inc(&self, index: usize, label: &'static str) {
        self.add(index, label, 1);
    }

    /// The same, for several events at once.
    pub fn add(&self, index: usize, label: &'static str, count: usize) {
        if let Some(series) = self.series.get(index).filter(|_| count > 0) {
            let make = || (self.family.with_label_values(&[&*self.name, label]), label);
            series.get_or_init(make).0.inc_by(count as u64);
        }
    }
}

impl ByType {
    fn remove(&self) {
        for (_, label) in self.series.iter().filter_map(OnceLock::get) {
            // Fails only when the series is gone already.
            let _ = self.family.remove_label_values(&[&*self.name, *label]);
        }
    }
}

/// How many handles of a name are held. A removed resource may be dropped late, by a connection
/// that held it, when one of the same name exists: the series then belong to that one.
#[derive(Clone, Default)]
struct Holders(Arc<Mutex<HashMap<Box<str>, usize>>>);

impl Holders {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more handle for `name`; the series that `take` returns is not removed meanwhile.
    fn join<T>(&self, name: &str, take: impl FnOnce() -> T) -> T {
        let mut holders = self.lock();
        let count = holders.entry(name.into()).or_default();
        *count = count.saturating_add(1);
        take()
    }

    /// One less; `remove` runs when it was the last.
    fn leave(&self, name: &str, remove: impl FnOnce()) {
        let mut holders = self.lock();
        match holders.get_mut(name) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => {
                holders.remove(name);
                remove();
            }
        }
    }
}

macro_rules! resource_metrics {
    (
        $(#[$doc:meta])* $metrics:ident, $families:ident, $label:literal;
        counters { $($(#[$cdoc:meta])* $counter:ident = $cname:literal, $chelp:literal;)* }
        gauges { $($(#[$gdoc:meta])* $gauge:ident = $gname:literal, $ghelp:literal;)* }
        typed { $($(#[$tdoc:meta])* $typed:ident = $tname:literal, $thelp:literal;)* }
    ) => {
        $(#[$doc])*
        pub struct $metrics {
            $($(#[$cdoc])* pub $counter: IntCounter,)*
            $($(#[$gdoc])* pub $gauge: IntGauge,)*
            $($(#[$tdoc])* pub $typed: ByType,)*
            name: Box<str>,
            families: $families,
        }

        /// The families behind the handles.
        #[derive(Clone)]
        pub struct $families {
            $($counter: IntCounterVec,)*
            $($gauge: IntGaugeVec,)*
            $($typed: IntCounterVec,)*
            holders: Holders,
        }

        impl $families {
            /// # Errors
            /// When the families were registered before.
            pub fn new(registry: &Registry) -> Result<Self, RegistryError> {
                Ok(Self {
                    $($counter: registry.counters($cname, $chelp, &[$label])?,)*
                    $($gauge: registry.gauges($gname, $ghelp, &[$label])?,)*
                    $($typed: registry.counters($tname, $thelp, &[$label, "type"])?,)*
                    holders: Holders::default(),
                })
            }

            /// Handles for the resource called `name`.
            pub fn handles(&self, name: &str) -> $metrics {
                self.holders.join(name, || $metrics {
                    $($counter: self.$counter.with_label_values(&[name]),)*
                    $($gauge: self.$gauge.with_label_values(&[name]),)*
                    $($typed: ByType::new(name, &self.$typed),)*
                    name: name.into(),
                    families: self.clone(),
                })
            }
        }

        impl Drop for $metrics {
            fn drop(&mut self) {
                self.families.holders.leave(&self.name, || {
                    // Fails only when the series is gone already.
                    $(let _ = self.families.$counter.remove_label_values(&[&self.name]);)*
                    $(let _ = self.families.$gauge.remove_label_values(&[&self.name]);)*
                    $(self.$typed.remove();)*
                });
            }
        }
    };
}

mod filter;

pub use self::filter::{
    CompressorFamilies, CompressorMetrics, CsrfFamilies, CsrfMetrics, DecompressorFamilies,
    DecompressorMetrics, HeaderToMetadataFamilies, HeaderToMetadataMetrics, JwtAuthnFamilies,
    JwtAuthnMetrics,
};

resource_metrics! {
    /// Counters of one listener.
    ListenerMetrics, ListenerFamilies, "listener";
    counters {
        connections = "anyam_listener_connections_total", "Connections accepted.";
        no_chain = "anyam_listener_no_filter_chain_total",
            "Connections closed because no filter chain matches them.";
        tls_errors = "anyam_listener_tls_errors_total", "TLS handshakes that failed.";
        refused = "anyam_listener_refused_total",
            "Connections closed because of a limit on connections.";
        accept_errors = "anyam_listener_accept_errors_total",
            "Times that accepting had to pause: no descriptors or memory left.";
        tunnels = "anyam_listener_tunnels_total",
            "Connections that came inside another connection.";
        tunnels_refused = "anyam_listener_tunnels_refused_total",
            "CONNECT requests that were refused: not an address of this workload, or not allowed.";
        idle_closed = "anyam_listener_idle_closed_total",
            "Idle HTTP connections closed because nearly as many as may be are open.";
        http2_floods = "anyam_listener_http2_floods_total",
            "HTTP/2 connections closed because the client sent too many control frames.";
        rbac_denied = "anyam_listener_rbac_denied_total",
            "Connections and requests that authorisation refused.";
        rbac_shadow_denied = "anyam_listener_rbac_shadow_denied_total",
            "Connections and requests that shadow rules would have denied.";
    }
    gauges {
        active = "anyam_listener_connections_active", "Connections open.";
    }
    typed {}
}

resource_metrics! {
    /// Counters of one cluster.
    ClusterMetrics, ClusterFamilies, "cluster";
    counters {
        connections = "anyam_cluster_connections_total", "Connections dialled.";
        tunnels = "anyam_cluster_tunnel_connections_total",
            "HTTP/2 connections dialled to carry others.";
        http2_floods = "anyam_cluster_http2_floods_total",
            "HTTP/2 connections closed because the upstream sent too many control frames.";
        connect_failures = "anyam_cluster_connect_failures_total", "Connections that failed.";
        connect_timeouts = "anyam_cluster_connect_timeouts_total",
            "Connections that took longer than connect_timeout.";
        requests = "anyam_cluster_requests_total", "Requests sent, retries included.";
        retries = "anyam_cluster_retries_total", "Requests sent again.";
        resends = "anyam_cluster_resends_total",
            "Requests sent again, beside retries, because their kept connection had been closed.";
        unproven_resends = "anyam_cluster_unproven_resends_total",
            "Resends of safe requests without proof that nothing of them had arrived.";
        retry_overflows = "anyam_cluster_retry_overflows_total",
            "Retries that the retry limit or budget forbade.";
        overflows = "anyam_cluster_overflows_total",
            "Connections and requests that a circuit breaker rejected.";
        mirror_overflows = "anyam_cluster_mirror_overflows_total",
            "Mirrored requests that were abandoned because they were too slow.";
        mirror_failures = "anyam_cluster_mirror_failures_total",
            "Mirrored requests that failed or were not answered for another reason.";
        ejections = "anyam_cluster_ejections_total", "Endpoints ejected by outlier detection.";
        ejections_overflow = "anyam_cluster_outlier_detection_ejections_overflow_total",
            "Outliers that were not ejected because max_ejection_percent was reached.";
        no_endpoint = "anyam_cluster_no_endpoint_total",
            "Picks without a healthy endpoint.";
        healthy_panic = "anyam_cluster_lb_healthy_panic_total",
            "Picks that disregarded health because too few endpoints are healthy.";
        speculative = "anyam_cluster_speculative_dials_total",
            "Connections dialled before the client spoke.";
    }
    gauges {
        active_connections = "anyam_cluster_connections_active", "Connections open.";
        ejections_active = "anyam_cluster_outlier_detection_ejections_active",
            "Endpoints that are ejected.";
        members = "anyam_cluster_endpoints", "Endpoints.";
        members_healthy = "anyam_cluster_endpoints_healthy",
            "Endpoints that are healthy by all that is known.";
        members_degraded = "anyam_cluster_endpoints_degraded", "Endpoints that are degraded.";
        members_excluded = "anyam_cluster_endpoints_excluded",
            "Endpoints without which shares of healthy ones are counted.";
        subsets_active = "anyam_cluster_lb_subsets_active", "Subsets of endpoints.";
    }
    typed {
        ejections_detected = "anyam_cluster_outlier_detection_ejections_detected_total",
            "Outliers found, by detector, whether or not they were ejected.";
        ejections_enforced = "anyam_cluster_outlier_detection_ejections_enforced_total",
            "Endpoints ejected, by detector.";
        zones = "anyam_cluster_lb_zone_total",
            "Zone-aware routing: decisions of picks, and what stood in its way.";
        subsets = "anyam_cluster_lb_subsets_total",
            "Subsets created and removed, picks that selected one or fell back.";
    }
}

resource_metrics! {
    /// Counters of the active health checks of one cluster.
    HealthCheckMetrics, HealthCheckFamilies, "cluster";
    counters {
        attempts = "anyam_cluster_health_check_attempts_total", "Health checks begun.";
        successes = "anyam_cluster_health_check_successes_total", "Health checks passed.";
        failures = "anyam_cluster_health_check_failures_total",
            "Health checks failed, and reports by endpoints that they are to have no more requests.";
        passive_failures = "anyam_cluster_health_check_passive_failures_total",
            "Reports by endpoints, in answers to requests, that they are to have no more.";
        network_failures = "anyam_cluster_health_check_network_failures_total",
            "Health checks without an answer.";
        verify_cluster = "anyam_cluster_health_check_verify_cluster_total",
            "Answers whose service name was compared.";
    }
    gauges {
        healthy = "anyam_cluster_health_check_healthy",
            "Checked endpoints that pass their health checks.";
        degraded = "anyam_cluster_health_check_degraded",
            "Checked endpoints that say that they are degraded.";
    }
    typed {}
}

/// Counts an open connection of a listener.
pub struct OpenConnection(Arc<ListenerMetrics>);

impl OpenConnection {
    pub fn of(listener: &Arc<ListenerMetrics>) -> Self {
        listener.active.inc();
        Self(listener.clone())
    }

    /// From here on it is a connection of `listener`, which it may have been already. As in Envoy,
    /// those that are handed over to the listener of their original destination are that one's.
    pub fn hand_over(&mut self, listener: &Arc<ListenerMetrics>) {
        if !Arc::ptr_eq(&self.0, listener) {
            listener.connections.inc();
            *self = Self::of(listener);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_and_go_with_their_resource() {
        let registry = Registry::new().unwrap();
        let families = ClusterFamilies::new(&registry).unwrap();
        let metrics = families.handles("shop");
        metrics.requests.inc();
        let text = || String::from_utf8(registry.expose().unwrap()).unwrap();
        assert!(text().contains("anyam_cluster_requests_total{cluster=\"shop\"} 1"));
        // One of the same name is made before the last connection of this one is closed.
        let next = families.handles("shop");
        metrics.ejections_enforced.inc(0, "consecutive_5xx");
        drop(metrics);
        next.requests.inc();
        assert!(text().contains("anyam_cluster_requests_total{cluster=\"shop\"} 2"));
        next.ejections_enforced.inc(0, "consecutive_5xx");
        drop(next);
        assert!(!text().contains("cluster=\"shop\""));
    }
}
