//! The app's probes and lifecycle hooks, which the sidecar performs in the kubelet's place: strict
//! mTLS would refuse the kubelet, which has no certificate.
//!
//! Handlers with a `host` stay, because they may lead to another machine than this pod; `exec` and
//! `sleep` stay as well. The path of a hook ends in the pod's token ([`super::hook_token`]).

use serde_json::{Value, json};
use xds_proto::anyam::bootstrap::v1::{self as pb, app_probe::Handler};
use xds_proto::json::{Names, to_json_named};

use prost::{Message, Name};

use super::hook_token::HookToken;
use super::pod::{JsonObject, PodManifest, name};
use super::settings::SidecarKind;
use super::sidecar::STATUS_PORT;
use super::values;

/// Fields of a container that hold a probe, and the word for each in the sidecar's paths.
pub(super) const PROBES: [(&str, &str); 3] = [
    ("livenessProbe", "livez"),
    ("readinessProbe", "readyz"),
    ("startupProbe", "startupz"),
];
/// The same for hooks, which are fields of a container's `lifecycle`.
pub(super) const HOOKS: [(&str, &str); 2] = [("preStop", "prestop"), ("postStart", "poststart")];
/// The handlers that connect to the pod; a probe has one.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// Kubernetes' default for `timeoutSeconds`.
const TIMEOUT: u32 = 1;

/// What was rewritten.
#[derive(Default)]
pub(super) struct Rewritten {
    /// As the sidecar performs them.
    probes: Vec<pb::AppProbe>,
    /// By the probe's name: its handler before injection, `{"httpGet": …}`.
    pub(super) originals: JsonObject,
}

impl Rewritten {
    /// JSON for the sidecar; empty where there are no probes for it.
    pub(super) fn to_environment(&self) -> String {
        if self.probes.is_empty() {
            return String::new();
        }
        let list: Vec<Value> = self.probes.iter().map(json_form).collect();
        Value::from(list).to_string()
    }

    /// Gives a probe or hook the sidecar's handler. `token`: of a hook.
    fn replace(
        &mut self,
        probe: &mut JsonObject,
        name: String,
        handler: Handler,
        token: Option<&HookToken>,
    ) {
        let timeout = probe.get("timeoutSeconds").and_then(Value::as_u64);
        let timeout = timeout.and_then(|seconds| u32::try_from(seconds).ok());
        let (path, timeout_seconds) = match token {
            Some(token) => (format!("{}/{}", path(&name), token.as_str()), 0),
            // The API server takes 0 for the default, too.
            None => {
                let timeout = timeout.filter(|seconds| *seconds > 0);
                (path(&name), timeout.unwrap_or(TIMEOUT))
            }
        };
        self.probes.push(pb::AppProbe {
            name: name.clone(),
            handler: Some(handler),
            timeout_seconds,
            hook_token: token
                .map(|token| token.as_str().to_owned())
                .unwrap_or_default(),
        });
        if let Some((kind, original)) = take_handler(probe) {
            probe.insert("httpGet".into(), replacement(&path));
            self.originals.insert(name, json!({kind: original}));
        }
    }
}

/// JSON with Kubernetes' names for the fields. These messages have no value that JSON cannot
/// represent.
pub(super) fn json_form<M: Message + Name>(message: &M) -> Value {
    to_json_named(&M::full_name(), &message.encode_to_vec(), Names::Json).unwrap_or_default()
}

fn path(probe: &str) -> String {
    format!("/app-health/{probe}")
}

/// The token in the path of a rewritten hook; empty for a rewritten probe. `None`: not a path that
/// injection writes for `probe`.
pub(super) fn token<'a>(of: &'a str, probe: &str) -> Option<&'a str> {
    let below = of.strip_prefix(&path(probe))?;
    match below.is_empty() {
        true => Some(below),
        false => below.strip_prefix('/'),
    }
}

/// The handler of a rewritten probe or hook.
fn replacement(path: &str) -> Value {
    json!({"path": path, "port": STATUS_PORT, "scheme": "HTTP"})
}

/// The probe or hook of a container; `word` as in [`PROBES`] and [`HOOKS`].
pub(super) fn probe_mut<'a>(
    container: &'a mut JsonObject,
    word: &str,
) -> Option<&'a mut JsonObject> {
    let of = |list: &[(&'static str, &str)]| {
        list.iter()
            .find(|(_, known)| *known == word)
            .map(|(field, _)| *field)
    };
    match (of(&PROBES), of(&HOOKS)) {
        (Some(field), _) => container.get_mut(field)?.as_object_mut(),
        (None, Some(field)) => container
            .get_mut("lifecycle")?
            .get_mut(field)?
            .as_object_mut(),
        (None, None) => None,
    }
}

