//! Checks the status port's settings (anyam.bootstrap.v1.StatusPort).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use xds_proto::anyam::bootstrap::v1 as pb;
use xds_proto::anyam::bootstrap::v1::app_probe::Handler as PbHandler;

use super::extensions::ip;
use crate::config::compile::support::{At, CompileError, port};
use crate::probe::settings::{
    AppMetrics, AppProbe, AppResource, HookToken, ProbeHandler, StatusPortSettings,
};

/// Time-out of a hook, and the longest that a probe may have.
const LONGEST: Duration = Duration::from_secs(600);
/// What the names of hooks end in.
const HOOKS: [&str; 2] = ["prestop", "poststart"];
/// Probes of all containers of a pod.
const MOST_PROBES: usize = 256;

pub(super) fn status(
    at: At<'_>,
    message: pb::StatusPort,
) -> Result<StatusPortSettings, CompileError> {
    let pb::StatusPort {
        listen_address,
        listen_port,
        app_address,
        probes,
        metrics,
    } = message;
    let address = ip(at.field("listen_address"), &listen_address)?;
    let listen = SocketAddr::new(address, a_port(at.field("listen_port"), listen_port)?);
    if probes.len() > MOST_PROBES {
        let why = format_args!("has {} probes; at most {MOST_PROBES} fit", probes.len());
        return at.field("probes").fail(why);
    }
    let mut compiled: Vec<Arc<AppProbe>> = Vec::with_capacity(probes.len());
    for (index, message) in probes.into_iter().enumerate() {
        let at = at.index("probes", index);
        let made = probe(at, message)?;
        if compiled.iter().any(|other| other.name == made.name) {
            let why = format_args!("{:?} is given twice", made.name);
            return at.field("name").fail(why);
        }
        compiled.push(Arc::new(made));
    }
    Ok(StatusPortSettings {
        listen,
        app: ip(at.field("app_address"), &app_address)?,
        probes: compiled,
        metrics: metrics
            .map(|m| app_metrics(at.field("metrics"), m))
            .transpose()?,
    })
}

fn probe(at: At<'_>, message: pb::AppProbe) -> Result<AppProbe, CompileError> {
    let pb::AppProbe {
        name,
        handler,
        timeout_seconds,
        hook_token,
    } = message;
    if name.is_empty() {
        return at.field("name").fail("is required");
    }
    let token = token(at.field("hook_token"), &name, hook_token)?;
    let handler = match handler {
        None => return at.fail("has none of http_get, tcp_socket and grpc"),
        Some(PbHandler::HttpGet(http)) => ProbeHandler::Http(http_get(at.field("http_get"), http)?),
        Some(PbHandler::TcpSocket(pb::TcpSocket { port: number })) => ProbeHandler::Tcp {
            port: a_port(at.field("tcp_socket").field("port"), number)?,
        },
        Some(PbHandler::Grpc(pb::Grpc {
            port: number,
            service,
        })) => ProbeHandler::Grpc {
            port: a_port(at.field("grpc").field("port"), number)?,
            service,
        },
    };
    let timeout = match timeout_seconds {
        0 => LONGEST,
        seconds => Duration::from_secs(seconds.into()).min(LONGEST),
    };
    Ok(AppProbe {
        name,
        handler,
        timeout,
        token,
    })
}

/// Without a token every peer that reaches the port could run a hook.
fn token(at: At<'_>, name: &str, given: String) -> Result<Option<HookToken>, CompileError> {
    let word = name.rsplit_once('/').map_or(name, |(_, word)| word);
    match (HOOKS.contains(&word), given.is_empty()) {
        (false, true) => Ok(None),
        (false, false) => at.fail(format_args!("{name:?} is a probe; only hooks have a token")),
        (true, true) => at.fail("is required: without a token every peer could run the hook"),
        (true, false) => match HookToken::read(given) {
            Some(token) => Ok(Some(token)),
            // Not the value: the message goes to a log.
            None => at.fail("must be 16 to 128 letters, digits, `-` and `_`"),
        },
    }
}

