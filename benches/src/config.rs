//! A hop as HAProxy's and nginx' configuration: the settings by which their own manuals make them
//! fast, no logs, no statistics.

use std::fmt::Write;
use std::path::Path;

use crate::hop::{Hop, Wire};

/// HAProxy's. TLS 1.3 and AES-128-GCM; its OpenSSL offers X25519 first by itself.
pub fn haproxy(hop: &Hop, folder: &Path, connections: usize) -> String {
    let folder = folder.display();
    let mut text = format!("global\n  nbthread 1\n  maxconn {connections}\n");
    if hop.large_buffers {
        text.push_str("  tune.bufsize 65536\n");
    }
    let mode = if hop.down == Wire::Tcp { "tcp" } else { "http" };
    let _ = write!(
        text,
        "defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 300s\n  \
         timeout server 300s\n"
    );
    match mode {
        "http" => text.push_str("  http-reuse always\n"),
        _ => {
            text.insert_str("global\n".len(), "  maxpipes 64\n");
            text.push_str("  option splice-auto\n");
        }
    }
    let _ = write!(text, "frontend front\n  bind 127.0.0.1:{}", hop.listen);
    if hop.tls_down {
        let _ = write!(
            text,
            " ssl crt {folder}/server.both ca-file {folder}/ca.crt verify required \
             ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256 curves X25519"
        );
        text.push_str(alpn(hop.down));
    } else if hop.down == Wire::Http2 {
        text.push_str(" proto h2");
    }
    let _ = write!(
        text,
        "\n  default_backend to\nbackend to\n  server to 127.0.0.1:{}",
        hop.to
    );
    if hop.tls_up {
        let _ = write!(
            text,
            " ssl crt {folder}/client.both ca-file {folder}/ca.crt verify required \
             ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256"
        );
        text.push_str(alpn(hop.up));
    }
    if hop.up == Wire::Http2 {
        text.push_str(" proto h2");
    }
    text.push('\n');
    text
}

fn alpn(wire: Wire) -> &'static str {
    match wire {
        Wire::Http2 => " alpn h2",
        Wire::Http1 => " alpn http/1.1",
        Wire::Tcp | Wire::Tunnel => "",
    }
}

/// nginx'. It uses HTTP/1.1 to upstreams and has no mutual TLS to them in `stream`.
pub fn nginx(hop: &Hop, folder: &Path) -> String {
    let home = folder.display();
    let mut server = format!("listen 127.0.0.1:{}", hop.listen);
    let mut options = String::new();
    if hop.tls_down {
        server.push_str(" ssl");
        let _ = write!(
            options,
            "ssl_certificate {home}/server.crt; ssl_certificate_key {home}/server.key; \
             ssl_client_certificate {home}/ca.crt; ssl_verify_client on; \
             ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; \
             ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; "
        );
    }
    if hop.tls_up {
        let _ = write!(
            options,
            "proxy_ssl_certificate {home}/client.crt; proxy_ssl_certificate_key {home}/client.key; \
             proxy_ssl_trusted_certificate {home}/ca.crt; proxy_ssl_verify off; \
             proxy_ssl_protocols TLSv1.3; \
             proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; "
        );
    }
    let main = format!(
        "worker_processes 1; daemon off; pid {home}/nginx-{}.pid; error_log /dev/null crit; \
         events {{ worker_connections 40000; }}\n",
        hop.name
    );
    if hop.down == Wire::Tcp {
        let buffer = if hop.large_buffers { "64k" } else { "16k" };
        return format!(
            "load_module modules/ngx_stream_module.so; {main}stream {{ server {{ {server}; \
             {options} proxy_buffer_size {buffer}; tcp_nodelay on; \
             proxy_pass 127.0.0.1:{}; }} }}\n",
            hop.to
        );
    }
    let buffers = match hop.large_buffers {
        true => "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;",
        false => "",
    };
    let scheme = if hop.tls_up { "https" } else { "http" };
    format!(
        "{main}http {{ access_log off; keepalive_requests 1000000000; \
         upstream to {{ server 127.0.0.1:{}; keepalive 512; \
         keepalive_requests 1000000000; }} \
         server {{ {server}; {options} {buffers} proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_max_temp_file_size 0; \
         location / {{ proxy_pass {scheme}://to; }} }} }}\n",
        hop.to
    )
}
