//! Runs programs to their end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::Output;

/// `cluster.sh` beside this crate.
pub fn script() -> Command {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cluster.sh");
    Command::new(path)
}

/// A file of a component that `build.sh` beside this crate made.
///
/// # Panics
/// When it is not built; the message says how to do that.
pub fn component(name: &str, file: &str) -> PathBuf {
    let build = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("build.sh");
    let folder = succeed(Command::new(build).args(["--where", name]), "");
    let path = Path::new(folder.trim()).join(file);
    assert!(
        path.exists(),
        "{name} is not built. Run: tests/kube/build.sh {name}"
    );
    path
}

/// A program of the workspace, built beside the running test, or in the folder `ANYAM_PROGRAMS`.
///
/// # Panics
/// When it was not built: `cargo build --bins` comes first.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    // Tests are in `deps`, programs beside it.
    let folder = match folder.ends_with("deps") {
        true => folder.parent().unwrap(),
        false => folder,
    };
    let named = std::env::var_os("ANYAM_PROGRAMS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| folder.to_owned()).join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo build --bins`",
        path.display()
    );
    path
}

/// Runs a program to its end, whatever its exit status.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A program may end without reading its input; its exit status counts.
    let feed = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    Output {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program and returns its standard output.
///
/// # Panics
/// When its exit status is not 0.
pub fn succeed(command: &mut Command, input: &str) -> String {
    let output = run(command, input);
    assert!(
        output.status == Some(0),
        "{command:?} failed, status {:?}:\n{}{}",
        output.status,
        output.stdout,
        output.stderr
    );
    output.stdout
}
