//! Tables for people: columns as wide as their widest cell, nothing when there are no rows but a
//! sentence instead.

use std::io::{self, Write};

/// How a column lines up.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Printed in place of an empty table.
    empty: String,
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)], empty: &str) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
            empty: empty.to_owned(),
        }
    }

    /// Cells beyond the columns are dropped, missing ones are blank. What a peer may have chosen
    /// is made printable.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<_> = cells.into_iter().map(|cell| printable(&cell)).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// # Errors
    /// As the writer.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return writeln!(out, "{}", self.empty);
        }
        let width = |n: usize| {
            let cells = self.rows.iter().map(|row| row[n].chars().count());
            cells.chain([self.columns[n].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let header: Vec<_> = self
            .columns
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let pad = " ".repeat(width - cell.chars().count());
                match align {
                    Align::Left => line += &format!("{cell}{pad}  "),
                    Align::Right => line += &format!("{pad}{cell}  "),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Control characters and bidirectional overrides as escapes: a name that a peer chose must not
/// steer the terminal.
pub fn printable(text: &str) -> String {
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| {
            let escaped = unsafe_char(c).then(|| c.escape_unicode());
            let plain = (!unsafe_char(c)).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_peers_cannot_steer_the_terminal() {
        let mut table = Table::new(&[("NAME", Align::Left), ("RPS", Align::Right)], "nothing");
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        assert_eq!(out, b"nothing\n");
        table.row(["web".into(), "12.5".into()]);
        table.row(["catalogue\u{1b}".into(), "3".into()]);
        out.clear();
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "NAME              RPS\nweb              12.5\ncatalogue\\u{1b}     3\n"
        );
    }
}
