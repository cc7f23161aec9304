//! Text for people: columns, sizes, and nothing in it that a terminal would obey.

use std::fmt::Write;

/// Lines of cells; all but the last of a line are padded to the width of their column.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of numbers, which stand at the right.
    numbers: &'static [usize],
}

impl Table {
    pub(crate) fn new(head: &[&str], numbers: &'static [usize]) -> Table {
        let head = head.iter().map(|cell| (*cell).to_owned()).collect();
        Table { rows: vec![head], numbers }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let width = |at: usize| cells(at).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let width = widths[at];
                // Writing to a string can't fail.
                let _ = match self.numbers.contains(&at) {
                    true => write!(line, "  {cell:>width$}"),
                    false => write!(line, "  {cell:width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// In the unit in which people read it: `12 KiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    match tenths {
        100.. => format!("{} {}", tenths / 10, UNITS[unit]),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

/// Of microseconds: `950 us`, `43 ms`, `1.2 s`, `2 min 5 s`.
pub(crate) fn duration(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..1_000_000 => format!("{} ms", microseconds / 1_000),
        1_000_000..60_000_000 => {
            format!("{}.{} s", microseconds / 1_000_000, microseconds % 1_000_000 / 100_000)
        }
        _ => format!("{} min {} s", microseconds / 60_000_000, microseconds % 60_000_000 / 1_000_000),
    }
}

/// One or many of something.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Ids of 64 digits say no more than their beginning.
const LONGEST_ID: usize = 24;

/// A container as people know it: what they call it, or the beginning of its id.
pub(crate) fn known_as(called: Option<&str>, id: &str) -> String {
    called.map_or_else(|| id.chars().take(LONGEST_ID).collect(), plain)
}

/// What comes from an image may be anything, and a terminal obeys some of it.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() || is_invisible(letter) {
            true => plain.extend(letter.escape_default()),
            false => plain.push(letter),
        }
    }
    plain
}

/// Turns the direction of writing round, or has no width.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["PID", "NAME"], &[0]);
        table.row(["1".to_owned(), "init".to_owned()]);
        table.row(["1000".to_owned(), "x".to_owned()]);
        assert_eq!(table.text(), "   PID  NAME\n     1  init\n  1000  x\n");
    }

    #[test]
    fn sizes_have_two_or_three_digits() {
        let sizes = [0, 1023, 1024, 1536, 10 << 10, 1 << 20, (1 << 30) - 1, u64::MAX];
        let texts = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "1.0 MiB", "1023 MiB", "16383 PiB"];
        assert_eq!(sizes.map(size), texts);
    }

    #[test]
    fn durations_have_their_unit() {
        let durations = [0, 999, 1_000, 43_999, 999_999, 1_234_567, 59_999_999, 125_000_000];
        let texts = ["0 us", "999 us", "1 ms", "43 ms", "999 ms", "1.2 s", "59.9 s", "2 min 5 s"];
        assert_eq!(durations.map(duration), texts);
    }

    #[test]
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{202e}d é"), "a\\u{1b}[2Jb\\nc\\u{202e}d é");
    }
}
