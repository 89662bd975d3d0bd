//! Logs that are rotated, and logs that are not read.

use std::io::{PipeReader, PipeWriter, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::proxy::{Proxy, Settings, ask, http_manager, mirror, upstream};
use crate::running::Running;

fn get(proxy: &Proxy, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    ask(proxy.front, &request).unwrap()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn logs_are_opened_again_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (access, own) = (
        folder.path().join("access.log"),
        folder.path().join("own.log"),
    );
    let log = format!(
        r#", access_log: [{{ name: file, typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
          path: {}, log_format: {{ text_format_source: {{ inline_string: "%REQ(:path)%\n" }} }} }} }}]"#,
        access.display()
    );
    let settings = Settings {
        filters: &http_manager("", &log),
        arguments: &[
            "--log-path",
            own.to_str().unwrap(),
            "--file-flush-interval-msec",
            "20",
        ],
        ..Settings::default()
    };
    let mut proxy = Proxy::start(upstream(mirror), &settings);
    assert!(text(&own).contains("started"), "{}", text(&own));
    for (round, how) in [Some(Signal::USR1), None, Some(Signal::USR1)]
        .into_iter()
        .enumerate()
    {
        let path = format!("/round-{round}");
        get(&proxy, &path);
        proxy.until("logged", |_| text(&access).contains(&path));
        let old = folder.path().join(format!("access.{round}"));
        std::fs::rename(&access, &old).unwrap();
        std::fs::remove_file(&own).unwrap();
        match how {
            None => {
                let post =
                    "POST /reopen_logs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                assert!(ask(proxy.admin, post).unwrap().starts_with("HTTP/1.1 200 "));
            }
            Some(signal) => proxy.signal(signal),
        }
        proxy.until("opened again", |_| access.exists() && own.exists());
        get(&proxy, "/after");
        proxy.until("logged to the new file", |_| {
            text(&access).contains("/after")
        });
        assert!(!text(&old).contains("/after"));
        std::fs::remove_file(&access).unwrap();
        proxy.signal(Signal::USR1);
        proxy.until("opened again", |_| access.exists());
    }
    // Other servers read their configuration or replace themselves at these.
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR2, "SIGUSR2")] {
        proxy.signal(signal);
        proxy.until("logged", |_| text(&own).contains(name));
        assert!(get(&proxy, "/still").starts_with("HTTP/1.1 200 "));
    }
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    // The last lines are written too.
    assert!(text(&own).contains("drained"), "{}", text(&own));
}

/// A log that is not read: neither requests nor the end of the process wait for it.
#[test]
fn a_full_pipe_holds_up_neither_requests_nor_the_end() {
    let log = r#", access_log: [{ name: out, typed_config: {
      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog,
      log_format: { text_format_source: { inline_string: "%REQ(:path)%\n" } } } }]"#;
    let settings = Settings {
        filters: &http_manager("", log),
        arguments: &["-l", "trace", "--drain-time-s", "5"],
        stderr_too: true,
        ..Settings::default()
    };
    let mut proxy = Proxy::start(upstream(mirror), &settings);
    let long = format!("/{}", "x".repeat(4000));
    // Many times what a pipe holds.
    for _ in 0..500 {
        assert!(get(&proxy, &long).starts_with("HTTP/1.1 200 "));
    }
    let began = Instant::now();
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
}

/// A full pipe that is not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(b"full").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn a_full_pipe_does_not_hold_up_an_exit_with_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bootstrap = format!(
        "{{ admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}"
    );
    // Before there is a log, and with a log whose thread waits for the pipe.
    for arguments in [
        ["-c", "/nowhere.yaml", "-l", "off"],
        ["--config-yaml", &bootstrap, "-l", "trace"],
    ] {
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
        command.args(arguments).stderr(writer);
        let mut process = Running::start(&mut command);
        assert!(!process.ended().success(), "{arguments:?}");
    }
}
