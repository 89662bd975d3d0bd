//! Query strings: percent-decoded pairs, and the tap's query out of them.

use super::reply::Problem;
use crate::text::percent_decoded;
use crate::types::TapQuery;

/// Pairs in order. `+` is a space, as forms send it; broken escapes stay as they are.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect()
}

fn decode(text: &str) -> String {
    let (bytes, _) = percent_decoded(&text.replace('+', " "));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One value by name; empty when it is not given.
pub fn one(query: &str, name: &str) -> String {
    let found = pairs(query).into_iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value).unwrap_or_default()
}

/// # Errors
/// When a parameter is unknown or is no number where one belongs.
pub fn tap(query: &str) -> Result<TapQuery, Problem> {
    let mut tap = TapQuery::default();
    for (name, value) in pairs(query) {
        let number = || {
            let parsed = if value.is_empty() {
                Ok(0)
            } else {
                value.parse()
            };
            parsed.map_err(|_| {
                Problem::bad(
                    format!("`{value}` is no number"),
                    &*name,
                    "give a whole number",
                )
            })
        };
        match &*name {
            "workload" => tap.workload = value,
            "method" => tap.method = value,
            "path" => tap.path = value,
            "authority" => tap.authority = value,
            "peer_identity" => tap.peer_identity = value,
            "direction" => tap.direction = value,
            "status" => tap.status = number()?,
            "max_per_second" => tap.max_per_second = number()?,
            "seconds" => tap.seconds = number()?,
            "headers" => tap.headers = matches!(&*value, "1" | "true"),
            _ => {
                return Err(Problem::bad(
                    "unknown query parameter",
                    name,
                    "workload, method, path, authority, status, peer_identity, direction, \
                     max_per_second, seconds and headers are known",
                ));
            }
        }
    }
    Ok(tap)
}

/// The query string of a tap, without its workload; [`tap`] reads it.
pub fn of_tap(query: &TapQuery) -> String {
    let TapQuery {
        workload: _,
        method,
        path,
        authority,
        status,
        peer_identity,
        direction,
        max_per_second,
        seconds,
        headers,
    } = query;
    let words = [
        ("method", method),
        ("path", path),
        ("authority", authority),
        ("peer_identity", peer_identity),
        ("direction", direction),
    ];
    let mut parts = vec![
        format!("status={status}"),
        format!("max_per_second={max_per_second}"),
        format!("seconds={seconds}"),
        format!("headers={headers}"),
    ];
    parts.extend(words.map(|(name, value)| format!("{name}={}", encode(value))));
    parts.join("&")
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./~".contains(&byte);
    let encoded = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_and_broken_ones_kept() {
        assert_eq!(one("a=%2Fx%20y+z&b=%252F&c=%zz%", "a"), "/x y z");
        assert_eq!(one("a=1&b=%252F", "b"), "%2F");
        assert_eq!(one("c=%zz%", "c"), "%zz%");
        assert_eq!(one("", "c"), "");
        assert!(tap("workload=a/b&status=x").is_err());
        assert!(tap("worklaod=a/b").is_err());
        assert_eq!(
            tap("workload=a/b&status=503&headers=true").unwrap().status,
            503
        );
    }

    #[test]
    fn a_taps_query_is_read_as_it_was_written() {
        let query = TapQuery {
            path: "/a b&c=d%+é".to_owned(),
            peer_identity: "spiffe://mesh/ns/a/sa/b".to_owned(),
            direction: "inbound".to_owned(),
            status: 503,
            seconds: 7,
            headers: true,
            ..TapQuery::default()
        };
        assert_eq!(tap(&of_tap(&query)).unwrap(), query);
    }
}
