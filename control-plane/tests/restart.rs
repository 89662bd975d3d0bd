//! A restart of the control plane does not change which declarations are in service, whatever the
//! names of files and objects.

#![allow(clippy::unwrap_used)] // tests: a failed unwrap is a failed test

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use anyam_control::ads::resources::Resources;
use anyam_control::api::Declared;
use anyam_control::declared;
use anyam_control::model::MeshOptions;
use anyam_control::source::files::Folder;
use anyam_control::translate::Translator;

/// Manifests, and the state that a control plane keeps beside them.
struct Folders {
    config: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        Folders {
            config: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.config.path().join(file), text).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.config.path().join(file)).unwrap();
    }

    /// A control plane after its start.
    fn start(&self) -> Control {
        let (config, state) = (self.config.path(), self.state.path());
        let (translator, folder) = declared::open(config, state, MeshOptions::default()).unwrap();
        Control { translator, folder }
    }

    fn state(&self, file: &str) -> std::path::PathBuf {
        self.state.path().join(file)
    }
}

struct Control {
    translator: Arc<Translator>,
    folder: Folder,
}

impl Control {
    fn follow(&mut self) {
        self.translator.apply(self.folder.changes());
    }

    /// Which object has an address, and where it is declared.
    fn holders(&self) -> [String; 3] {
        let state = self.translator.state();
        let ip = |text: &str| text.parse().unwrap();
        let service = |text| state.mesh.by_vip.get(&ip(text));
        let workload = |text| state.mesh.by_ip.get(&ip(text));
        [
            service("10.1.0.1"),
            service("10.1.0.9"),
            workload("10.0.0.7"),
        ]
        .map(|key| key.map_or_else(String::new, ToString::to_string))
    }

    /// The files whose declarations are not used.
    fn unused(&self) -> Vec<String> {
        let errors = self.translator.objects().file_errors;
        errors.into_iter().map(|error| error.file).collect()
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ clusterIP: {ip}, ports: [{{ port: 80 }}] }}\n"
    )
}

fn workload(name: &str) -> String {
    format!(
        "---\napiVersion: mesh.anyam.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ addresses: [10.0.0.7] }}\n"
    )
}

/// Service `web` with an address of its own, a Service with another address, and a Workload.
fn all(web: &str, of: &str) -> String {
    [service("web", web), service(of, "10.1.0.9"), workload(of)].concat()
}

#[test]
fn a_restart_keeps_what_is_in_service_whatever_its_name() {
    let folders = Folders::new();
    folders.write("z.yaml", &all("10.1.0.1", "zebra"));
    let mut control = folders.start();
    let zebra = ["shop/web", "shop/zebra", "shop/zebra"];
    assert_eq!(control.holders(), zebra);
    folders.write("a.yaml", &all("10.1.0.2", "ant"));
    control.follow();
    let expect = |control: &Control| {
        assert_eq!(control.holders(), zebra);
        assert_eq!(control.unused(), ["a.yaml"]);
    };
    expect(&control);
    // Twice, so that the second start reads what the first has written.
    for _ in 0..2 {
        control = folders.start();
        expect(&control);
    }
    // Unrelated changes do not alter it either.
    folders.write("m.yaml", &service("other", "10.1.0.3"));
    control.follow();
    expect(&control);
    for file in ["duplicates.json", "address-conflicts.json"] {
        assert_eq!(mode(&folders.state(file)), 0o600, "{file}");
    }

    // The declaration in service is removed while no control plane runs: the other one is used
    // then, and stays in service.
    drop(control);
    folders.remove("z.yaml");
    let mut control = folders.start();
    let ant = ["", "shop/ant", "shop/ant"];
    assert_eq!(control.holders(), ant);
    folders.write("0.yaml", &all("10.1.0.1", "aardvark"));
    control.follow();
    for _ in 0..2 {
        assert_eq!(control.holders(), ant);
        assert_eq!(control.unused(), ["0.yaml"]);
        control = folders.start();
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_token_is_for_the_account_of_the_declaration_in_service() {
    let folders = Folders::new();
    let account = |name: &str| {
        format!(
            "apiVersion: mesh.anyam.dev/v1alpha1\nkind: Workload\nmetadata: {{ name: web, namespace: shop }}\nspec: {{ addresses: [10.0.0.7], serviceAccount: {name} }}\n"
        )
    };
    folders.write("z.yaml", &account("zebra"));
    let mut control = folders.start();
    folders.write("a.yaml", &account("ant"));
    control.follow();
    let view = control.translator.view();
    assert_eq!(
        view.service_account("shop", "web").as_deref(),
        Some("zebra")
    );
    let mut folder = declared::folder(folders.config.path(), folders.state.path()).unwrap();
    let objects = folder.scan(std::time::Instant::now()).objects;
    let files: Vec<_> = objects.iter().map(|it| it.file.as_str()).collect();
    assert_eq!(files, ["z.yaml"]);
}

#[test]
fn a_file_of_the_state_folder_that_is_not_ours_ends_the_start() {
    for file in ["duplicates.json", "address-conflicts.json"] {
        let folders = Folders::new();
        std::fs::write(folders.state(file), "[]").unwrap();
        let (config, state) = (folders.config.path(), folders.state.path());
        let opened = declared::open(config, state, MeshOptions::default());
        let error = opened.map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(file) && error.contains("remove the file"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_start_on_a_folder_that_has_lost_its_files_waits_for_them() {
    let folders = Folders::new();
    let (config, state) = (folders.config.path(), folders.state.path());
    let open = || declared::open_filled(config, state, MeshOptions::default());
    let served = |translator: &Translator| translator.state().mesh.services.iter().count();
    // The first start: an empty mesh is one.
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(open()).poll(&mut context).is_ready());
    let web =
        "apiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { ports: [{ port: 80 }] }\n";
    folders.write("web.yaml", web);
    let (translator, _) = open().await.unwrap();
    assert_eq!(served(&translator), 1);
    // Another start, before the volume is mounted.
    folders.remove("web.yaml");
    let mut opening = pin!(open());
    assert!(opening.as_mut().poll(&mut context).is_pending());
    folders.write("web.yaml", web);
    let (translator, _) = opening.await.unwrap();
    assert_eq!(served(&translator), 1);
}
