//! What a new user sees: `anyam` with the kubeconfig that kubectl has, after an installation by the chart.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyam_tests_kube::{Cluster, Kubectl, Output, program, run, until};
use serde_json::{Value, json};

use crate::mesh;
use crate::shop::Shop;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A user's `anyam`.
struct User {
    kubeconfig: PathBuf,
    home: tempfile::TempDir,
}

impl User {
    fn new(kubeconfig: &Path) -> Self {
        User {
            kubeconfig: kubeconfig.to_owned(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// A service account of a namespace, which is made.
    fn account(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        let of = ["--namespace", namespace];
        cluster.kubectl(&[&["create", "serviceaccount", name][..], &of].concat());
        let token = cluster.kubectl(&[&["create", "token", name][..], &of].concat());
        let config = cluster.kubectl(&["config", "view", "--raw", "--minify", "--output=json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let home = tempfile::tempdir().unwrap();
        let kubeconfig = home.path().join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        User { kubeconfig, home }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("anyam"));
        command
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", &self.kubeconfig);
        for variable in [
            "ANYAM_CONTEXT",
            "ANYAM_API",
            "ANYAM_TOKEN_FILE",
            "XDG_CONFIG_HOME",
            "ANYAM_CONFIG_DIR",
        ] {
            command.env_remove(variable);
        }
        command
    }

    fn anyam(&self, arguments: &[&str]) -> Output {
        run(&mut self.command(arguments), "")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.anyam(arguments);
        assert_eq!(output.status, Some(0), "{arguments:?}: {output:?}");
        output.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    fn refused(&self, arguments: &[&str], word: &str) {
        let output = self.anyam(arguments);
        assert_eq!(output.status, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(word), "{word}: {output:?}");
    }
}

/// `anyam dashboard`, ended on drop.
struct Dashboard {
    child: Child,
    /// `127.0.0.1:PORT`
    address: String,
    token: String,
}

impl Dashboard {
    fn open(user: &User, arguments: &[&str]) -> Self {
        let mut child = user
            .command(&[&["dashboard"], arguments].concat())
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("http://")
            .map(|url| url.split_once("/#token="));
        let Some(Some((address, token))) = url else {
            panic!("no address of a dashboard: {line:?}, {:?}", child.wait());
        };
        Dashboard {
            address: address.to_owned(),
            token: token.to_owned(),
            child,
        }
    }

    /// A request as a browser sends it, and the whole answer.
    fn ask(&self, method: &str, path: &str, header: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\n{header}connection: close\r\ncontent-length: 0\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kubeconfig() -> PathBuf {
    std::env::var_os("KUBECONFIG").unwrap().into()
}

#[tokio::test]
async fn a_new_user_looks_into_the_mesh() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    let namespace = shop.namespace.name.as_str();
    let of = ["-n", namespace];
    let with = |command: &[&'static str]| [command, &of[..]].concat();
    let user = User::new(&kubeconfig());
    shop.answers("http://web/", "web\n").await;
    let load = shop.load("http://web/");

    // Traffic of the last seconds.
    until("traffic by mutual TLS", TIMEOUT, async || {
        let stat = user.json(&with(&["stat"]));
        let web = |it: &Value| it["kind"] == "service" && it["name"] == "web" && it["mtls"] == 1.0;
        match stat["stats"].as_array().unwrap().iter().any(web) {
            true => Ok(()),
            false => Err(stat.to_string()),
        }
    })
    .await;
    let stat = user.done(&with(&["stat"]));
    assert!(stat.contains("MTLS") && stat.contains("100.00 %"), "{stat}");
    let edges = user.json(&with(&["edges"]));
    let called = |edge: &&Value| {
        edge["source_workload"]
            .as_str()
            .is_some_and(|it| it.starts_with("client-"))
            && edge["destination_service"]
                .as_str()
                .is_some_and(|it| it.starts_with("web"))
    };
    let edge = edges["edges"].as_array().unwrap().iter().find(called);
    assert_eq!(edge.unwrap()["mtls"], true, "{edges}");
    let proxies = user.done(&with(&["proxies"]));
    assert_eq!(proxies.matches("synced").count(), 3, "{proxies}");
    assert!(user.done(&["proxies", "-A"]).contains(namespace));

    let tap = user.anyam(&with(&[
        "tap",
        "deploy/web",
        "--direction",
        "inbound",
        "--max",
        "3",
    ]));
    assert_eq!(tap.status, Some(0), "{tap:?}");
    assert!(tap.stderr.contains("2 pods: web-"), "{tap:?}");
    let client = format!("spiffe://anyam.local/ns/{namespace}/sa/client");
    assert!(
        tap.stdout.lines().count() == 3 && tap.stdout.contains(&client),
        "{tap:?}"
    );
    let explained = user.json(&with(&["explain", "deploy/client", "web"]));
    assert_eq!(explained["verdict"], "allowed", "{explained}");
    let dump = user.done(&with(&["dump", "svc/web", "certs"]));
    assert!(
        dump.contains(&format!("spiffe://anyam.local/ns/{namespace}/sa/web")),
        "{dump}"
    );
    let routes = user.done(&with(&["routes", "svc/web"]));
    assert!(
        routes.contains(&format!("web.{namespace}.svc.cluster.local:80")),
        "{routes}"
    );
    let check = user.anyam(&with(&["check"]));
    assert_eq!(check.status, Some(0), "{check:?}");
    let pre = user.done(&["check", "--pre"]);
    assert!(
        pre.contains("Helm release anyam in namespace anyam-system"),
        "{pre}"
    );

    the_dashboard_answers(&user, &of);
    let tally = load.end();
    assert_eq!(tally.failed, 0, "{}", tally.reasons);
}

/// Through its port-forward, after the login that it was opened with.
fn the_dashboard_answers(user: &User, of: &[&str]) {
    let dashboard = Dashboard::open(user, of);
    let page = dashboard.ask("GET", "/", "");
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("<script>"),
        "{page}"
    );
    let unknown = dashboard.ask("GET", "/api/v1/proxies", "");
    assert!(unknown.starts_with("HTTP/1.1 401"), "{unknown}");
    let login = format!("authorization: Bearer {}\r\n", dashboard.token);
    let session = dashboard.ask("POST", "/api/v1/session", &login);
    let cookie = session.split("set-cookie: ").nth(1);
    let cookie = cookie
        .unwrap_or_else(|| panic!("{session}"))
        .split(';')
        .next()
        .unwrap();
    let seen = dashboard.ask("GET", "/api/v1/proxies", &format!("cookie: {cookie}\r\n"));
    assert!(seen.contains("web-") && seen.contains("client-"), "{seen}");
}

#[tokio::test]
async fn a_viewer_of_a_namespace_is_limited_to_it() {
    let cluster = Cluster::shared();
    mesh::install(&cluster);
    let shop = Shop::open(&cluster, true);
    let other = cluster.namespace("shop-other");
    let namespace = shop.namespace.name.as_str();
    let viewer = User::account(&cluster, namespace, "viewer");
    let account = format!("--serviceaccount={namespace}:viewer");
    shop.namespace.kubectl(&[
        "create",
        "rolebinding",
        "viewer",
        "--clusterrole=anyam-viewer",
        &account,
    ]);
    let proxies = until("the right to be in force", TIMEOUT, async || {
        let output = viewer.anyam(&["proxies", "-n", namespace]);
        match output.status {
            Some(0) => Ok(output.stdout),
            _ => Err(output.stderr),
        }
    })
    .await;
    assert!(proxies.contains("web-"), "{proxies}");
    viewer.done(&["check", "-n", namespace]);
    viewer.refused(&["proxies", "-A"], "clusterrolebinding");
    viewer.refused(&["proxies", "-n", &other.name], "create rolebinding");
    viewer.refused(&["tap", "-n", namespace, "pod/web"], "administrator");
    let pod = proxies.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.find(|word| word.starts_with("web-"))
    });
    let pod = format!("{namespace}/{}", pod.unwrap());
    viewer.refused(&["tap", &pod], "anyam-operator");
    viewer.refused(&["dump", &pod], "anyam-operator");
    viewer.refused(&["dashboard", "-n", namespace], "pods/portforward");
}
