//! A case: a workload, and what the contenders did with it.

use crate::measure::Measurement;

/// What came of a case.
pub struct Row {
    /// The case as its line names it.
    pub name: String,
    /// Measurements of Millrace, as many as of the others.
    pub millrace: Vec<Measurement>,
    /// Measurements of Flink.
    pub flink: Vec<Measurement>,
    /// The rate of the same work by hand, where that is defined.
    pub by_hand: Vec<f64>,
}

impl Row {
    /// The line for a case.
    pub fn line(&self) -> String {
        let mut line = format!("{} millrace={:.0}/s", self.name, median(&rates(&self.millrace)));
        if !self.flink.is_empty() {
            line += &format!(" flink={:.0}/s ratio={:.2}", median(&rates(&self.flink)), self.ratio());
        }
        if !self.by_hand.is_empty() {
            let share = median(&rates(&self.millrace)) / median(&self.by_hand);
            line += &format!(" by-hand={:.0}/s share={share:.2}", median(&self.by_hand));
        }
        line
    }

    /// Millrace's median by Flink's.
    pub fn ratio(&self) -> f64 {
        median(&rates(&self.millrace)) / median(&rates(&self.flink))
    }
}

/// The rates of measurements.
pub fn rates(of: &[Measurement]) -> Vec<f64> {
    of.iter().map(|one| one.rate).collect()
}

/// The middle one.
pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
