//! A case: a workload with its parameters, and what came of it.

use anyhow::Result;

use crate::Arguments;

/// Something that is measured.
pub trait Case {
    /// The workload and its parameters, as in `keyed-count backend=heap keys=1000000`.
    fn name(&self) -> String;

    /// Measures it.
    fn run(&self, arguments: &Arguments) -> Result<Row>;
}

/// What came of a case: a line, and a row of its workload's table.
pub struct Row {
    /// The case's name.
    pub name: String,
    /// What was measured.
    pub cells: Vec<Cell>,
}

/// One thing that was measured.
pub struct Cell {
    /// What: in the line, and as the title of the column.
    pub key: &'static str,
    /// How much.
    pub value: f64,
    /// As it is in the line, unless it is in the table only.
    line: Option<String>,
    /// As it is in the table.
    pub table: String,
}

impl Cell {
    /// Records a second, measured once or more often.
    pub fn rates(key: &'static str, rates: &[f64]) -> Self {
        let value = median(rates);
        Self { key, value, line: Some(format!("{value:.0}/s")), table: spread(rates) }
    }

    /// A number as it is to be shown.
    pub fn number(key: &'static str, value: f64, shown: impl Into<String>) -> Self {
        let shown = shown.into();
        Self { key, value, line: Some(shown.clone()), table: shown }
    }

    /// The same, in the table only.
    pub fn detail(key: &'static str, value: f64, shown: impl Into<String>) -> Self {
        Self { line: None, ..Self::number(key, value, shown) }
    }
}

impl Row {
    /// The line for the case.
    pub fn line(&self) -> String {
        let cells = self.cells.iter().filter_map(|cell| Some(format!(" {}={}", cell.key, cell.line.as_ref()?)));
        format!("{}{}", self.name, cells.collect::<String>())
    }

    /// The workload: the first word of the name.
    pub fn workload(&self) -> &str {
        workload(&self.name)
    }

    /// How much was measured of this.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.cells.iter().find(|cell| cell.key == key).map(|cell| cell.value)
    }
}

/// The workload of a case of this name.
pub fn workload(name: &str) -> &str {
    name.split(' ').next().unwrap_or_default()
}

/// The middle one.
pub fn median(of: &[f64]) -> f64 {
    quantile(of, 0.5)
}

/// The value below or at which this share of all is; not a number of none.
pub fn quantile(of: &[f64], share: f64) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn spread(of: &[f64]) -> String {
    let (least, most) = of.iter().fold((f64::MAX, f64::MIN), |(least, most), one| (one.min(least), one.max(most)));
    match of.len() {
        0 => "-".to_owned(),
        1 => thousands(of[0]),
        _ => format!("{} ({} to {})", thousands(median(of)), thousands(least), thousands(most)),
    }
}

fn thousands(rate: f64) -> String {
    format!("{:.0} K/s", rate / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let of: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&of, share)), [1.0, 50.0, 99.0, 100.0]);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_line_has_what_is_not_for_the_table_only() {
        let cells = vec![
            Cell::rates("millrace", &[2000.0, 1000.0, 4000.0]),
            Cell::number("ratio", 2.0, "2.00"),
            Cell::detail("CPU", 0.5, "0.500"),
        ];
        let row = Row { name: "count keys=1".to_owned(), cells };
        assert_eq!(row.line(), "count keys=1 millrace=2000/s ratio=2.00");
        assert_eq!(row.cells[0].table, "2 K/s (1 K/s to 4 K/s)");
        assert_eq!((row.workload(), row.value("ratio"), row.value("none")), ("count", Some(2.0), None));
    }
}
