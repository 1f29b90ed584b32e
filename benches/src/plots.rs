//! How the keyed count grows with keys and parallelism, as pictures.

use std::path::Path;

use anyhow::{Context, Result};
use millrace_testkit::plot::Plot;

use crate::case::Row;

/// A picture of some rows, and the file that it is written to.
struct Picture {
    file: &'static str,
    title: &'static str,
    /// The parameter that its lines are over, and how many make one on the axis.
    over: (&'static str, f64),
    x: &'static str,
    /// What its lines tell, how many make one on the axis, and the contenders' columns.
    y: &'static str,
    unit: f64,
    columns: [&'static str; 2],
    /// The other parameters, as they are in a case's name.
    fixed: &'static str,
    logarithmic: bool,
}

const PICTURES: [Picture; 3] = [
    Picture {
        file: "keyed-count-keys.svg",
        title: "Keyed count at parallelism 1 without checkpoints",
        over: ("keys", 1e6),
        x: "million keys",
        y: "million records a second",
        unit: 1e6,
        columns: ["millrace", "flink"],
        fixed: "parallelism=1 checkpoint=off",
        logarithmic: true,
    },
    Picture {
        file: "keyed-count-memory.svg",
        title: "Keyed count at parallelism 1 without checkpoints",
        over: ("keys", 1e6),
        x: "million keys",
        y: "resident memory at its peak, MiB",
        unit: 1.0,
        columns: ["peak MiB", "Flink's peak MiB"],
        fixed: "parallelism=1 checkpoint=off",
        logarithmic: true,
    },
    Picture {
        file: "keyed-count-parallelism.svg",
        title: "Keyed count of a million keys without checkpoints",
        over: ("parallelism", 1.0),
        x: "parallelism",
        y: "million records a second",
        unit: 1e6,
        columns: ["millrace", "flink"],
        fixed: "keys=1000000 checkpoint=off",
        logarithmic: false,
    },
];

/// Writes the pictures of these rows beside a page. Returns what the page shows them with: nothing of what was not
/// measured at two points at least.
pub fn write(page: &Path, rows: &[Row]) -> Result<String> {
    let mut shown = String::new();
    for picture in &PICTURES {
        let lines = picture.lines(rows);
        if lines.is_empty() {
            continue;
        }
        let Picture { file, title, x, y, logarithmic, .. } = *picture;
        let plot =
            Plot { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), lines, logarithmic, ..Plot::default() };
        let path = page.with_file_name(file);
        std::fs::write(&path, plot.to_svg()).with_context(|| format!("writing {}", path.display()))?;
        shown += &format!("\n![{title}: {y} over {x}]({file})\n");
    }
    Ok(shown)
}

impl Picture {
    /// A line for each backend and contender that was measured at more than one point.
    fn lines(&self, rows: &[Row]) -> Vec<(String, Vec<(f64, f64)>)> {
        let mut lines = Vec::new();
        for backend in ["heap", "rocksdb"] {
            for (contender, column) in ["Millrace", "Flink"].into_iter().zip(self.columns) {
                let points: Vec<_> = rows.iter().filter_map(|row| self.point(row, backend, column)).collect();
                if points.len() > 1 {
                    lines.push((format!("{contender}, {backend}"), points));
                }
            }
        }
        lines
    }

    fn point(&self, row: &Row, backend: &str, column: &str) -> Option<(f64, f64)> {
        let mut parameters: Vec<_> = row.name.strip_prefix("keyed-count ")?.split(' ').collect();
        let over = |parameter: &&str| parameter.split_once('=').is_some_and(|(name, _)| name == self.over.0);
        let value: f64 = parameters.remove(parameters.iter().position(over)?).split_once('=')?.1.parse().ok()?;
        let fixed = format!("backend={backend} {}", self.fixed);
        (parameters.join(" ") == fixed).then_some((value / self.over.1, row.value(column)? / self.unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Cell;

    #[test]
    fn a_line_is_drawn_of_what_was_measured_more_than_once() {
        let row = |keys: u64, parallelism: u64, checkpoint: &str, rate: f64| Row {
            name: format!("keyed-count backend=heap keys={keys} parallelism={parallelism} checkpoint={checkpoint}"),
            cells: vec![Cell::rates("millrace", &[rate])],
        };
        let rows = [
            row(100_000, 1, "off", 9e6),
            row(1_000_000, 1, "off", 7e6),
            row(1_000_000, 1, "1s", 6e6),
            row(1_000_000, 2, "off", 8e6),
        ];
        let line = |points: &[(f64, f64)]| vec![("Millrace, heap".to_owned(), points.to_vec())];
        assert_eq!(PICTURES[0].lines(&rows), line(&[(0.1, 9.0), (1.0, 7.0)]));
        assert_eq!(PICTURES[1].lines(&rows), []);
        assert_eq!(PICTURES[2].lines(&rows), line(&[(1.0, 7.0), (2.0, 8.0)]));
        assert_eq!(PICTURES[2].lines(&rows[..2]), []);
    }
}
