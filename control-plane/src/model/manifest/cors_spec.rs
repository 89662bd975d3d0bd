//! The CORS filter of an HTTPRoute (GEP-1767) as Gateway API v1 writes it.

use serde::Deserialize;

use super::object::FieldError;
use super::route::{Cors, CorsOrigin};
use super::values::HeaderName;

/// Gateway API's bound, of origins and of headers.
const MAX_NAMES: usize = 64;
const ALL: &str = "*";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsSpec {
    #[serde(default)]
    allow_origins: Vec<String>,
    #[serde(default)]
    allow_credentials: Option<bool>,
    #[serde(default)]
    allow_methods: Vec<CorsMethod>,
    #[serde(default)]
    allow_headers: Vec<HeaderName>,
    #[serde(default)]
    expose_headers: Vec<HeaderName>,
    #[serde(default)]
    max_age: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum CorsMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    #[serde(rename = "*")]
    All,
}

impl CorsMethod {
    fn text(self) -> String {
        match self {
            CorsMethod::All => ALL.to_owned(),
            other => format!("{other:?}").to_uppercase(),
        }
    }
}

impl CorsSpec {
    /// # Errors
    /// The first field below `at` that is wrong.
    pub fn read(self, at: &str) -> Result<Cors, FieldError> {
        let names = |field: &str, names: Vec<HeaderName>| {
            let names: Vec<String> = names.into_iter().map(|name| name.0).collect();
            listed(names, &format!("{at}.{field}"))
        };
        let mut origins = Vec::new();
        let texts = listed(self.allow_origins, &format!("{at}.allowOrigins"))?;
        for (index, text) in texts.iter().enumerate() {
            let at = || format!("{at}.allowOrigins[{index}]");
            origins.push(origin(text).map_err(|message| FieldError::new(at(), message))?);
        }
        let methods = self.allow_methods.into_iter().map(CorsMethod::text);
        if self.max_age == Some(0) {
            let message = "must be 1 second or more";
            return Err(FieldError::new(format!("{at}.maxAge"), message));
        }
        Ok(Cors {
            origins,
            credentials: self.allow_credentials == Some(true),
            methods: listed(methods.collect(), &format!("{at}.allowMethods"))?,
            headers: names("allowHeaders", self.allow_headers)?,
            expose: names("exposeHeaders", self.expose_headers)?,
            max_age: self.max_age.unwrap_or(5),
        })
    }
}

/// A list in which `*` stands alone.
fn listed(all: Vec<String>, at: &str) -> Result<Vec<String>, FieldError> {
    if all.len() > MAX_NAMES {
        let message = format!("has {} entries; {MAX_NAMES} are allowed", all.len());
        return Err(FieldError::new(at, message));
    }
    if all.len() > 1 && all.iter().any(|one| one == ALL) {
        return Err(FieldError::new(at, "`*` stands for all and must be alone"));
    }
    Ok(all)
}

/// `*`, or scheme, host and port, of which the host may begin with a label `*` or be `*`.
fn origin(text: &str) -> Result<CorsOrigin, String> {
    let wrong = || {
        format!(
            "`{}` is no origin; write https://shop.example, https://*.shop.example:8443 or `*`",
            text.escape_debug()
        )
    };
    if text == ALL {
        return Ok(CorsOrigin::Any);
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong()),
    };
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| wrong())?)),
        None => (rest, None),
    };
    let (wild, labels) = match host.strip_prefix(ALL) {
        None => (false, host),
        Some("") => (true, ""),
        Some(rest) => (true, rest.strip_prefix('.').ok_or_else(wrong)?),
    };
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(fits)
    };
    let named = labels.split('.').all(label);
    if text.len() > 253 || port == Some(0) || !(named || host == ALL) {
        return Err(wrong());
    }
    // Browsers leave the default port out, and write hosts in lower case.
    let port = port.filter(|port| *port != default_port);
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let labels = labels.to_ascii_lowercase();
    Ok(match (wild, labels.is_empty()) {
        (false, _) => CorsOrigin::Exact(format!("{scheme}://{labels}{port}")),
        (true, true) => CorsOrigin::Regex(format!("{scheme}://[^/:]+{port}")),
        (true, false) => {
            let labels = regex::escape(&labels);
            CorsOrigin::Regex(format!("{scheme}://[^/:]+\\.{labels}{port}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        let exact = |text: &str| Ok(CorsOrigin::Exact(text.to_owned()));
        let regex = |text: &str| Ok(CorsOrigin::Regex(text.to_owned()));
        assert_eq!(origin("*"), Ok(CorsOrigin::Any));
        assert_eq!(
            origin("https://Shop.Example:443"),
            exact("https://shop.example")
        );
        assert_eq!(origin("http://shop:8080"), exact("http://shop:8080"));
        assert_eq!(origin("https://*"), regex("https://[^/:]+"));
        let any = regex(r"https://[^/:]+\.a\-b\.example:8443");
        assert_eq!(origin("https://*.a-b.example:8443"), any);
        for wrong in [
            "",
            "shop",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:70000",
            "https://a/b",
            "https://*a",
            "https://a.*",
            "https://a..b",
            "https://*.",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
    }
}
