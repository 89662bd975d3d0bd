//! docs/kubernetes.md has every annotation and setting.

use std::path::Path;

use anyam_control::inject::annotations::ALL;
use anyam_control::inject::settings::MeshSettings;

#[test]
fn every_annotation_is_documented_with_its_meaning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let text = std::fs::read_to_string(path).unwrap();
    for annotation in &ALL {
        let row = format!(
            "| `{}` | {} | {} |",
            annotation.name, annotation.allowed, annotation.meaning
        );
        assert!(
            text.contains(&row),
            "docs/kubernetes.md lacks the row\n{row}"
        );
    }
    let (_, section) = text.split_once("\n### Annotations of a pod\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| `mesh.anyam.dev/"));
    for row in rows {
        let name = row.trim_start_matches("| `").split('`').next().unwrap();
        let known = ALL.iter().any(|annotation| annotation.name == name);
        assert!(known, "docs/kubernetes.md has {name}, which there is not");
    }
}

#[test]
fn the_settings_are_documented_with_their_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes.md");
    let text = std::fs::read_to_string(path).unwrap();
    let block = text
        .split("```yaml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("injection.yaml");
    std::fs::write(&file, block.replace("VERSION", env!("CARGO_PKG_VERSION"))).unwrap();
    assert_eq!(MeshSettings::read(&file).unwrap(), MeshSettings::default());
}
