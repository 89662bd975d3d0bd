//! Envoy's command line, flag by flag, as the real one lists it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::proxy::{Proxy, Settings, echo, tcp_proxy, upstream};

/// Flags that have an effect. All others are accepted and named in the log, with the reason.
const HONOURED: [&str; 27] = [
    "--stats-tag",
    "--enable-core-dump",
    "--cpuset-threads",
    "--disable-hot-restart",
    "--mode",
    "--drain-time-s",
    "--file-flush-min-size-kb",
    "--file-flush-interval-msec",
    "--service-zone",
    "--service-node",
    "--service-cluster",
    "--hot-restart-version",
    "--log-path",
    "--log-format-escaped",
    "--log-format",
    "--component-log-level",
    "-l",
    "--log-level",
    "--admin-address-path",
    "--skip-deprecated-logs",
    "--reject-unknown-dynamic-fields",
    "--config-yaml",
    "-c",
    "--config-path",
    "--concurrency",
    "--ignore_rest",
    "--version",
];

fn envoy() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/venv/bin/envoy");
    std::env::var_os("ANYAM_ENVOY").map_or(default, PathBuf::from)
}

/// A flag and whether a value follows.
fn flags_of(help: &str) -> Vec<(String, Option<String>)> {
    let (_, list) = help.split_once("Where:").unwrap();
    let heads = list.lines().filter(|line| line.starts_with("   -"));
    let forms = heads.flat_map(|line| line.trim().split(",  "));
    let forms = forms.map(|form| {
        let mut words = form.split_whitespace();
        let name = words.next().unwrap().to_owned();
        let value = words.next().filter(|word| word.starts_with('<'));
        (name, value.map(str::to_owned))
    });
    forms.filter(|(name, _)| name != "--").collect()
}

fn value(flag: &str, kind: &str, folder: &Path) -> String {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    match flag {
        "--mode" => "validate".to_owned(),
        "--drain-strategy" => "gradual".to_owned(),
        "--local-address-ip-version" => "v4".to_owned(),
        "-l" | "--log-level" => "info".to_owned(),
        "-c" | "--config-path" => file("bootstrap.yaml"),
        "--config-yaml" => "{}".to_owned(),
        "--component-log-level" => "upstream:debug,config:trace".to_owned(),
        "--stats-tag" => "site:here".to_owned(),
        "--log-format" => "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v".to_owned(),
        _ if kind == "<uint32_t>" => "1".to_owned(),
        _ => file("some"),
    }
}

fn run(arguments: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn every_flag_of_envoys_is_taken_and_what_has_no_effect_is_named() {
    let program = envoy();
    let help = Command::new(&program).arg("--help").output();
    let help = help.unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run tests/prerequisites.sh root test, or name an Envoy in ANYAM_ENVOY",
            program.display()
        )
    });
    let flags = flags_of(&String::from_utf8([help.stdout, help.stderr].concat()).unwrap());
    assert!(flags.len() > 40, "{flags:?}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bootstrap.yaml"), "{}").unwrap();
    for (flag, kind) in flags {
        let mut arguments = Vec::new();
        if flag != "--mode" {
            arguments.extend(["--mode".to_owned(), "validate".to_owned()]);
        }
        if flag != "--config-yaml" {
            arguments.extend(["--config-yaml".to_owned(), "{}".to_owned()]);
        }
        arguments.push(flag.clone());
        if let Some(kind) = kind {
            arguments.push(value(&flag, &kind, folder.path()));
        }
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        let is_named = said.contains(&format!("{flag} has no effect: "));
        let should_be = !HONOURED.contains(&&*flag) && !["-h", "--help"].contains(&&*flag);
        assert_eq!(is_named, should_be, "{flag}: {said}");
    }
}

#[test]
fn what_follows_the_end_of_the_flags_is_ignored() {
    for end in ["--", "--ignore_rest"] {
        let line = [
            "--mode",
            "validate",
            "--config-yaml",
            "{}",
            end,
            "--nonsense",
            "x",
        ];
        let output = run(&line.map(str::to_owned));
        assert!(output.status.success(), "{end}: {output:?}");
    }
    let wrong = [
        "--drain-strategy=slow",
        "--local-address-ip-version=v5",
        "--stats-tag=a",
        "--stats-tag=a-b:c",
        "--stats-tag=a:b.c",
        "--component-log-level=x",
        "--component-log-level=x:loud",
        "--log-format=%q",
        "--base-id=x",
        "--nonsense",
    ];
    for flag in wrong {
        let line = ["--mode", "validate", "--config-yaml", "{}", flag];
        assert!(!run(&line.map(str::to_owned)).status.success(), "{flag}");
    }
    let output = run(&["--hot-restart-version".to_owned()]);
    assert_eq!(output.stdout, b"disabled\n");
}

#[test]
fn flags_do_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (address, log) = (file("admin"), file("log"));
    let settings = Settings {
        filters: &tcp_proxy(""),
        arguments: &[
            "--admin-address-path",
            &address,
            "--stats-tag",
            "site:here",
            "--stats-tag",
            "rack:b 7",
            "--log-path",
            &log,
            "--log-format",
            "[%l][%n] %v",
            "--component-log-level",
            "upstream:debug",
            "--base-id",
            "3",
            "--enable-core-dump",
        ],
        ..Settings::default()
    };
    let proxy = Proxy::start(upstream(echo), &settings);
    assert_eq!(
        std::fs::read_to_string(&address).unwrap(),
        proxy.admin.to_string()
    );
    let metrics = proxy.metrics();
    assert!(
        metrics.contains(r#"site="here""#) && metrics.contains(r#"rack="b 7""#),
        "{metrics}"
    );
    let text = || std::fs::read_to_string(&log).unwrap();
    proxy.until("logged", |_| text().contains("[info][app] started in"));
    let text = text();
    assert!(
        text.contains("[warning][app] --base-id has no effect: "),
        "{text}"
    );
}
