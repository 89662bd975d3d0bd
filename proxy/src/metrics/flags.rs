//! Envoy's response flags: why a request or connection ended other than well.
//! Source: Envoy's access log documentation, `%RESPONSE_FLAGS%`.

/// A set of response flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            /// Every flag with its short and long name, in the order in which they arise: so Envoy logs
            /// them.
            const NAMES: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$name, $short, $long)),*];
        }
    };
}

flags! {
    /// A health check of this proxy failed.
    FAILED_LOCAL_HEALTH_CHECK = 21, "LH", "FailedLocalHealthCheck";
    /// Delayed by the fault filter.
    DELAY_INJECTED = 0, "DI", "DelayInjected";
    /// Aborted by the fault filter.
    FAULT_INJECTED = 1, "FI", "FaultInjected";
    /// Over a local rate limit.
    RATE_LIMITED = 2, "RL", "RateLimited";
    /// The retry limit was reached.
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 3, "URX", "UpstreamRetryLimitExceeded";
    /// No healthy endpoint.
    NO_HEALTHY_UPSTREAM = 4, "UH", "NoHealthyUpstream";
    /// The connection to the endpoint could not be made.
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// A circuit breaker was open.
    UPSTREAM_OVERFLOW = 6, "UO", "UpstreamOverflow";
    /// No route, or no filter chain.
    NO_ROUTE_FOUND = 7, "NR", "NoRouteFound";
    /// The cluster is not known.
    NO_CLUSTER_FOUND = 8, "NC", "NoClusterFound";
    /// The connection lasted longer than allowed.
    DURATION_TIMEOUT = 9, "DT", "DurationTimeout";
    /// The downstream connection ended.
    DOWNSTREAM_CONNECTION_TERMINATION = 10, "DC", "DownstreamConnectionTermination";
    /// Reset by us.
    LOCAL_RESET = 11, "LR", "LocalReset";
    /// Reset by the endpoint.
    UPSTREAM_REMOTE_RESET = 12, "UR", "UpstreamRemoteReset";
    /// The endpoint's connection ended.
    UPSTREAM_CONNECTION_TERMINATION = 13, "UC", "UpstreamConnectionTermination";
    /// Authorisation refused.
    UNAUTHORIZED = 14, "UAEX", "UnauthorizedExternalService";
    /// The downstream peer broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 15, "DPE", "DownstreamProtocolError";
    /// The endpoint broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 16, "UPE", "UpstreamProtocolError";
    /// The endpoint did not answer in time.
    UPSTREAM_REQUEST_TIMEOUT = 17, "UT", "UpstreamRequestTimeout";
    /// A stream made no progress for too long.
    STREAM_IDLE_TIMEOUT = 18, "SI", "StreamIdleTimeout";
    /// The downstream peer reset the stream.
    DOWNSTREAM_REMOTE_RESET = 19, "DR", "DownstreamRemoteReset";
    /// A local limit refused it.
    OVERLOAD_MANAGER = 20, "OM", "OverloadManagerTerminated";
}

impl ResponseFlags {
    pub const NONE: Self = Self(0);
    /// How many there are.
    pub const COUNT: usize = Self::NAMES.len();

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The flag with this short name.
    pub fn parse(short: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, name, _)| *name == short)
            .map(|(flag, _, _)| *flag)
    }

    /// The places of its flags among all, each below [`ResponseFlags::COUNT`].
    pub fn places(self) -> impl Iterator<Item = usize> {
        let all = Self::NAMES.iter().enumerate();
        all.filter(move |(_, (flag, _, _))| self.contains(*flag))
            .map(|(place, _)| place)
    }

    /// Short names of all flags, by place.
    pub fn all_short_names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().map(|(_, short, _)| *short)
    }

    /// Short names, in Envoy's order.
    pub fn short_names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .iter()
            .filter(move |(flag, _, _)| self.contains(*flag))
            .map(|(_, n, _)| *n)
    }

    /// Long names, in Envoy's order.
    pub fn long_names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .iter()
            .filter(move |(flag, _, _)| self.contains(*flag))
            .map(|(_, _, n)| *n)
    }

    /// Comma-separated short names, `-` when empty: the metric label.
    pub fn label(self) -> String {
        if self.is_empty() {
            return "-".into();
        }
        self.short_names().collect::<Vec<_>>().join(",")
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_envoys_order_and_parse_back() {
        let set = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED
            | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert_eq!(set.label(), "URX,UF");
        assert_eq!(ResponseFlags::NONE.label(), "-");
        for (flag, short, _) in ResponseFlags::NAMES {
            assert_eq!(ResponseFlags::parse(short), Some(*flag));
        }
        assert_eq!(ResponseFlags::parse("XX"), None);
    }
}
