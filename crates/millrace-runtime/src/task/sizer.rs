//! How many records one call into a chain gets: as many as take up to ten milliseconds, since barriers and commands
//! wait for the call.

use std::time::Duration;

const GROW_BELOW: Duration = Duration::from_millis(5);
const SHRINK_ABOVE: Duration = Duration::from_millis(10);

/// Adapts the size of a task's batches. It starts at one record, since nothing is known of the function yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSizer {
    size: usize,
    max: usize,
}

impl BatchSizer {
    pub(super) fn new(max: usize) -> Self {
        Self { size: 1, max: max.max(1) }
    }

    /// How many records the next call may get.
    pub(super) fn size(self) -> usize {
        self.size
    }

    /// Learns from a call: how many records it had, how long it lasted, and how much of that it waited for consumers.
    ///
    /// Waiting shrinks batches too: what waits in the consumers' bounded queues is then less work, and barriers pass
    /// it sooner. It says nothing about how much work a record is, so it only halves.
    pub(super) fn observe(&mut self, records: usize, elapsed: Duration, waited: Duration) {
        if elapsed > SHRINK_ABOVE {
            let own = elapsed.saturating_sub(waited);
            let fits = if own > SHRINK_ABOVE {
                (records as u128 * GROW_BELOW.as_nanos() / own.as_nanos()) as usize
            } else {
                usize::MAX
            };
            self.size = fits.min(self.size / 2).max(1);
        } else if elapsed < GROW_BELOW && records >= self.size {
            self.size = (self.size * 2).min(self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes that a function settles into which takes this long for each record.
    fn settled(per_record: Duration) -> Vec<usize> {
        let mut sizer = BatchSizer::new(1024);
        let mut sizes = Vec::new();
        for _ in 0..40 {
            sizes.push(sizer.size());
            sizer.observe(sizer.size(), per_record * sizer.size() as u32, Duration::ZERO);
        }
        sizes.split_off(30)
    }

    #[test]
    fn a_call_lasts_at_most_ten_milliseconds_where_a_record_does_not() {
        for micros in [0, 1, 5, 30, 700, 4000, 9000, 50_000] {
            let per_record = Duration::from_micros(micros);
            let sizes = settled(per_record);
            for size in &sizes {
                assert!(per_record * *size as u32 <= SHRINK_ABOVE.max(per_record), "{micros} us: {sizes:?}");
            }
            assert!(sizes.iter().all(|size| *size == 1024) == (micros <= 5), "{micros} us: {sizes:?}");
        }
    }

    #[test]
    fn a_function_that_turns_slow_is_noticed_at_once() {
        let mut sizer = BatchSizer { size: 1024, max: 1024 };
        sizer.observe(1024, Duration::from_secs(10), Duration::ZERO);
        assert_eq!(sizer.size(), 1);
    }

    #[test]
    fn one_long_wait_for_a_consumer_only_halves() {
        let mut sizer = BatchSizer { size: 1024, max: 1024 };
        sizer.observe(1024, Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(sizer.size(), 512);
    }

    #[test]
    fn small_batches_tell_nothing_about_larger_ones() {
        let mut sizer = BatchSizer::new(1024);
        sizer.observe(1, Duration::ZERO, Duration::ZERO);
        sizer.observe(1, Duration::ZERO, Duration::ZERO);
        assert_eq!(sizer.size(), 2);
    }
}
