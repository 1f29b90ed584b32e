//! The same job on Millrace, on Flink and by hand.

use crate::{
    case::{Cell, Row, median},
    measure::Measurement,
};

/// What the contenders did with a case.
#[derive(Default)]
pub struct Comparison {
    /// Millrace's measurements.
    pub millrace: Vec<Measurement>,
    /// Flink's; none where it was left out.
    pub flink: Vec<Measurement>,
    /// Records a second of the same work by hand, where that is defined.
    pub by_hand: Vec<f64>,
}

impl Comparison {
    /// The row of the case of this name.
    pub fn row(&self, name: String) -> Row {
        let millrace = rates(&self.millrace);
        let mut cells = vec![Cell::rates("millrace", &millrace)];
        if !self.flink.is_empty() {
            let flink = rates(&self.flink);
            let ratio = median(&millrace) / median(&flink);
            cells.extend([Cell::rates("flink", &flink), Cell::number("ratio", ratio, format!("{ratio:.2}"))]);
        }
        if !self.by_hand.is_empty() {
            let share = median(&millrace) / median(&self.by_hand);
            cells.extend([
                Cell::rates("by-hand", &self.by_hand),
                Cell::number("share", share, format!("{:.0} %", share * 100.0)),
            ]);
        }
        cells.extend(self.details(["CPU s per million", "Flink's CPU s"], 3, |one| one.cpu_per_million));
        cells.extend(self.details(["peak MiB", "Flink's peak MiB"], 0, |one| one.peak_mib));
        if self.millrace.iter().chain(&self.flink).any(|one| one.checkpoints > 0) {
            cells.extend(self.details(["checkpoints", "Flink's checkpoints"], 0, |one| one.checkpoints as f64));
        }
        Row { name, cells }
    }

    /// A column for each contender that was measured.
    fn details(&self, keys: [&'static str; 2], digits: usize, of: fn(&Measurement) -> f64) -> Vec<Cell> {
        let contenders = keys.into_iter().zip([&self.millrace, &self.flink]);
        let measured = contenders.filter(|(_, measured)| !measured.is_empty());
        let cell = |(key, measured): (_, &Vec<Measurement>)| {
            let middle = median(&measured.iter().map(of).collect::<Vec<_>>());
            Cell::detail(key, middle, format!("{middle:.digits$}"))
        };
        measured.map(cell).collect()
    }
}

/// The rates of measurements.
pub fn rates(of: &[Measurement]) -> Vec<f64> {
    of.iter().map(|one| one.rate).collect()
}
