//! Duration and Timestamp: seconds in field 1, nanoseconds in field 2.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde_json::Value;

use super::error::JsonError;
use super::write;
use crate::schema::Message;
use crate::wire::{self, WireValue};

/// Ten thousand years, the bound the protobuf specification sets.
const MAX_DURATION: i64 = 315_576_000_000;

/// The years 1 to 9999, in seconds after 1970.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

pub fn read_duration(text: &str) -> Result<Vec<u8>, JsonError> {
    let wrong = || {
        JsonError::new(format!(
            "expected a duration such as \"1.5s\", found {text:?}"
        ))
    };
    let number = text.strip_suffix('s').ok_or_else(wrong)?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let seconds = whole.parse().unwrap_or(i64::MAX);
    if seconds > MAX_DURATION {
        return Err(JsonError::new(format!(
            "{text:?} is longer than {MAX_DURATION}s"
        )));
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let sign = if negative { -1 } else { 1 };
    Ok(put(
        seconds.saturating_mul(sign),
        nanos.saturating_mul(sign),
    ))
}

pub fn read_timestamp(text: &str) -> Result<Vec<u8>, JsonError> {
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| {
        JsonError::new(format!(
            "expected a time such as 2026-01-31T12:00:00Z: {error}"
        ))
    })?;
    // Compared in UTC: an offset may carry the instant beyond either end.
    if !TIMESTAMPS.contains(&instant.unix_timestamp()) {
        return Err(JsonError::new(format!(
            "{text:?} is not between the years 1 and 9999"
        )));
    }
    Ok(put(instant.unix_timestamp(), instant.nanosecond().into()))
}

fn put(seconds: i64, nanos: i64) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, value) in [(1, seconds), (2, nanos)] {
        if value != 0 {
            wire::put_key(&mut out, number, 0);
            wire::put_varint(&mut out, value as u64);
        }
    }
    out
}

fn parts(message: Message, bytes: &[u8]) -> Result<(i64, i64), JsonError> {
    let found = write::gather(message, bytes)?;
    let last = |number| match found.get(&number).and_then(|values| values.last()) {
        None => Ok(0),
        Some(WireValue::Varint(value)) => Ok(*value as i64),
        Some(other) => Err(JsonError::new(format!(
            "no number on the wire but {other:?}"
        ))),
    };
    Ok((last(1)?, last(2)? as i32 as i64))
}

pub fn write_duration(message: Message, bytes: &[u8]) -> Result<Value, JsonError> {
    let (seconds, nanos) = parts(message, bytes)?;
    let range = -MAX_DURATION..=MAX_DURATION;
    let apart = (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0);
    if !range.contains(&seconds) || nanos.abs() > 999_999_999 || apart {
        let error = format!("{seconds} seconds and {nanos} nanoseconds are no duration");
        return Err(JsonError::new(error));
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let fraction = fraction(nanos.unsigned_abs());
    Ok(format!("{sign}{}{fraction}s", seconds.abs()).into())
}

pub fn write_timestamp(message: Message, bytes: &[u8]) -> Result<Value, JsonError> {
    let (seconds, nanos) = parts(message, bytes)?;
    let wrong = || {
        JsonError::new(format!(
            "{seconds}s and {nanos}ns after 1970 are no timestamp"
        ))
    };
    if !TIMESTAMPS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return Err(wrong());
    }
    let instant = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| wrong())?;
    let (year, month, day) = instant.to_calendar_date();
    let (hour, minute, second) = instant.to_hms();
    let (month, fraction) = (u8::from(month), fraction(nanos.unsigned_abs()));
    Ok(
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
            .into(),
    )
}

/// In groups of three digits, as the specification has it.
fn fraction(nanos: u64) -> String {
    if nanos == 0 {
        String::new()
    } else if nanos.is_multiple_of(1_000_000) {
        format!(".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!(".{:06}", nanos / 1_000)
    } else {
        format!(".{nanos:09}")
    }
}
