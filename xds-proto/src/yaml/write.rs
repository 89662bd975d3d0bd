//! JSON values as YAML that people read: blocks, and quotes only where they are needed.

use serde_json::Value as Json;

use super::scalar::{self, Meaning};

/// A JSON value as a YAML document, with a line's end at its end.
pub fn write(value: &Json) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

/// A value that begins where the text ends, after `key:`, `-` or at the start of a line.
fn block(out: &mut String, value: &Json, indent: usize) {
    let start = out.is_empty() || out.ends_with("- ");
    match value {
        Json::Array(elements) if !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                next_line(out, indent, start && index == 0);
                out.push_str("- ");
                block(out, element, indent + 2);
            }
        }
        Json::Object(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                next_line(out, indent, start && index == 0);
                out.push_str(&text(key));
                out.push(':');
                let nested = match value {
                    Json::Array(elements) => !elements.is_empty(),
                    Json::Object(entries) => !entries.is_empty(),
                    _ => false,
                };
                if !nested {
                    out.push(' ');
                }
                block(out, value, indent + 2);
            }
        }
        Json::String(string) => {
            out.push_str(&text(string));
            out.push('\n');
        }
        // JSON's way of writing what is left is YAML's too.
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn next_line(out: &mut String, indent: usize, here: bool) {
    if here {
        return;
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.extend(std::iter::repeat_n(' ', indent));
}

/// JSON's strings are YAML's double-quoted scalars.
fn text(text: &str) -> String {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_./@".contains(&byte))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && scalar::meaning(text) == Meaning::Text
        && !scalar::is_other_in_yaml_1_1(text);
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in Json::from(text).to_string().chars() {
        match c {
            // JSON leaves these as they are; YAML 1.1 takes some as line breaks and allows none of
            // them.
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_strings_to_readers_of_either_version() {
        for other in [
            "yes", "No", "on", "OFF", "y", "0644", "1_000", "0b1", "true", "1e3", "",
        ] {
            assert_eq!(text(other), format!("{other:?}"));
        }
        for plain in [
            "web",
            "10.0.0.1",
            "/healthz",
            "1m30s",
            "v1",
            "note",
            "10.0.0.0/8",
        ] {
            assert_eq!(text(plain), plain);
        }
        assert_eq!(text("a\u{2028}b\u{85}"), "\"a\\u2028b\\u0085\"");
    }
}
