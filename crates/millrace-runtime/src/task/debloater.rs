//! Buffer debloating: how many records may wait in a task's input channels, so that all of them together are less work
//! than a second's.

use std::time::Duration;

/// How channels adapt to what their task gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebloatSettings {
    /// How much work may wait in front of a task.
    pub target: Duration,
    /// How often the throughput is measured.
    pub period: Duration,
    /// Over how many measurements it is averaged.
    pub samples: u32,
    /// Changes of the limit below this many percent are left out.
    pub threshold_percentages: u32,
}

impl Default for DebloatSettings {
    fn default() -> Self {
        Self {
            target: Duration::from_secs(1),
            period: Duration::from_millis(200),
            samples: 20,
            threshold_percentages: 25,
        }
    }
}

/// Measures a task's throughput and says what its channels may hold.
#[derive(Clone, Debug)]
pub(super) struct Debloater {
    settings: DebloatSettings,
    channels: usize,
    /// Records in a second of such time, averaged.
    throughput: Option<f64>,
    /// Records and active time at the last measurement.
    last: (u64, Duration),
    limit: Option<usize>,
}

impl Debloater {
    pub(super) fn new(settings: DebloatSettings, channels: usize) -> Self {
        Self { settings, channels: channels.max(1), throughput: None, last: (0, Duration::ZERO), limit: None }
    }

    /// Takes the records that the task has processed, and the time that it was neither idle nor busy with checkpoints,
    /// since its start. Whether that made a measurement.
    ///
    /// A task that is hardly ever busy tells nothing about what it could do, and nothing waits in front of it.
    pub(super) fn observe(&mut self, records: u64, active: Duration) -> bool {
        let (before, since) = self.last;
        let time = active.saturating_sub(since);
        if time < self.settings.period {
            return false;
        }
        self.last = (records, active);
        let measured = records.saturating_sub(before) as f64 / time.as_secs_f64();
        let weight = 2.0 / (f64::from(self.settings.samples) + 1.0);
        let throughput = self.throughput.map_or(measured, |average| average + weight * (measured - average));
        self.throughput = Some(throughput);
        let limit = (throughput * self.settings.target.as_secs_f64() / self.channels as f64).max(1.0) as usize;
        let threshold = f64::from(self.settings.threshold_percentages) / 100.0;
        if self.limit.is_none_or(|old| (limit as f64 - old as f64).abs() >= old as f64 * threshold) {
            self.limit = Some(limit);
        }
        true
    }

    /// How many records may wait in a channel; `None` before the first measurement.
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// How long it takes to process as many records; `None` where that is not known.
    pub(super) fn time_for(&self, records: usize) -> Option<Duration> {
        let throughput = self.throughput.filter(|throughput| *throughput > 0.0)?;
        Duration::try_from_secs_f64(records as f64 / throughput).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debloater(channels: usize) -> Debloater {
        Debloater::new(DebloatSettings { samples: 1, ..DebloatSettings::default() }, channels)
    }

    #[test]
    fn a_second_of_work_is_shared_by_the_channels() {
        let mut debloater = debloater(4);
        assert!(!debloater.observe(100, Duration::from_millis(100)), "too early");
        assert_eq!(debloater.limit(), None);
        assert!(debloater.observe(400, Duration::from_millis(400)));
        assert_eq!(debloater.limit(), Some(250));
        assert_eq!(debloater.time_for(500), Some(Duration::from_millis(500)));
    }

    #[test]
    fn small_changes_are_left_out() {
        let mut debloater = debloater(1);
        let mut limit = |records, seconds| {
            assert!(debloater.observe(records, Duration::from_secs(seconds)));
            debloater.limit().unwrap()
        };
        assert_eq!([limit(1000, 1), limit(2200, 2), limit(2700, 3)], [1000, 1000, 500]);
    }

    #[test]
    fn a_task_that_gets_nothing_done_still_takes_a_record_at_a_time() {
        let mut debloater = debloater(3);
        assert!(debloater.observe(0, Duration::from_secs(1)));
        assert_eq!((debloater.limit(), debloater.time_for(1)), (Some(1), None));
    }

    #[test]
    fn the_average_follows_slowly() {
        let mut debloater = Debloater::new(DebloatSettings { threshold_percentages: 0, ..Default::default() }, 1);
        let mut limits = Vec::new();
        let (mut records, mut active) = (0, Duration::ZERO);
        for rate in std::iter::repeat_n(1000, 3).chain(std::iter::repeat_n(100, 100)) {
            records += rate;
            active += Duration::from_secs(1);
            assert!(debloater.observe(records, active));
            limits.extend(debloater.limit());
        }
        assert_eq!(limits[2], 1000);
        assert!(limits[3] > 900 && limits.is_sorted_by(|a, b| a >= b), "{limits:?}");
        assert_eq!(limits.last(), Some(&100));
    }
}
