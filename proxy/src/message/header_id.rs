//! Well-known header names as small numbers, found once while parsing.
//!
//! [`HeaderId::of`] hashes length, first and last byte into a table that is built at compile time;
//! no string is compared unless those three agree.

macro_rules! header_ids {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// A well-known header's small number; everything else is [`HeaderId::Other`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum HeaderId {
            #[default]
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant),+
        }

        /// Names in the order of the ids; the first stands for [`HeaderId::Other`].
        pub(crate) const NAMES: &[&str] = &["", $($name),+];
        const IDS: &[HeaderId] = &[HeaderId::Other, $(HeaderId::$variant),+];

        impl HeaderId {
            /// The lower-case name; empty for [`HeaderId::Other`].
            #[inline]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other => "",
                    $(Self::$variant => $name),+
                }
            }

            /// The lower-case name, colon and blank; empty for [`HeaderId::Other`].
            #[inline]
            pub(crate) const fn line_start(self) -> &'static str {
                match self {
                    Self::Other => "",
                    $(Self::$variant => concat!($name, ": ")),+
                }
            }
        }
    };
}

header_ids! {
    // Pseudo-headers: never fields of a head, but matchers and HTTP/2 name them.
    PseudoMethod = ":method",
    PseudoScheme = ":scheme",
    PseudoAuthority = ":authority",
    PseudoPath = ":path",
    PseudoStatus = ":status",
    PseudoProtocol = ":protocol",

    // Framing, routing and hop-by-hop.
    Host = "host",
    Connection = "connection",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    Expect = "expect",
    Te = "te",
    Trailer = "trailer",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Http2Settings = "http2-settings",
    MaxForwards = "max-forwards",
    Via = "via",

    // Identity and provenance.
    Authorization = "authorization",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedClientCert = "x-forwarded-client-cert",
    XRealIp = "x-real-ip",

    // Tracing.
    XRequestId = "x-request-id",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    B3 = "b3",
    XB3TraceId = "x-b3-traceid",
    XB3SpanId = "x-b3-spanid",
    XB3ParentSpanId = "x-b3-parentspanid",
    XB3Sampled = "x-b3-sampled",
    XB3Flags = "x-b3-flags",

    // gRPC.
    GrpcTimeout = "grpc-timeout",
    GrpcStatus = "grpc-status",
    GrpcMessage = "grpc-message",
    GrpcEncoding = "grpc-encoding",
    GrpcAcceptEncoding = "grpc-accept-encoding",
    GrpcStatusDetails = "grpc-status-details-bin",

    // Representation, conditions, caching.
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    AcceptRanges = "accept-ranges",
    Age = "age",
    CacheControl = "cache-control",
    ContentEncoding = "content-encoding",
    ContentLanguage = "content-language",
    ContentLocation = "content-location",
    ContentRange = "content-range",
    ContentType = "content-type",
    Date = "date",
    Etag = "etag",
    Expires = "expires",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Pragma = "pragma",
    Range = "range",
    Referer = "referer",
    RetryAfter = "retry-after",
    Server = "server",
    UserAgent = "user-agent",
    Vary = "vary",
    Warning = "warning",
    WwwAuthenticate = "www-authenticate",
    ProxyStatus = "proxy-status",

    // Envoy's own.
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalDstHost = "x-envoy-original-dst-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",

    // Anyam's own.
    XAnyamHeaderCase = "x-anyam-header-case",
    XAnyamUnprocessed = "x-anyam-unprocessed",
}

/// Some well-known headers; never [`HeaderId::Other`].
#[derive(Clone, Copy, Debug)]
pub struct IdSet(pub(crate) u128);

impl IdSet {
    #[expect(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        reason = "at compile time"
    )]
    pub const fn of(ids: &[HeaderId]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < ids.len() {
            bits |= ids[at].bit();
            at += 1;
        }
        Self(bits & !HeaderId::Other.bit())
    }

    #[inline]
    pub const fn contains(self, id: HeaderId) -> bool {
        self.0 & id.bit() != 0
    }
}

// The presence set of a head is 128 bits wide.
const _: () = assert!(NAMES.len() <= 128);

const SLOTS: usize = 1024;
const TABLE: [u8; SLOTS] = build();

const fn slot(len: usize, first: u8, last: u8) -> usize {
    let (first, last) = ((first | 0x20) as usize, (last | 0x20) as usize);
    let mixed = len.wrapping_mul(61).wrapping_add(first.wrapping_mul(37));
    mixed.wrapping_add(last.wrapping_mul(5)) & (SLOTS - 1)
}

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "at compile time"
)]
const fn build() -> [u8; SLOTS] {
    let mut table = [0; SLOTS];
    let mut id = 1;
    while id < NAMES.len() {
        let name = NAMES[id].as_bytes();
        let mut at = slot(name.len(), name[0], name[name.len() - 1]);
        while table[at] != 0 {
            at = (at + 1) & (SLOTS - 1);
        }
        table[at] = id as u8;
        id += 1;
    }
    table
}

