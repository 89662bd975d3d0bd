//! Faults in a peer's bytes, and their responses.

/// The peer whose bytes are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultSide {
    /// A request, by the client.
    Downstream,
    /// A response, by the upstream.
    Upstream,
}

macro_rules! faults {
    ($($variant:ident = ($status:literal, $details:literal, $reason:literal)),+ $(,)?) => {
        /// Why a message was refused. After any of these the connection can't be used further:
        /// where the next message starts is not known.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $reason] $variant),+
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Status for the client when its own request is at fault.
            pub const fn request_status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// Envoy's response code details, where Envoy has one for this.
            pub const fn details(self) -> &'static str {
                match self { $(Self::$variant => $details),+ }
            }

            /// One sentence for the body of the answer and the log.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason),+ }
            }
        }
    };
}

faults! {
    // Start line.
    InvalidStartLine = (400, "http1.codec_error", "The start line is malformed."),
    Tls = (400, "http1.codec_error", "These bytes are TLS and not HTTP."),
    InvalidMethod = (400, "http1.codec_error", "The method is not a token."),
    InvalidTarget = (400, "http1.invalid_url", "The request target is malformed."),
    AbsoluteTarget = (404, "absolute_path_rejected", "Absolute request targets are not accepted here."),
    UnsupportedScheme = (400, "http1.invalid_scheme", "The request target's scheme is not http or https."),
    UnsupportedVersion = (426, "low_version", "Only HTTP/1.0 and HTTP/1.1 are understood here."),
    Http10NotAccepted = (426, "low_version", "HTTP/1.0 is not accepted here."),
    InvalidStatus = (400, "http1.invalid_status", "The status code is not three digits from 100 up."),

    // Lines and fields.
    BareLineFeed = (400, "http1.codec_error", "A line ends with LF alone."),
    BareCarriageReturn = (400, "http1.codec_error", "A CR stands without its LF."),
    ObsoleteFold = (400, "http1.codec_error", "A header is folded over several lines."),
    SpaceBeforeColon = (400, "http1.codec_error", "White space stands between a header's name and its colon."),
    InvalidName = (400, "http1.codec_error", "A header's name is not a token."),
    InvalidValue = (400, "http1.invalid_characters", "A header's value holds a control character."),
    UnderscoreInName = (400, "http1.unexpected_underscore", "A header's name has an underscore, which is not accepted here."),
    HeadTooLarge = (431, "http1.headers_too_large", "The headers are larger than the limit."),
    TooManyFields = (431, "http1.too_many_headers", "There are more headers than the limit."),
    LeadingJunk = (400, "http1.codec_error", "Too many empty lines stand before the start line."),

    // Host.
    MissingHost = (400, "missing_host_header", "The Host header is missing or empty."),
    RepeatedHost = (400, "http1.multiple_host_headers", "There is more than one Host header."),
    InvalidHost = (400, "http1.invalid_host", "The host is not a valid host and port."),

    // Framing.
    InvalidContentLength = (400, "http1.codec_error", "Content-Length is not one decimal number."),
    RepeatedContentLength = (400, "http1.codec_error", "There is more than one Content-Length."),
    ContentLengthAndChunked = (400, "http1.content_length_and_chunked_not_allowed", "Content-Length and Transfer-Encoding are both there."),
    InvalidTransferEncoding = (501, "http1.invalid_transfer_encoding", "Transfer-Encoding does not end with one chunked."),
    UnsupportedTransferEncoding = (501, "http1.invalid_transfer_encoding", "Only the transfer coding chunked is understood here."),
    TransferEncodingIn10 = (400, "http1.transfer_encoding_not_allowed", "Transfer-Encoding is not allowed in HTTP/1.0."),
    BodyDisallowed = (400, "http1.body_disallowed", "This message must not have a body."),
    UnsupportedExpectation = (417, "http1.unsupported_expectation", "Only the expectation 100-continue is understood here."),
    ConnectionOptions = (400, "http1.connection_header_rejected", "The Connection header names too many options."),
    UnexpectedSwitch = (400, "http1.unexpected_switching_protocols", "101 was sent without an upgrade asked for."),
    InvalidChunk = (400, "http1.codec_error", "A chunk's size line or end is malformed."),
    ChunkTooLarge = (400, "http1.chunk_size_overflow", "A chunk's size has too many digits."),
    ChunkExtensionTooLarge = (400, "http1.chunk_extension_too_large", "A chunk's extensions are larger than the limit."),
    TrailersTooLarge = (431, "http1.trailers_too_large", "The trailers are larger than the limit."),
    TooManyTrailers = (431, "http1.too_many_trailers", "There are more trailers than the limit."),
    InvalidCoding = (400, "invalid_content_coding", "The body is not in the content coding that its head names."),
    CodingRatio = (413, "content_coding_ratio", "The body decodes to more than may come of its length."),
    Truncated = (400, "http1.truncated", "The connection ended in the middle of a message."),
    TooManyInterim = (400, "http1.too_many_interim_responses", "The server sent too many interim responses."),
    UnsolicitedResponse = (400, "http1.unsolicited_response", "The server sent bytes that no request asked for."),

    // Path and host policy, raised by `path` and `authority`.
    PathFragment = (400, "path_normalization_failed", "The request target has a fragment."),
    PathNormalization = (400, "path_normalization_failed", "The path can't be normalised."),
    EscapedSlash = (400, "path_normalization_failed", "The path holds an escaped slash, which is not accepted here."),

    // Local faults: a message to be written did not match its framing.
    BodyTooLong = (502, "http1.body_longer_than_declared", "The body is longer than its Content-Length."),
    BodyTooShort = (502, "http1.body_shorter_than_declared", "The body is shorter than its Content-Length."),
}

impl Fault {
    /// The response's status: a client's fault has its own, an upstream's is 502.
    pub const fn status(self, side: FaultSide) -> u16 {
        match side {
            FaultSide::Downstream => self.request_status(),
            FaultSide::Upstream => 502,
        }
    }

    /// Envoy's connection manager refuses it, and not its codec: without a body, and without a
    /// response flag.
    pub const fn is_of_manager(self) -> bool {
        matches!(
            self,
            Self::MissingHost
                | Self::AbsoluteTarget
                | Self::PathFragment
                | Self::PathNormalization
                | Self::EscapedSlash
        )
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Fault {}
