//! Manifests as people write them, mutated: what the control plane takes, the proxy takes; what it
//! refuses, it refuses with a place in the file.

use std::fs;

use anyam_control::declared;
use anyam_control::model::MeshOptions;
use anyam_control::source::yaml;

use super::{compiler, folders, sent};
use crate::rounds::Rounds;

const ROUNDS: usize = 400;

const PIECES: [&str; 34] = [
    "\n",
    "  ",
    "- ",
    ": ",
    "{}",
    "[]",
    "null",
    "~",
    "\"\"",
    "'",
    "\"",
    "#",
    "---\n",
    "*a",
    "&a ",
    "!!str ",
    "<<: ",
    "0",
    "-1",
    "65536",
    "99999999999999999999",
    "1.5",
    "true",
    "yes",
    "\u{feff}",
    "\u{0}",
    "\t",
    "|",
    ">-\n",
    "%",
    "*",
    "/",
    "5s",
    "web",
];

fn mutated(text: &str, rng: &mut fastrand::Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..rng.usize(1..3) {
        let at = rng.usize(..lines.len());
        match rng.u8(..7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, lines[rng.usize(..lines.len())].clone()),
            2 => {
                let other = rng.usize(..lines.len());
                lines.swap(at, other);
            }
            // Another value of a key: any, or one that a line with that key has.
            3 | 4 => {
                if let Some((key, _)) = lines[at].split_once(": ") {
                    let same = lines.iter().filter_map(|line| line.strip_prefix(key));
                    let same: Vec<String> = same.map(str::to_owned).collect();
                    let piece = match rng.u8(..4) {
                        0 => format!(": {}", PIECES[rng.usize(..PIECES.len())]),
                        _ => same[rng.usize(..same.len())].clone(),
                    };
                    lines[at] = key.to_owned() + &piece;
                }
            }
            5 => {
                let line: Vec<char> = lines[at].chars().collect();
                let cut = rng.usize(..=line.len());
                let piece = PIECES[rng.usize(..PIECES.len())];
                let (before, after) = line.split_at(cut);
                lines[at] =
                    before.iter().collect::<String>() + piece + &after.iter().collect::<String>();
            }
            _ => {
                let indent = " ".repeat(rng.usize(..9));
                lines[at] = indent + lines[at].trim_start();
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

fn texts() -> Vec<String> {
    let files = folders().into_iter().flat_map(|folder| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn what_is_read_of_a_mutated_manifest_is_taken_by_the_proxy() {
    let compiler = compiler();
    let texts = texts();
    let mut rounds = Rounds::new(ROUNDS);
    let mut taken = 0;
    while let Some(mut rng) = rounds.next() {
        let text = mutated(&texts[rng.usize(..texts.len())], &mut rng);
        match yaml::parse("mesh.yaml", &text) {
            Ok(_) => {}
            Err(errors) => {
                // The end of the text is a place too.
                let lines = text.lines().count() + 1;
                for error in errors {
                    let shown = format!("{error:?}\n{text}");
                    assert!(error.line <= lines && !error.message.is_empty(), "{shown}");
                }
                continue;
            }
        }
        let (folder, state_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("mesh.yaml"), &text).unwrap();
        let (translator, _) =
            declared::open(folder.path(), state_dir.path(), MeshOptions::default()).unwrap();
        let (_, refused) = sent(&compiler, &translator.state());
        assert!(refused.is_empty(), "{refused:#?}\n{text}");
        taken += 1;
    }
    assert!(taken > ROUNDS / 20, "{taken} were taken");
}
