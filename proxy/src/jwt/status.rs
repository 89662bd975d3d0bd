//! Why a token is refused. Texts and numbers are Envoy's: clients see the one, and dynamic metadata has
//! both.

/// The numbers are those of Envoy's statuses, of which some cannot occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtStatus {
    Missing = 1,
    NotYetValid = 2,
    Expired = 3,
    BadFormat = 4,
    HeaderBase64 = 5,
    HeaderJson = 6,
    HeaderAlg = 7,
    UnknownAlg = 8,
    HeaderKid = 9,
    PayloadBase64 = 10,
    PayloadJson = 11,
    IssuerType = 12,
    SubjectType = 13,
    IssuedAtType = 14,
    IssuedAtRange = 15,
    NotBeforeType = 16,
    NotBeforeRange = 17,
    ExpirationType = 18,
    ExpirationRange = 19,
    IdType = 20,
    AudienceType = 21,
    SignatureBase64 = 22,
    Ed25519Length = 23,
    UnknownIssuer = 24,
    AudienceNotAllowed = 25,
    NotVerified = 26,
    NoValidKeys = 31,
    NoKeyMatches = 32,
    FetchFailed = 40,
}

impl JwtStatus {
    /// The body of the response.
    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::HeaderAlg => "Jwt header [alg] field is required and must be a string",
            Self::UnknownAlg => "Jwt header [alg] is not supported",
            Self::HeaderKid => "Jwt header [kid] field is not a string",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::IssuerType => "Jwt payload [iss] field is not a string",
            Self::SubjectType => "Jwt payload [sub] field is not a string",
            Self::IssuedAtType => "Jwt payload [iat] field is not an integer",
            Self::IssuedAtRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Self::NotBeforeType => "Jwt payload [nbf] field is not an integer",
            Self::NotBeforeRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Self::ExpirationType => "Jwt payload [exp] field is not an integer",
            Self::ExpirationRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Self::IdType => "Jwt payload [jti] field is not a string",
            Self::AudienceType => "Jwt payload [aud] field is not a string or string list",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::Ed25519Length => "Jwt ED25519 signature is wrong length",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::NotVerified => "Jwt verification fails",
            Self::NoValidKeys => "Jwks doesn't have any valid public key",
            Self::NoKeyMatches => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::FetchFailed => "Jwks remote fetch is failed",
        }
    }

    /// Envoy's number for it.
    pub fn code(self) -> u8 {
        self as u8
    }
}
