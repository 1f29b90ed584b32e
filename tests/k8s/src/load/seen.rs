//! The counts that records came with, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use super::Counts;

/// The counts that each record came with: one that is counted once comes with each number from 1 on.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    counts: BTreeMap<String, BTreeSet<u64>>,
    /// How many there were: more than records, as what follows a checkpoint is written again.
    pub lines: u64,
}

/// What is wrong with outputs; nothing, if all numbers are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records that are missing in the counts.
    pub lost: u64,
    /// Records that were counted more than once.
    pub counted_twice: u64,
    /// Counts that were reached and never written out.
    pub missing_lines: u64,
}

impl Seen {
    /// Takes in a record with its count.
    pub fn add(&mut self, record: String, count: u64) {
        self.lines += 1;
        self.counts.entry(record).or_default().insert(count);
    }

    /// The highest number that each record came with.
    pub fn highest(&self) -> Counts {
        let highest = |seen: &BTreeSet<u64>| seen.last().copied().unwrap_or_default();
        self.counts.iter().map(|(record, seen)| (record.clone(), highest(seen))).collect()
    }

    /// Whether each of these records came with a number above this one: whether all have moved on since.
    pub fn moved_past(&self, counts: &Counts) -> bool {
        counts.iter().all(|(record, count)| {
            self.counts.get(record).and_then(BTreeSet::last).is_some_and(|highest| highest > count)
        })
    }

    /// What differs from the records that were written.
    pub fn compare(&self, written: &Counts) -> Verdict {
        let records: BTreeSet<_> = written.keys().chain(self.counts.keys()).collect();
        let mut verdict = Verdict::default();
        for record in records {
            let expected = written.get(record).copied().unwrap_or_default();
            let seen = self.counts.get(record);
            let found = seen.and_then(BTreeSet::last).copied().unwrap_or_default();
            let reached = expected.min(found);
            verdict.lost += expected.saturating_sub(found);
            verdict.counted_twice += found.saturating_sub(expected);
            verdict.missing_lines += reached - seen.map_or(0, |seen| seen.range(..=reached).count() as u64);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[(&str, u64)]) -> Seen {
        let mut seen = Seen::default();
        for (record, count) in lines {
            seen.add((*record).to_owned(), *count);
        }
        seen
    }

    fn counts(pairs: &[(&str, u64)]) -> Counts {
        pairs.iter().map(|(record, count)| ((*record).to_owned(), *count)).collect()
    }

    #[test]
    fn lines_that_are_written_again_are_no_fault() {
        let seen = seen(&[("a", 1), ("a", 2), ("b", 1), ("a", 2), ("a", 3), ("b", 1)]);
        assert_eq!(seen.compare(&counts(&[("a", 3), ("b", 1)])), Verdict::default());
        assert_eq!((seen.lines, seen.highest()), (6, counts(&[("a", 3), ("b", 1)])));
    }

    #[test]
    fn what_is_lost_counted_twice_or_never_written_is_told_apart() {
        let seen = seen(&[("a", 1), ("b", 1), ("b", 2), ("c", 1), ("c", 3), ("e", 1)]);
        let verdict = seen.compare(&counts(&[("a", 3), ("b", 1), ("c", 3), ("d", 4)]));
        assert_eq!(verdict, Verdict { lost: 2 + 4, counted_twice: 1 + 1, missing_lines: 1 });
    }

    #[test]
    fn all_records_must_move_on() {
        let seen = seen(&[("a", 1), ("a", 2), ("b", 1)]);
        assert!(seen.moved_past(&counts(&[("a", 1), ("b", 0)])));
        assert!(!seen.moved_past(&counts(&[("a", 1), ("b", 1)])));
        assert!(!seen.moved_past(&counts(&[("a", 1), ("c", 0)])));
    }
}
