//! What a task does in a second.

use serde::{Deserialize, Serialize};

use super::TaskMetricsSnapshot;

/// How much of a second a task spends on what, in milliseconds, and how many records and bytes pass through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskRates {
    /// On records and snapshots.
    pub busy_ms: f64,
    /// Waiting for input.
    pub idle_ms: f64,
    /// Waiting for consumers.
    pub backpressured_ms: f64,
    /// Records in.
    pub records_in: f64,
    /// Records out.
    pub records_out: f64,
}

impl TaskRates {
    /// The rates between two moments of one task; `None` where less than half a second lies between them, which would
    /// show noise. What a task does adds up to its time, so no clock is needed.
    pub fn between(before: &TaskMetricsSnapshot, now: &TaskMetricsSnapshot) -> Option<Self> {
        const LEAST_MS: u64 = 500;
        let spent = |read: fn(&TaskMetricsSnapshot) -> u64| read(now).saturating_sub(read(before));
        let (busy, idle, waiting) = (spent(|m| m.busy_ms), spent(|m| m.idle_ms), spent(|m| m.backpressured_ms));
        let elapsed = busy + idle + waiting;
        if elapsed < LEAST_MS {
            return None;
        }
        let per_second = |amount: u64| amount as f64 * 1000.0 / elapsed as f64;
        Some(Self {
            busy_ms: per_second(busy),
            idle_ms: per_second(idle),
            backpressured_ms: per_second(waiting),
            records_in: per_second(spent(|m| m.records_in)),
            records_out: per_second(spent(|m| m.records_out)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_a_second() {
        let before = TaskMetricsSnapshot { records_in: 100, busy_ms: 1000, idle_ms: 10, ..Default::default() };
        let now = TaskMetricsSnapshot { records_in: 500, busy_ms: 2000, idle_ms: 710, backpressured_ms: 300, ..before };
        let rates = TaskRates::between(&before, &now).unwrap();
        assert_eq!((rates.busy_ms, rates.idle_ms, rates.backpressured_ms), (500.0, 350.0, 150.0));
        assert_eq!((rates.records_in, rates.records_out), (200.0, 0.0));
        assert_eq!(TaskRates::between(&before, &TaskMetricsSnapshot { busy_ms: 1400, ..before }), None);
    }
}
