//! The volumes of the sidecar: what proves the pod's identity, and where its key is kept.

use serde_json::{Value, json};

use super::pod::JsonObject;
use super::settings::MeshSettings;

/// The private key and the certificate: in memory, and deleted with the pod.
pub(super) const IDENTITY: &str = "anyam-identity";
/// The service-account token for the CA, and the mesh's roots.
pub(super) const CREDENTIALS: &str = "anyam-credentials";
pub(super) const ALL: [&str; 2] = [IDENTITY, CREDENTIALS];

const IDENTITY_PATH: &str = "/var/run/anyam";
const CREDENTIALS_PATH: &str = "/var/run/secrets/anyam";
/// The root of a volume is open to every user; the sidecar makes this folder in it with mode 0700.
pub(super) const STATE_DIR: &str = "/var/run/anyam/identity";
pub(super) const TOKEN_FILE: &str = "/var/run/secrets/anyam/token";
pub(super) const CA_FILE: &str = "/var/run/secrets/anyam/ca.crt";

pub(super) fn all(settings: &MeshSettings) -> [JsonObject; 2] {
    let identity = json!({
        "name": IDENTITY,
        "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"},
    });
    let credentials = json!({
        "name": CREDENTIALS,
        "projected": {"sources": [
            {"serviceAccountToken": {
                "audience": settings.token_audience,
                "expirationSeconds": settings.token_seconds,
                "path": "token",
            }},
            {"configMap": {
                "name": settings.ca_config_map,
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
        ]},
    });
    [object(identity), object(credentials)]
}

pub(super) fn mounts() -> Value {
    json!([
        {"name": IDENTITY, "mountPath": IDENTITY_PATH},
        {"name": CREDENTIALS, "mountPath": CREDENTIALS_PATH, "readOnly": true},
    ])
}

/// The object that `json!` makes of braces.
pub(super) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}
