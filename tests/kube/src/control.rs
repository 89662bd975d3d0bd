//! A control plane as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::Value;

use crate::command::succeed;
use crate::http::get;
use crate::wait::until;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A control plane.
pub struct Control {
    child: Child,
    log: PathBuf,
    pub name: String,
}

impl Control {
    /// `log`: the file that has its standard error.
    pub(crate) fn new(child: Child, log: PathBuf, name: &str) -> Self {
        Control {
            child,
            log,
            name: name.to_owned(),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// # Panics
    /// When it is not so.
    pub async fn logs(&self, text: &str) {
        until(
            &format!("the log of {} to say {text:?}", self.name),
            TIMEOUT,
            async || {
                let log = self.log();
                if log.contains(text) { Ok(()) } else { Err(log) }
            },
        )
        .await;
    }

    /// Its xDS address, once it listens.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub async fn xds(&self) -> SocketAddr {
        self.serving("xds").await.parse().unwrap()
    }

    /// What it logs of itself under this name, once it serves.
    async fn serving(&self, name: &str) -> String {
        let field = format!(" {name}=");
        self.logs(&field).await;
        let log = self.log();
        let found = log.split(&field).nth(1).unwrap();
        let end = found.find(char::is_whitespace).unwrap_or(found.len());
        found[..end].to_owned()
    }

    /// What its API says of all objects (`/api/v1/objects`), once it serves.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn objects(&self) -> Value {
        let api: SocketAddr = self.serving("api").await.parse().unwrap();
        let token = std::fs::read_to_string(self.serving("token").await).unwrap();
        let headers = [("authorization", format!("Bearer {}", token.trim()))];
        let (status, body) = get(api, "/api/v1/objects", &headers).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name.
    ///
    /// # Panics
    /// When there is no such signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        succeed(Command::new("kill").args(["-s", name, &pid]), "");
    }

    /// Asserts that no right was missing.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_rights(&self) {
        self.assert_rights_since(0);
    }

    /// The same of what it logged after so many bytes: an API server that begins refuses everything
    /// until it has read its roles.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_rights_since(&self, logged: usize) {
        let log = self.log();
        assert!(!log[logged..].contains("may not "), "{log}");
    }

    /// # Panics
    /// When it is not so.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    ///
    /// # Panics
    /// When it is not so.
    pub fn terminate(&mut self) {
        let kill = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(kill.unwrap().success());
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Waits until it exits with an error.
    ///
    /// # Panics
    /// When it is not so.
    pub fn fails(&mut self) -> String {
        assert!(!self.child.wait().unwrap().success());
        self.log()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("== {}\n{}", self.name, self.log());
        }
    }
}
