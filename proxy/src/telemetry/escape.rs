//! Making peers' bytes safe to print, and civil time.

use crate::config::access_log::{JsonField, JsonValue};
use std::io::{self, Write};
use std::time::Duration;

use time::UtcDateTime;

/// Appends `value` for a text log: control characters, invalid UTF-8 and bidirectional overrides
/// as `\xNN` or `\u{…}`, the backslash doubled so that the escape is unambiguous, and `"` as `\x22`,
/// because formats quote what clients write.
pub fn text(value: &[u8], out: &mut Vec<u8>) {
    escaped(value, |c| c == '"', out);
}

/// As [`text`] for a header's value, in which `"` is nothing special.
pub fn value(value: &[u8], out: &mut Vec<u8>) {
    escaped(value, |_| false, out);
}

fn escaped(value: &[u8], also: impl Fn(char) -> bool, out: &mut Vec<u8>) {
    let plain = |b: &u8| matches!(b, 0x20..=0x7e) && *b != b'\\' && !also(char::from(*b));
    if value.iter().all(plain) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_ascii_control() || also(c) => {
                    push(out, format_args!("\\x{:02x}", c as u32))
                }
                c if unsafe_to_print(c) => push(out, format_args!("\\u{{{:x}}}", c as u32)),
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            push(out, format_args!("\\x{byte:02x}"));
        }
    }
}

/// Appends `value` as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD.
pub fn json(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    json_part(value, out);
    out.push(b'"');
}

/// A part of a JSON string, as [`json`] has it between the quotes.
pub fn json_part(value: &[u8], out: &mut Vec<u8>) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_control() || unsafe_to_print(c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        push(out, format_args!("\\u{unit:04x}"));
                    }
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether a JSON string may hold these bytes as they are. It does not stop at the first that is
/// not, so that the compiler can compare many in one instruction.
fn is_plain(value: &[u8]) -> bool {
    let plain = |b: &u8| matches!(*b, 0x20..=0x7e) & (*b != b'\\') & (*b != b'"');
    value.iter().fold(true, |all, b| all & plain(b))
}

/// Control characters, and those that reorder what a terminal shows.
pub fn unsafe_to_print(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn push(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing into a Vec cannot fail.
    let _ = out.write_fmt(arguments);
}

/// A UTC date and time of day.
#[derive(Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u64,
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
    pub second: u64,
}

impl Civil {
    /// From seconds since 1970; beyond the year 9999: 1970.
    pub fn from_unix(seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).ok();
        let time = seconds.and_then(|seconds| UtcDateTime::from_unix_timestamp(seconds).ok());
        let time = time.unwrap_or(UtcDateTime::UNIX_EPOCH);
        Self {
            year: u64::try_from(time.year()).unwrap_or_default(),
            month: u8::from(time.month()).into(),
            day: time.day().into(),
            hour: time.hour().into(),
            minute: time.minute().into(),
            second: time.second().into(),
        }
    }

    /// As RFC 3339 has it, with milliseconds.
    pub fn rfc3339(&self, millis: u32) -> [u8; 24] {
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let fields = [
            (0..4, self.year),
            (5..7, self.month),
            (8..10, self.day),
            (11..13, self.hour),
            (14..16, self.minute),
            (17..19, self.second),
            (20..23, u64::from(millis)),
        ];
        for (place, mut number) in fields {
            let digits = text.get_mut(place).unwrap_or_default();
            for digit in digits.iter_mut().rev() {
                *digit = b'0' | (number % 10) as u8;
                number /= 10;
            }
        }
        text
    }
}

/// The conversions of `strftime` that the compiler accepts (see [`is_strftime`]).
pub fn strftime(
    out: &mut impl Write,
    format: &str,
    time: &Civil,
    since_epoch: Duration,
) -> io::Result<()> {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let (literal, tail) = rest.split_at(at);
        out.write_all(literal.as_bytes())?;
        let Some((conversion, behind)) = conversion(tail) else {
            return out.write_all(tail.as_bytes());
        };
        rest = behind;
        match conversion {
            'Y' => write!(out, "{:04}", time.year)?,
            'm' => write!(out, "{:02}", time.month)?,
            'd' => write!(out, "{:02}", time.day)?,
            'H' => write!(out, "{:02}", time.hour)?,
            'M' => write!(out, "{:02}", time.minute)?,
            'S' => write!(out, "{:02}", time.second)?,
            'F' => write!(out, "{:04}-{:02}-{:02}", time.year, time.month, time.day)?,
            'T' => write!(
                out,
                "{:02}:{:02}:{:02}",
                time.hour, time.minute, time.second
            )?,
            's' => write!(out, "{}", since_epoch.as_secs())?,
            '3' => write!(out, "{:03}", since_epoch.subsec_millis())?,
            '6' => write!(out, "{:06}", since_epoch.subsec_micros())?,
            '9' => write!(out, "{:09}", since_epoch.subsec_nanos())?,
            _ => out.write_all(b"%")?,
        }
    }
    out.write_all(rest.as_bytes())
}

/// Whether [`strftime`] supports every conversion in `format`.
pub fn is_strftime(format: &str) -> bool {
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        match conversion(rest.split_at(at).1) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    true
}

/// The conversion at the head of `text`, and what follows it.
fn conversion(text: &str) -> Option<(char, &str)> {
    let mut chars = text.strip_prefix('%')?.chars();
    let conversion = chars.next()?;
    let is_known = match conversion {
        'Y' | 'm' | 'd' | 'H' | 'M' | 'S' | 'F' | 'T' | 's' | '%' => true,
        '3' | '6' | '9' => chars.next() == Some('f'),
        _ => false,
    };
    is_known.then_some((conversion, chars.as_str()))
}

impl JsonField {
    pub fn new(name: &str, value: JsonValue) -> Self {
        let mut key = Vec::with_capacity(name.len().saturating_add(3));
        json(name.as_bytes(), &mut key);
        key.push(b':');
        Self {
            key: key.into(),
            value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_text(value: &[u8]) -> String {
        let mut out = Vec::new();
        text(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_a_peer_sends_controls_the_terminal_or_ends_the_line() {
        assert_eq!(as_text(b"plain /path?q=1"), "plain /path?q=1");
        assert_eq!(as_text(b"a\r\nb\x1b[31m\\"), "a\\x0d\\x0ab\\x1b[31m\\\\");
        assert_eq!(as_text("x\u{202e}y".as_bytes()), "x\\u{202e}y");
        assert_eq!(as_text(b"a\" \"b"), "a\\x22 \\x22b");
        assert_eq!(as_text(b"\xff\xfe"), "\\xff\\xfe");
        let mut out = Vec::new();
        json("a\"\\\u{202e}\n\u{1f600}\u{7}".as_bytes(), &mut out);
        json(b"\xff", &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\"a\\\"\\\\\\u202e\\u000a\u{1f600}\\u0007\"\"\u{fffd}\""
        );
    }

    #[test]
    fn civil_time_agrees_with_known_instants() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_210_096, "2024-02-29 12:34:56"),
            (4_102_444_799, "2099-12-31 23:59:59"),
        ] {
            let mut out = Vec::new();
            let time = Civil::from_unix(seconds);
            strftime(&mut out, "%F %T", &time, Duration::from_secs(seconds)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
            let stamp = time.rfc3339(7);
            let stamp = std::str::from_utf8(&stamp).unwrap();
            assert_eq!(stamp, format!("{}.007Z", text.replace(' ', "T")));
        }
        assert!(is_strftime("%Y-%m-%dT%H:%M:%S.%3f%%"));
        assert!(!is_strftime("%Q"));
    }
}