fn http_get(at: At<'_>, message: pb::HttpGet) -> Result<AppResource, CompileError> {
    let pb::HttpGet {
        scheme,
        port,
        path,
        http_headers,
    } = message;
    let mut headers = HeaderMap::new();
    for (index, header) in http_headers.into_iter().enumerate() {
        let at = at.index("http_headers", index);
        let pb::HttpHeader { name, value } = header;
        let wrong = |_| {
            at.field("name")
                .error(format_args!("{name:?} is no header name"))
        };
        let key: HeaderName = name.parse().map_err(wrong)?;
        let wrong = |_| at.field("value").error("is no header value");
        headers.append(key, HeaderValue::from_str(&value).map_err(wrong)?);
    }
    target(at, (&scheme, port, &path, "/"), headers)
}

fn app_metrics(at: At<'_>, message: pb::AppMetrics) -> Result<AppMetrics, CompileError> {
    let pb::AppMetrics { scheme, port, path } = message;
    let target = target(at, (&scheme, port, &path, "/metrics"), HeaderMap::new())?;
    Ok(AppMetrics { target })
}

fn target(
    at: At<'_>,
    (scheme, number, path, default): (&str, u32, &str, &str),
    headers: HeaderMap,
) -> Result<AppResource, CompileError> {
    let https = match scheme.to_ascii_lowercase().as_str() {
        "" | "http" => false,
        "https" => true,
        _ => {
            let why = format_args!("{scheme:?} is neither http nor https");
            return at.field("scheme").fail(why);
        }
    };
    let path = if path.is_empty() { default } else { path };
    Ok(AppResource {
        https,
        port: a_port(at.field("port"), number)?,
        path: encoded(path).ok_or_else(|| at.field("path").error("is no path"))?,
        headers,
    })
}

/// As Go's `url.Parse`, which the kubelet uses: characters that a request line cannot have are
/// percent-encoded.
fn encoded(path: &str) -> Option<PathAndQuery> {
    let path = path.split('#').next().unwrap_or_default();
    let mut text = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        text.push('/');
    }
    for byte in path.bytes() {
        let plain = byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        match plain {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.parse().ok()
}

fn a_port(at: At<'_>, number: u32) -> Result<u16, CompileError> {
    match port(at, number)? {
        0 => at.fail("is required: a port from 1 to 65535"),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_as_go_encodes_them() {
        for (path, expected) in [
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/a b?c=d e", "/a%20b?c=d%20e"),
            ("/ä", "/%C3%A4"),
            ("/a%20b", "/a%20b"),
            ("/a#b", "/a"),
            ("/$(X)", "/$(X)"),
        ] {
            assert_eq!(encoded(path).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn invalid_probes_are_refused_with_their_field() {
        let of = |probe: pb::AppProbe| {
            let message = pb::StatusPort {
                listen_address: "0.0.0.0".into(),
                listen_port: 15020,
                app_address: "10.0.0.1".into(),
                probes: vec![probe],
                metrics: None,
            };
            status(At::root("status"), message)
        };
        let http = |edit: fn(&mut pb::HttpGet)| {
            let mut http = pb::HttpGet {
                port: 80,
                ..pb::HttpGet::default()
            };
            edit(&mut http);
            of(pb::AppProbe {
                name: "web/livez".into(),
                handler: Some(PbHandler::HttpGet(http)),
                ..pb::AppProbe::default()
            })
        };
        let named = |name: &str, token: &str| {
            of(pb::AppProbe {
                name: name.into(),
                handler: Some(PbHandler::TcpSocket(pb::TcpSocket { port: 80 })),
                hook_token: token.into(),
                ..pb::AppProbe::default()
            })
        };
        let token = "0123456789-_abcd";
        let made = http(|_| {}).unwrap();
        assert_eq!(made.probes[0].timeout, LONGEST);
        assert!(named("web/prestop", token).is_ok());
        for (wrong, place) in [
            (http(|http| http.port = 0), "http_get.port"),
            (http(|http| http.scheme = "FTP".into()), "http_get.scheme"),
            (
                http(|http| {
                    http.http_headers = vec![pb::HttpHeader {
                        name: "a b".into(),
                        value: String::new(),
                    }];
                }),
                "http_get.http_headers[0].name",
            ),
            (of(pb::AppProbe::default()), "probes[0].name"),
            (named("web/prestop", ""), "probes[0].hook_token"),
            (named("web/poststart", "short"), "probes[0].hook_token"),
            (
                named("web/poststart", &token.replace('_', "/")),
                "hook_token",
            ),
            (named("web/livez", token), "probes[0].hook_token"),
        ] {
            let error = wrong.err().unwrap().to_string();
            assert!(error.contains(place), "{place}: {error}");
        }
    }
}
