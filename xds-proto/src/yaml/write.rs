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
        && scalar::meaning(text) == Meaning::Text;
    match plain {
        true => text.to_owned(),
        false => Json::from(text).to_string(),
    }
}