impl HeaderId {
    /// The id of a field name, whatever its case.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let (Some(&first), Some(&last)) = (name.first(), name.last()) else {
            return Self::Other;
        };
        let mut at = slot(name.len(), first, last);
        loop {
            let id = usize::from(TABLE.get(at).copied().unwrap_or(0));
            let (Some(known), Some(&found)) = (NAMES.get(id), IDS.get(id)) else {
                return Self::Other;
            };
            if found == Self::Other
                || known.len() == name.len() && eq_ignore_case(name, known.as_bytes())
            {
                return found;
            }
            at = at.wrapping_add(1) & (SLOTS - 1);
        }
    }

    /// Fields that concern one connection and are never forwarded (RFC 9110 7.6.1).
    /// `Upgrade` and `TE` are among them; the encoder writes them anew where they still hold.
    #[inline]
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// The header that a name stands for where `_` and `-` are the same, as in CGI and WSGI.
    pub fn of_variable(name: &[u8]) -> Self {
        let mut dashed = [0; LONGEST];
        let Some(dashed) = dashed.get_mut(..name.len()) else {
            return Self::Other;
        };
        for (to, from) in dashed.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        Self::of(dashed)
    }

    #[inline]
    pub const fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::PseudoMethod
                | Self::PseudoScheme
                | Self::PseudoAuthority
                | Self::PseudoPath
                | Self::PseudoStatus
                | Self::PseudoProtocol
        )
    }

    #[inline]
    pub(crate) const fn bit(self) -> u128 {
        1 << self as u8
    }
}

/// Whether `text` is `name`, which is in lower case and as long, in some case. Eight bytes at a
/// time: this runs for every field of every head.
#[inline]
fn eq_ignore_case(text: &[u8], name: &[u8]) -> bool {
    // Of letters the case bit may differ; in lower case, only letters have bit 6.
    let fits = |text: u64, name: u64| (text ^ name) & !((name & LETTERS) >> 1) == 0;
    let (Some(text_end), Some(name_end)) = (text.last_chunk::<8>(), name.last_chunk::<8>()) else {
        let mut pairs = text.iter().zip(name);
        return pairs.all(|(text, name)| fits(u64::from(*text), u64::from(*name)));
    };
    let words = text.as_chunks::<8>().0.iter().zip(name.as_chunks::<8>().0);
    let mut words = words.chain([(text_end, name_end)]);
    words.all(|(text, name)| fits(u64::from_ne_bytes(*text), u64::from_ne_bytes(*name)))
}

/// No well-known name is longer.
const LONGEST: usize = 48;

const LETTERS: u64 = u64::from_ne_bytes([0x40; 8]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (index, name) in NAMES.iter().enumerate().skip(1) {
            assert_eq!(HeaderId::of(name.as_bytes()) as usize, index, "{name}");
            let upper = name.to_ascii_uppercase();
            assert_eq!(HeaderId::of(upper.as_bytes()) as usize, index, "{upper}");
            assert_eq!(HeaderId::of(name.as_bytes()).name(), *name);
            assert_eq!(*name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn underscores_are_dashes_where_variables_are_made_of_names() {
        for (index, name) in NAMES.iter().enumerate().skip(1) {
            assert!(name.len() <= LONGEST, "{name}");
            let variable = name.replace('-', "_").to_ascii_uppercase();
            assert_eq!(HeaderId::of_variable(variable.as_bytes()) as usize, index);
        }
        assert_eq!(HeaderId::of_variable(&[b'_'; 100]), HeaderId::Other);
    }

    #[test]
    fn near_misses_are_other() {
        for name in [
            "",
            "h",
            "hosts",
            "xost",
            "hxst",
            "content_length",
            "x-envoy-",
            "te ",
            "\0",
            "content\rlength",
            "x-\x12eal-ip",
            "b\x13",
            "`ocation",
        ] {
            assert_eq!(HeaderId::of(name.as_bytes()), HeaderId::Other, "{name}");
        }
    }

    #[test]
    fn collisions_stay_rare() {
        let longest = (0..SLOTS)
            .map(|at| {
                (0..)
                    .take_while(|step| TABLE[(at + step) % SLOTS] != 0)
                    .count()
            })
            .max();
        assert!(longest < Some(8), "{longest:?} slots in a row");
    }
}
