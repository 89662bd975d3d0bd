//! gRPC's own words for what HTTP says.

/// The gRPC status of an answer that has none, by its HTTP status; Envoy's mapping.
pub fn status_of_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}