/// Removes and returns the handler that connects to the pod.
pub(super) fn take_handler(probe: &mut JsonObject) -> Option<(&'static str, Value)> {
    let kind = HANDLERS
        .into_iter()
        .find(|kind| probe.contains_key(*kind))?;
    Some((kind, probe.shift_remove(kind)?))
}

pub(super) fn rewrite(
    pod: &mut PodManifest,
    sidecar: SidecarKind,
    token: &HookToken,
    warnings: &mut Vec<String>,
) -> Rewritten {
    let mut rewritten = Rewritten::default();
    // The container may be a native sidecar of the app's own. A pod would not start if its probe
    // waited for a sidecar that starts later.
    let is_first = sidecar == SidecarKind::Native;
    let init_containers = pod.init_containers.iter_mut().map(|one| (one, is_first));
    let containers = pod.containers.iter_mut().map(|one| (one, true));
    for (container, has_sidecar) in init_containers.chain(containers) {
        let ports = container.get("ports").cloned().unwrap_or_default();
        let container_name = name(container).to_owned();
        let probes = PROBES.iter().map(|(_, word)| (*word, false));
        let hooks = HOOKS.iter().map(|(_, word)| (*word, true));
        for (word, is_hook) in probes.chain(hooks) {
            let Some(probe) = probe_mut(container, word) else {
                continue;
            };
            let probe_name = format!("{container_name}/{word}");
            let handler = match read(probe, &ports, is_hook) {
                Ok(None) => continue,
                Ok(Some(handler)) if has_sidecar => Ok(handler),
                Ok(Some(_)) => Err("a classic sidecar starts after init containers".to_owned()),
                Err(why) => Err(why),
            };
            match handler {
                Ok(handler) => {
                    let token = is_hook.then_some(token);
                    rewritten.replace(probe, probe_name, handler, token);
                }
                Err(why) => warnings.push(format!(
                    "probe {probe_name} stays as it is, and the kubelet performs it: {why}"
                )),
            }
        }
    }
    rewritten
}

/// The handler of a probe that the sidecar can perform; `None`: the probe has no such handler.
fn read(probe: &JsonObject, ports: &Value, is_hook: bool) -> Result<Option<Handler>, String> {
    let field = |kind: &str| probe.get(kind).filter(|handler| handler.is_object());
    let elsewhere = |handler: &Value| handler.get("host").is_some_and(|host| host != "");
    if let Some(http) = field("httpGet") {
        if elsewhere(http) {
            return Ok(None);
        }
        return http_get(http, ports).map(Some);
    }
    if is_hook {
        return Ok(None);
    }
    if let Some(tcp) = field("tcpSocket") {
        if elsewhere(tcp) {
            return Ok(None);
        }
        let port = port(tcp, ports)?.into();
        return Ok(Some(Handler::TcpSocket(pb::TcpSocket { port })));
    }
    let Some(grpc) = field("grpc") else {
        return Ok(None);
    };
    let service = text(grpc, "service").to_owned();
    let port = port(grpc, ports)?.into();
    Ok(Some(Handler::Grpc(pb::Grpc { port, service })))
}

fn http_get(http: &Value, ports: &Value) -> Result<Handler, String> {
    let headers = http.get("httpHeaders").and_then(Value::as_array);
    let headers = headers.into_iter().flatten().map(|header| pb::HttpHeader {
        name: text(header, "name").to_owned(),
        value: text(header, "value").to_owned(),
    });
    let scheme = text(http, "scheme");
    if !["", "HTTP", "HTTPS"].contains(&scheme) {
        return Err(format!("its scheme {scheme:?} is neither HTTP nor HTTPS"));
    }
    Ok(Handler::HttpGet(pb::HttpGet {
        scheme: scheme.to_owned(),
        port: port(http, ports)?.into(),
        path: text(http, "path").to_owned(),
        http_headers: headers.collect(),
    }))
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A port's number; a name is one of the container's own ports, as for the kubelet.
fn port(handler: &Value, ports: &Value) -> Result<u16, String> {
    let port = handler.get("port").unwrap_or(&Value::Null);
    let number = match port {
        Value::Number(number) => number.as_u64(),
        // The kubelet, too, reads a string as a number when no port has that name.
        Value::String(name) => named(name, ports).or_else(|| values::number(name, 1..=65_535)),
        _ => None,
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    number
        .filter(|number| *number != 0)
        .ok_or_else(|| match port {
            Value::String(name) => format!("the container has no port named {name:?}"),
            other => format!("{other} is no port"),
        })
}

fn named(name: &str, ports: &Value) -> Option<u64> {
    let mut ports = ports.as_array()?.iter();
    let port = ports.find(|port| text(port, "name") == name)?;
    port.get("containerPort")?.as_u64()
}
