//! Text that peers send, fit to be logged and shown; percent-decoding; bytes in hexadecimal.

/// A peer's text for logs and the API: bounded, on one line, without control characters.
pub(crate) fn bounded(message: &str) -> String {
    const MAX: usize = 2048;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    message.chars().take(MAX).map(printable).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of a percent-encoded text, in which broken escapes stay as they are; false: it has such.
pub(crate) fn percent_decoded(text: &str) -> (Vec<u8>, bool) {
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut whole = true;
    while let [first, tail @ ..] = rest {
        let digits = match (first, tail) {
            (b'%', [high, low, ..]) => hex(high).zip(hex(low)),
            _ => None,
        };
        let escaped = digits.and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        whole &= *first != b'%' || escaped.is_some();
        bytes.push(escaped.unwrap_or(*first));
        let taken = if escaped.is_some() { 2 } else { 0 };
        rest = tail.get(taken..).unwrap_or_default();
    }
    (bytes, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_are_kept() {
        for (text, bytes, whole) in [
            ("", "", true),
            ("a%2Fb%2f%20", "a/b/ ", true),
            ("%252F", "%2F", true),
            ("%c3%A9", "é", true),
            ("%", "%", false),
            ("a%2", "a%2", false),
            ("%zz%41", "%zzA", false),
            ("%+1", "%+1", false),
        ] {
            assert_eq!(percent_decoded(text), (bytes.into(), whole), "{text}");
        }
    }
}
