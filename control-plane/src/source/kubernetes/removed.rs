//! Where the parts of an object stood from which others were removed.

/// Elements removed from lists: path of the list and index, in the order of removal.
#[derive(Default)]
pub struct Removed(Vec<(String, usize)>);

impl Removed {
    pub fn add(&mut self, list: &str, index: usize) {
        self.0.push((list.to_owned(), index));
    }

    /// The path in the original object.
    pub fn original(&self, path: &str) -> String {
        let mut path = path.to_owned();
        for (list, gone) in self.0.iter().rev() {
            if let Some((index, rest)) = element(&path, list)
                && index >= *gone
            {
                path = format!("{list}[{}]{rest}", index + 1);
            }
        }
        path
    }
}

/// The index of the element of `list` that a path leads through, and the rest of the path.
pub fn element<'p>(path: &'p str, list: &str) -> Option<(usize, &'p str)> {
    let (index, rest) = path
        .strip_prefix(list)?
        .strip_prefix('[')?
        .split_once(']')?;
    Some((index.parse().ok()?, rest))
}
