//! The demo's context in the configuration of the user who started it, for as long as it runs.
//!
//! The demo runs as root. Under sudo, the user who typed it gets the context, and it is written by a
//! process of that user: root does not write into a folder that others control.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyam_control::context::{Context, Contexts, Token};

use crate::api::ControlPlane;

/// Its name.
const NAME: &str = "demo";

/// Removed on drop.
pub struct Written {
    owner: Owner,
}

enum Owner {
    Us(Contexts),
    Caller(Caller),
}

/// The user behind sudo.
struct Caller {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl Written {
    /// Writes the context and makes it the current one. `None`, with a line on the screen, when it
    /// can't: the demo does not depend on it.
    pub fn write(api: &ControlPlane) -> Option<Self> {
        let outcome = match caller() {
            Some(caller) => caller.write(api).map(|()| Owner::Caller(caller)),
            None => write_ours(api).map(Owner::Us),
        };
        match outcome {
            Ok(owner) => Some(Written { owner }),
            Err(why) => {
                println!("No context was written ({why}); `anyam` needs --api and --token-file.");
                None
            }
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // If this fails, the context stays and its control plane does not answer.
        let _ = match &self.owner {
            Owner::Us(contexts) => contexts.remove(NAME).map_err(|error| error.to_string()),
            Owner::Caller(caller) => caller.run(&["remove", NAME], ""),
        };
    }
}

fn write_ours(api: &ControlPlane) -> Result<Contexts, String> {
    let attempt = || {
        let contexts = Contexts::of_user()?;
        let context = Context {
            api: api.address(),
            token: Token::Value(api.token().to_owned()),
        };
        contexts.add(NAME, &context, true)?;
        Ok(contexts)
    };
    attempt().map_err(|error: anyam_control::context::ContextError| error.to_string())
}

/// The user that sudo names, with the home that the user database has for them.
fn caller() -> Option<Caller> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let home = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let found = fields.get(2)?.parse() == Ok::<u32, std::num::ParseIntError>(uid);
        found.then(|| fields.get(5).map(PathBuf::from)).flatten()
    })?;
    (uid != 0).then_some(Caller { uid, gid, home })
}

impl Caller {
    fn write(&self, api: &ControlPlane) -> Result<(), String> {
        let at = api.address().to_string();
        let arguments = ["add", NAME, "--at", &at, "--token-stdin", "--select"];
        self.run(&arguments, api.token())
    }

    /// `anyam context …` as this user.
    fn run(&self, arguments: &[&str], input: &str) -> Result<(), String> {
        let attempt = || -> std::io::Result<std::process::Output> {
            let mut child = Command::new(std::env::current_exe()?)
                .arg("context")
                .args(arguments)
                .env_clear()
                .env("HOME", &self.home)
                .current_dir("/")
                .gid(self.gid)
                .uid(self.uid)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        };
        match attempt() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
