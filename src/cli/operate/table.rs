//! Columns for people.

use super::super::print::plain;

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Lines of a table: headers, then rows. Columns are as wide as they must be; nothing trails.
pub(super) fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let clean = |row: &Vec<String>| -> Vec<String> { row.iter().map(|cell| plain(cell)).collect() };
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(clean)).collect();
    let width =
        |at: usize| all.iter().filter_map(|row| row.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths).map(|((cell, (_, align)), width)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// A span of time, in its two largest units: `4m 10s`.
pub(super) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units {
        let count = left / size;
        left %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Bytes, in the largest unit that leaves a whole number of some size: `3.2 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| count >= *size) {
        None => format!("{count} bytes"),
        Some((size, unit)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
    }
}

/// The beginning of a text, where it is long.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be_and_nothing_in_them_moves_the_cursor() {
        let rows =
            [vec!["crm".to_owned(), "7".to_owned()], vec!["a\u{1b}[2Jé".to_owned(), "12345".to_owned()]];
        let made = table(&[("WEBHOOK", Align::Left), ("N", Align::Right)], &rows);
        assert_eq!(made, ["WEBHOOK      N", "crm          7", "a\u{fffd}[2Jé   12345"]);
    }

    #[test]
    fn spans_and_sizes_read_well() {
        for (seconds, expect) in [(0, "0s"), (59, "59s"), (250, "4m 10s"), (90_061, "1d 1h")] {
            assert_eq!(span(seconds), expect);
        }
        for (count, expect) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(bytes(count), expect);
        }
        assert_eq!((cut("abcdef", 4), cut("abcd", 4)), ("abc…".to_owned(), "abcd".to_owned()));
    }
}
