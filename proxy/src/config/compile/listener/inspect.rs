//! Listener filters.

use xds_proto::envoy::config::listener::v3 as pb;
use xds_proto::envoy::extensions::filters::listener::{
    http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst,
    tls_inspector::v3::TlsInspector,
};

use crate::config::compile::support::{
    At, CompileError, bool_or, decode, ignored, required, type_name, unknown_type, unsupported,
};
use crate::config::listener::ListenerFilters;

/// Whether `original_dst` is set, and which listener filters inspect the first bytes.
pub fn inspectors(
    at: At<'_>,
    filters: &[pb::ListenerFilter],
) -> Result<(bool, ListenerFilters), CompileError> {
    let mut original_dst = false;
    let mut inspect = ListenerFilters::default();
    for (index, m) in filters.iter().enumerate() {
        let at = at.index("listener_filters", index);
        let pb::ListenerFilter {
            name,
            filter_disabled,
            config_type,
        } = m;
        ignored!("the type says what the extension is", name);
        let any = match required!(at, config_type) {
            pb::listener_filter::ConfigType::TypedConfig(any) => any,
            pb::listener_filter::ConfigType::ConfigDiscovery(_) => {
                return at
                    .field("config_discovery")
                    .fail("is not supported by this proxy");
            }
        };
        let inner = at.field("typed_config");
        match type_name(any) {
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
                let OriginalDst {} = decode(inner, any)?;
                unsupported!(at, filter_disabled);
                original_dst = true;
            }
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
                let m: TlsInspector = decode(inner, any)?;
                check_tls_inspector(inner, &m)?;
                // Envoy's way to leave ports out of inspection; Istio uses it for server-first
                // ports. Waiting for the client never holds such a connection up here.
                ignored!(
                    "protocol detection does not delay server-first ports",
                    filter_disabled
                );
                inspect.tls = true;
            }
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
                let HttpInspector {} = decode(inner, any)?;
                inspect.http = true;
                ignored!(
                    "protocol detection does not delay server-first ports",
                    filter_disabled
                );
            }
            _ => return unknown_type(at, any),
        }
    }
    Ok((original_dst, inspect))
}

fn check_tls_inspector(at: At<'_>, m: &TlsInspector) -> Result<(), CompileError> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = m;
    let enable_ja3_fingerprinting = &bool_or(enable_ja3_fingerprinting, false);
    let enable_ja4_fingerprinting = &bool_or(enable_ja4_fingerprinting, false);
    unsupported!(at, enable_ja3_fingerprinting, enable_ja4_fingerprinting);
    ignored!(
        "reads go into pooled buffers that hold any ClientHello",
        initial_read_buffer_size,
        max_client_hello_size
    );
    ignored!(
        "what is no ClientHello is not TLS, and the chains decide",
        close_connection_on_client_hello_parsing_errors
    );
    Ok(())
}
