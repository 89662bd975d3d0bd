//! `google.protobuf.Any`: packing and unpacking with errors a person can use.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use crate::type_url::PREFIX;

/// Why an Any could not be unpacked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnpackError {
    #[error("expected {expected}, found {found}")]
    Type { expected: String, found: String },
    #[error("not a valid {type_name}: {error}")]
    Malformed {
        type_name: String,
        error: prost::DecodeError,
    },
}

/// Wraps `message` with its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: type_url::<M>(),
        value: message.encode_to_vec(),
    }
}

/// The message inside.
///
/// # Errors
/// When `any` holds another type or bytes that are not a message of that type.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if type_name(any) != M::full_name() {
        return Err(UnpackError::Type {
            expected: M::full_name(),
            found: type_name(any).to_owned(),
        });
    }
    M::decode(any.value.as_slice()).map_err(|error| UnpackError::Malformed {
        type_name: M::full_name(),
        error,
    })
}

/// The full message name in `any`'s type URL: what stands behind its last slash.
pub fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The type URL of `M`.
pub fn type_url<M: Name>() -> String {
    format!("{PREFIX}{}", M::full_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anyam::dns::v1::Name as DnsName;
    use crate::anyam::workload::v1::Workload;

    #[test]
    fn what_is_packed_comes_back_and_another_type_does_not() {
        let name = DnsName {
            host: "a.b".into(),
            ..Default::default()
        };
        let any = pack(&name);
        assert_eq!(any.type_url, crate::type_url::NAME);
        assert_eq!(unpack::<DnsName>(&any), Ok(name));
        let error = unpack::<Workload>(&any).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected anyam.workload.v1.Workload, found anyam.dns.v1.Name"
        );
    }
}
