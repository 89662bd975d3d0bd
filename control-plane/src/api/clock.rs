//! Points in time as people read them.

use std::time::Instant;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

pub fn wall(at: Instant) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let elapsed = time::Duration::try_from(at.elapsed()).unwrap_or_default();
    now.saturating_sub(elapsed)
}

/// Seconds since 1970, as protobuf's `Timestamp` has them.
pub fn unix(seconds: i64, nanos: i32) -> Option<OffsetDateTime> {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    at.checked_add(time::Duration::nanoseconds(nanos.into()))
}
