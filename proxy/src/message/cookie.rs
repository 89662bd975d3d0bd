//! The `cookie` header of requests (RFC 6265 4.2).

use super::head::{Head, HeaderId};

/// The value of the first cookie of this name, without the quotes around it.
pub fn value<'h>(head: &'h Head, name: &[u8]) -> Option<&'h [u8]> {
    let headers = head.get_all(HeaderId::Cookie);
    let mut pairs = headers.flat_map(|header| header.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (key, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        let value = value.strip_prefix(b"=").unwrap_or_default();
        (without_spaces(key) == name).then(|| unquoted(value))
    })
}

fn without_spaces(mut key: &[u8]) -> &[u8] {
    while let Some(rest) = key.strip_prefix(b" ") {
        key = rest;
    }
    key
}

fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""));
    inner.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cookie_of_a_name_counts() {
        let mut head = Head::new();
        for header in ["a=1; b=\"two\"; c", " d=4;  e=5=6; b=7", "f=; g=\""] {
            head.append(HeaderId::Cookie, header.as_bytes());
        }
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("two")),
            ("c", None),
            ("d", Some("4")),
            ("e", Some("5=6")),
            ("f", Some("")),
            ("g", Some("\"")),
            ("h", None),
            ("A", None),
        ] {
            let found = value(&head, name.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
    }
}
