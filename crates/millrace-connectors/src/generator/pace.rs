//! Keeping a rate: a bucket that fills with time and is emptied by records. Pure: it is told the time.

use std::time::Duration;

/// What can be made up for after a standstill: the records of this time.
const BURST: Duration = Duration::from_secs(1);
/// At high rates it is not worth waking up for less than the records of this time.
const LEAST_WORTH: Duration = Duration::from_millis(1);

/// A rate, kept from the time of its making on.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    credit: f64,
    filled_at: Duration,
}

impl Pace {
    /// A pace of `rate` records a second that begins at `now`, counted from any fixed time.
    pub(super) fn new(rate: f64, now: Duration) -> Self {
        Self { rate, credit: 0.0, filled_at: now }
    }

    /// Changes the rate from now on.
    pub(super) fn set_rate(&mut self, rate: f64, now: Duration) {
        self.fill(now);
        self.rate = rate;
    }

    /// How long to wait until records are due that are worth waking up for.
    pub(super) fn due_in(&mut self, max: usize, now: Duration) -> Duration {
        self.fill(now);
        let wanted = (self.rate * LEAST_WORTH.as_secs_f64()).min(max as f64).max(1.0);
        let missing = (wanted - self.credit).max(0.0);
        Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX)
    }

    /// How many records are due, `max` at most; they count as taken.
    pub(super) fn take(&mut self, max: usize, now: Duration) -> usize {
        self.fill(now);
        let taken = (self.credit as usize).min(max);
        self.credit -= taken as f64;
        taken
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        let most = (self.rate * BURST.as_secs_f64()).max(1.0);
        self.credit = (self.credit + self.rate * passed).min(most);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_minute_has_as_many_records_as_the_rate_says() {
        for rate in [0.5, 3.0, 1000.0, 123_456.0] {
            let mut pace = Pace::new(rate, ms(0));
            let taken: usize = (1..=6_000).map(|tick| pace.take(usize::MAX, ms(tick * 10))).sum();
            let expected = (rate * 60.0) as usize;
            assert!(taken == expected || taken + 1 == expected, "{taken} of {expected} at {rate}");
        }
    }

    #[test]
    fn waiting_as_told_makes_records_due() {
        for rate in [0.5, 3.0, 1000.0, 123_456.0] {
            let mut pace = Pace::new(rate, ms(0));
            let due = pace.due_in(100, ms(0));
            assert!(due > Duration::ZERO);
            // The last nanosecond is lost in rounding.
            assert!(pace.take(100, due + Duration::from_nanos(1)) >= 1, "at {rate}");
        }
    }

    #[test]
    fn a_standstill_is_made_up_for_only_in_part() {
        let mut pace = Pace::new(1000.0, ms(0));
        assert_eq!(pace.take(usize::MAX, ms(3_600_000)), 1000);
    }

    #[test]
    fn a_changed_rate_counts_from_its_change() {
        let mut pace = Pace::new(1000.0, ms(0));
        assert_eq!(pace.take(usize::MAX, ms(100)), 100);
        pace.set_rate(10.0, ms(100));
        assert_eq!(pace.take(usize::MAX, ms(600)), 5);
    }
}
