//! Which fields may come after a body.

use crate::message::head::{FieldRef, Head, HeaderId};

/// Removes fields that must not be trailers: framing, routing, authentication, the peer's identity,
/// and those that the mesh acts on. They were checked before the body; a later one would take
/// effect in applications that merge trailers into headers.
pub(super) fn sanitise(head: &mut Head) {
    head.retain(is_allowed);
}

/// Whether a field may travel as a trailer; HTTP/2's conversion uses it too.
pub fn is_allowed(field: FieldRef<'_>) -> bool {
    use HeaderId as Id;
    let id = match field.id {
        // A name that apps may take for another field's is treated as that field.
        Id::Other => Id::of_variable(field.name),
        id => id,
    };
    match id {
        Id::Other => {
            !has_prefix(field.name, b"x-forwarded-")
                && !has_prefix(field.name, b"x-anyam-")
                && !has_prefix(field.name, b"x-envoy-")
                && !has_prefix(field.name, b":")
        }
        // gRPC's status travels in trailers.
        Id::GrpcStatus | Id::GrpcMessage | Id::GrpcStatusDetails => true,
        // Fields that a server may only know after the body.
        Id::Etag
        | Id::Date
        | Id::LastModified
        | Id::ProxyStatus
        | Id::Traceparent
        | Id::Tracestate => true,
        Id::Warning | Id::Via => true,
        _ => false,
    }
}

fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-');
    name.len() >= prefix.len() && name.iter().zip(prefix).all(same)
}
