//! What was measured, beside its limit, and how it is printed.

use serde::Serialize;

/// One figure and the limit measured in the same run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    /// What is measured.
    pub(super) what: String,
    /// In what.
    pub(super) unit: &'static str,
    /// What walhook did.
    pub(super) measured: f64,
    /// What the limit is.
    pub(super) against: &'static str,
    /// What the limit did.
    pub(super) limit: f64,
    /// The first by the second.
    pub(super) ratio: f64,
    /// What the ratio has to be, at least; `None` where it only informs.
    pub(super) wanted: Option<f64>,
    /// What the ratio may be, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wanted_at_most: Option<f64>,
    /// The most that the sidecar's process had resident, in MiB, where known.
    pub(super) resident_mib: Option<f64>,
}

impl Figure {
    /// A figure and its limit, in the same unit.
    pub(super) fn new(
        what: impl Into<String>,
        unit: &'static str,
        measured: f64,
        against: &'static str,
        limit: f64,
    ) -> Self {
        let ratio = measured / limit;
        let (wanted, wanted_at_most, resident_mib) = (None, None, None);
        Self {
            what: what.into(),
            unit,
            measured,
            against,
            limit,
            ratio,
            wanted,
            wanted_at_most,
            resident_mib,
        }
    }

    /// With the least ratio that is wanted.
    pub(super) fn wanting(self, ratio: f64) -> Self {
        Self { wanted: Some(ratio), ..self }
    }

    /// With the highest ratio that is wanted.
    pub(super) fn wanting_at_most(self, ratio: f64) -> Self {
        Self { wanted_at_most: Some(ratio), ..self }
    }

    /// With what the sidecar had resident.
    pub(super) fn resident(self, mib: Option<f64>) -> Self {
        Self { resident_mib: mib, ..self }
    }
}

/// The middle of some values: of an even number the lower one.
pub(super) fn median(values: &[f64]) -> f64 {
    share(values, 0.5)
}

/// The value that this share of all does not exceed; not a number where there are none.
pub(super) fn share(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (1..=sorted.len()).find(|rank| count(*rank) >= share * count(sorted.len()));
    rank.and_then(|rank| sorted.get(rank - 1)).copied().unwrap_or(f64::NAN)
}

/// A count as a number to divide by.
pub(super) fn count(items: usize) -> f64 {
    f64::from(u32::try_from(items).unwrap_or(u32::MAX))
}

/// A table in Markdown, aligned for a terminal too.
pub(super) fn table(figures: &[Figure]) -> String {
    let head = ["what", "measured", "limit measured in the same run", "ratio", "wanted", "resident, highest"];
    let mut rows = vec![head.map(str::to_owned), head.map(|_| "---".to_owned())];
    rows.extend(figures.iter().map(|figure| {
        [
            format!("{} ({})", figure.what, figure.unit),
            number(figure.measured),
            format!("{} {}", number(figure.limit), figure.against),
            format!("{:.2}", figure.ratio),
            match (figure.wanted, figure.wanted_at_most) {
                (Some(least), _) => format!("≥ {least:.1}"),
                (None, Some(most)) => format!("≤ {most:.1}"),
                (None, None) => "–".to_owned(),
            },
            figure.resident_mib.map_or_else(|| "–".to_owned(), |mib| format!("{mib:.0} MiB")),
        ]
    }));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("| {cell:<width$} "));
        text.extend(cells);
        text.push_str("|\n");
    }
    text.trim_end().to_owned()
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if digits > 0 {
        return text;
    }
    let places = text.chars().rev().collect::<Vec<_>>();
    let groups: Vec<String> = places.chunks(3).map(|group| group.iter().collect()).collect();
    groups.join(",").chars().rev().collect()
}

/// The figures as a JSON array.
pub(super) fn json(figures: &[Figure]) -> String {
    serde_json::to_string_pretty(figures).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (wanted, expect) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)] {
            assert!((share(&values, wanted) - expect).abs() < f64::EPSILON, "{wanted}");
        }
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(share(&[], 0.5).is_nan());
    }

    #[test]
    fn numbers_are_readable() {
        let cases = [(1_234_567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (0.056, "0.06")];
        for (value, expect) in cases {
            assert_eq!(number(value), expect);
        }
    }

    #[test]
    fn a_figure_stands_beside_its_limit() {
        let figure = Figure::new("rows", "rows/s", 1200.0, "bare", 1000.0).wanting(1.0).resident(Some(20.4));
        let text = table(&[figure]);
        assert_eq!(text.lines().count(), 3);
        for part in ["| rows (rows/s) ", "| 1,200 ", "| 1,000 bare ", "| 1.20 ", "| ≥ 1.0 ", "| 20 MiB "] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
