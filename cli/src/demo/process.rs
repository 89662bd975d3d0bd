//! Processes of the demo: started with their output in files, ended with the demo.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::netns::{Command, Namespace};
use super::workloads::{NAMESPACE, Program, TRUST_DOMAIN};
use super::{Broken, DemoError};

/// The user that sidecars run as: netfilter lets it pass.
const PROXY_UID: u32 = 1337;
/// The user that the shop's programs run as.
const APP_UID: u32 = 65_534;
pub const XDS_PORT: u16 = 15_012;
pub const API_PORT: u16 = 15_080;

/// Where the demo keeps everything, and which programs it runs.
pub struct Site {
    pub folder: PathBuf,
    pub proxy: PathBuf,
    pub control: PathBuf,
    pub shop: PathBuf,
    pub control_address: Ipv4Addr,
    pub broken: Option<Broken>,
}

/// A running process; ended and reaped on drop.
pub struct Process {
    pub name: String,
    child: Child,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl Process {
    /// SIGKILL, as a crash would be, and reaped.
    pub fn kill(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, when it did.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The last line of what it printed.
    pub fn last_line(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.stdout).ok()?;
        // A line still being written has no newline yet.
        let whole = &text[..=text.rfind('\n')?];
        whole.lines().last().map(str::to_owned)
    }

    /// The last lines of the process's standard error.
    pub fn last_errors(&self) -> String {
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Site {
    pub fn config(&self) -> PathBuf {
        self.folder.join("config")
    }

    pub fn control_state(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// The control plane, as root in its own namespace, where no rules redirect.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_control(&self, namespace: &Namespace) -> Result<Process, DemoError> {
        let mut arguments = vec![
            "--config-dir".into(),
            self.config().display().to_string(),
            "--state-dir".into(),
            self.control_state().display().to_string(),
            "--xds-listen".into(),
            format!("{}:{XDS_PORT}", self.control_address),
            "--api-listen".into(),
            format!("127.0.0.1:{API_PORT}"),
            "--trust-domain".into(),
            TRUST_DOMAIN.into(),
        ];
        if self.broken != Some(Broken::Rotation) {
            arguments.extend(["--certificate-ttl".into(), "20s".into()]);
        }
        self.spawn("control", namespace, &self.control, arguments, 0, None)
    }

    /// A join token for one workload, minted by the control plane's own command.
    ///
    /// # Errors
    /// When the command fails.
    pub fn mint_token(&self, workload: &str) -> Result<String, DemoError> {
        let output = std::process::Command::new(&self.control)
            .args(["token", "--state-dir"])
            .arg(self.control_state())
            .arg("--config-dir")
            .arg(self.config())
            .args(["--trust-domain", TRUST_DOMAIN])
            .args(["--workload", &format!("{NAMESPACE}/{workload}")])
            .output()
            .map_err(|error| DemoError::Start {
                name: "anyam-control token".into(),
                error,
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(DemoError::Ended {
            name: "anyam-control token".into(),
            last_errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Netfilter rules, in the workload's namespace.
    ///
    /// # Errors
    /// When the rules are refused.
    pub fn redirect(&self, namespace: &Namespace) -> Result<(), DemoError> {
        let mut process = self.spawn(
            "redirect",
            namespace,
            &self.proxy,
            vec!["redirect".into()],
            0,
            None,
        )?;
        let status = process.child.wait().map_err(|error| DemoError::Start {
            name: "anyam-proxy redirect".into(),
            error,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(DemoError::Ended {
            name: "anyam-proxy redirect".into(),
            last_errors: process.last_errors(),
        })
    }

    /// A program's sidecar.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_sidecar(
        &self,
        program: &Program,
        namespace: &Namespace,
    ) -> Result<Process, DemoError> {
        let state = self.folder.join("sidecar").join(program.name);
        let token_file = state.join("token");
        let token = self.mint_token(program.name)?;
        let unwritable = |error| DemoError::File {
            path: state.clone(),
            error,
        };
        std::fs::create_dir_all(&state).map_err(unwritable)?;
        std::fs::write(&token_file, token).map_err(unwritable)?;
        for path in [&state, &token_file] {
            std::os::unix::fs::chown(path, Some(PROXY_UID), Some(PROXY_UID)).map_err(unwritable)?;
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&state, private).map_err(unwritable)?;
        let arguments = [
            "sidecar",
            "--workload",
            program.name,
            "--namespace",
            NAMESPACE,
            "--service-account",
            program.account,
            "--trust-domain",
            TRUST_DOMAIN,
            "--address",
            &program.address.to_string(),
            "--control-plane",
            &format!("{}:{XDS_PORT}", self.control_address),
            "--token-file",
            &token_file.display().to_string(),
            "--state-dir",
            &state.display().to_string(),
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        let name = format!("{}-sidecar", program.name);
        self.spawn(&name, namespace, &self.proxy, arguments, PROXY_UID, None)
    }

    /// The program itself, as an ordinary user with an ordinary resolver.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_program(
        &self,
        program: &Program,
        namespace: &Namespace,
        arguments: &[&str],
    ) -> Result<Process, DemoError> {
        let resolver = self.folder.join("resolv.conf");
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        self.spawn(
            program.name,
            namespace,
            &self.shop,
            arguments,
            APP_UID,
            Some(&resolver),
        )
    }

    fn spawn(
        &self,
        name: &str,
        namespace: &Namespace,
        program: &Path,
        arguments: Vec<String>,
        uid: u32,
        resolv_conf: Option<&Path>,
    ) -> Result<Process, DemoError> {
        let logs = self.folder.join("logs");
        let stdout = logs.join(format!("{name}.out"));
        let stderr = logs.join(format!("{name}.err"));
        let open = |path: &PathBuf| {
            let file = File::options().create(true).append(true).open(path);
            file.map(Stdio::from).map_err(|error| DemoError::File {
                path: path.clone(),
                error,
            })
        };
        let command = Command {
            namespace,
            program,
            arguments,
            environment: vec![
                (
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                ),
                ("RUST_BACKTRACE", "1".into()),
            ],
            uid,
            resolv_conf,
            stdout: open(&stdout)?,
            stderr: open(&stderr)?,
        };
        let child = command.spawn().map_err(|error| DemoError::Start {
            name: name.into(),
            error,
        })?;
        Ok(Process {
            name: name.into(),
            child,
            stdout,
            stderr,
        })
    }
}
