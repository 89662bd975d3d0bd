//! What ARCHITECTURE.md names exists: each file, and each item that it gives with a file as
//! `` `file.rs`: `item` ``.

use super::sources;

const DOCUMENT: &str = "ARCHITECTURE.md";

/// The words between backquotes and what follows each up to the next, in order. An odd backquote
/// would shift all that follows, so there must be none.
fn quoted(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split('`').collect();
    assert!(parts.len() % 2 == 1, "{DOCUMENT} has an odd number of `");
    parts[1..]
        .chunks(2)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

fn is_file(word: &str) -> bool {
    word.ends_with(".rs")
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_/.".contains(c))
}

fn defines(text: &str, item: &str) -> bool {
    let kinds = [
        "fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod ",
    ];
    kinds.iter().any(|kind| {
        text.match_indices(&format!("{kind}{item}"))
            .any(|(at, found)| {
                let next = text[at + found.len()..].chars().next();
                next.is_none_or(|c| !c.is_alphanumeric() && c != '_')
            })
    })
}

#[test]
fn every_file_and_item_that_the_architecture_names_exists() {
    let text = std::fs::read_to_string(super::root().join(DOCUMENT)).unwrap();
    let sources = sources();
    let mut wrong = Vec::new();
    let (mut files, mut items) = (0, 0);
    let words = quoted(&text);
    for (at, (word, after)) in words
        .iter()
        .enumerate()
        .filter(|(_, (word, _))| is_file(word))
    {
        files += 1;
        let named: Vec<&str> = sources
            .iter()
            .filter(|(name, _)| name == word || name.ends_with(&format!("/{word}")))
            .map(|(_, text)| &**text)
            .collect();
        if named.is_empty() {
            wrong.push(format!("no file {word}"));
        }
        // `file.rs`: `item`
        let item = words.get(at + 1).filter(|_| after.trim() == ":");
        let Some((item, _)) = item else {
            continue;
        };
        items += 1;
        let name = item.rsplit("::").next().unwrap_or(item);
        if !named.iter().any(|text| defines(text, name)) {
            wrong.push(format!("no {item} in {word}"));
        }
    }
    assert!(
        files > 50 && items > 20,
        "read {files} files, {items} items"
    );
    super::report("ARCHITECTURE.md names what is not there", &wrong);
}
