//! A folder whose changes the kernel does not report is followed all the same. The only test of its
//! process, of which it takes the open files.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyam_control::source::Source;
use anyam_control::source::files::Folder;
use anyam_control::source::watch::Watched;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn count(&self, part: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.matches(part).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Opens files until this process may open only `left` more.
fn take_descriptors(left: usize) -> Vec<File> {
    let low = Rlimit {
        current: Some(64),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, low).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len().checked_sub(left).unwrap());
    taken
}

fn write(path: &Path, name: &str, port: u16) {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ ports: [{{ port: {port} }}] }}\n"
    );
    std::fs::write(path, text).unwrap();
}

/// The objects in the source's next report.
async fn next(source: &mut Watched) -> Vec<String> {
    let next = tokio::time::timeout(Duration::from_secs(60), source.next());
    let observed = next.await.expect("it is found").unwrap();
    let set = observed.delta.set.iter();
    set.map(|(object, _)| object.id().to_string()).collect()
}

#[tokio::test]
async fn a_folder_is_followed_while_the_kernel_does_not_watch_it() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let above = tempfile::tempdir().unwrap();
    let outside = above.path().join("outside.yaml");
    let root = above.path().join("mesh");
    std::fs::create_dir(&root).unwrap();
    write(&outside, "o", 80);
    symlink(&outside, root.join("o.yaml")).unwrap();

    // One to read a folder and a file; inotify, with what waits for it, takes more than two.
    let taken = take_descriptors(2);
    let mut source = Watched::new(Folder::new(&root));
    assert_eq!(next(&mut source).await, ["Service default/o"]);
    assert_eq!(log.count("fs.inotify.max_user_instances"), 1);
    write(&root.join("a.yaml"), "a", 80);
    assert_eq!(next(&mut source).await, ["Service default/a"]);
    // Once, however often it is tried.
    assert_eq!(log.count("fs.inotify.max_user_instances"), 1);

    drop(taken);
    write(&root.join("b.yaml"), "b", 80);
    assert_eq!(next(&mut source).await, ["Service default/b"]);
    assert_eq!(log.count("the kernel reports changes"), 1);
    // What is outside would be found by a look at all files, and is not reported.
    write(&outside, "o", 81);
    write(&root.join("c.yaml"), "c", 80);
    assert_eq!(next(&mut source).await, ["Service default/c"]);
}
