//! Paths and queries of requests.

use serde::Serialize;

/// A path with its query, if it has one.
pub fn target(path: String, query: &str) -> String {
    match query {
        "" => path,
        query => format!("{path}?{query}"),
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A page of a proxy: `/` in its name stays.
pub fn encode_page(page: &str) -> String {
    let parts: Vec<_> = page.split('/').map(encode).collect();
    parts.join("/")
}

/// The fields of a flat struct as a query; empty ones are left out.
pub fn query_string(query: &impl Serialize) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) else {
        return String::new();
    };
    let pairs = fields.iter().filter_map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) if !text.is_empty() => text.clone(),
            serde_json::Value::Number(number) if number.as_u64() != Some(0) => number.to_string(),
            serde_json::Value::Bool(true) => "true".into(),
            _ => return None,
        };
        Some(format!("{}={}", encode(name), encode(&value)))
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use anyam_control::types::TapQuery;

    use super::*;

    #[test]
    fn queries_leave_out_what_means_any_and_encode_the_rest() {
        let query = TapQuery {
            workload: "shop/web".into(),
            path: "/a b".into(),
            status: 503,
            headers: true,
            ..Default::default()
        };
        let mut parts: Vec<_> = query_string(&query).split('&').map(str::to_owned).collect();
        parts.sort();
        assert_eq!(
            parts,
            [
                "headers=true",
                "path=%2Fa%20b",
                "status=503",
                "workload=shop%2Fweb"
            ]
        );
    }
}
