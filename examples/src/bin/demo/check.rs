//! What was printed, and whether it is right.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::Result;

/// Everything that the job's taskmanagers have printed: lines `<timestamp>: (<record>,<count>)`.
#[derive(Debug, Default)]
pub struct Printed {
    /// The counts that each record was printed with.
    counts: BTreeMap<String, BTreeSet<u64>>,
    lines: u64,
}

impl Printed {
    /// Reads the standard output of all taskmanagers.
    pub fn read(logs: &Path) -> Result<Self> {
        let mut printed = Self::default();
        for file in std::fs::read_dir(logs)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.contains("-taskmanager-") && name.ends_with(".out") {
                printed.take(&std::fs::read_to_string(&path)?);
            }
        }
        Ok(printed)
    }

    fn take(&mut self, text: &str) {
        // The last line may still be being written.
        let Some(end) = text.rfind('\n') else { return };
        for line in text[..end].lines() {
            let pair = line.split_once(": (").and_then(|(_, rest)| rest.strip_suffix(')')?.rsplit_once(','));
            if let Some((record, Ok(count))) = pair.map(|(record, count)| (record, count.parse())) {
                self.counts.entry(record.to_string()).or_default().insert(count);
                self.lines += 1;
            }
        }
    }

    /// How many different records were printed.
    pub fn records(&self) -> u64 {
        self.counts.len() as u64
    }

    /// The highest number that a record was given.
    pub fn highest_count(&self) -> u64 {
        self.counts.values().flatten().copied().max().unwrap_or(0)
    }
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Records that were written and never counted.
    pub lost: u64,
    /// Records that the counter has more than once.
    pub counted_twice: u64,
    /// Lines that were printed again, unchanged.
    pub printed_again: u64,
}

impl Verdict {
    /// Compares what was printed with the number of records that were written, all different. A counter that has each
    /// once ends at that number, and gives each record one number of its own.
    pub fn of(printed: &Printed, written: u64) -> Self {
        let numbers: BTreeSet<_> = printed.counts.values().flatten().collect();
        let several = printed.counts.values().map(|counts| counts.len() as u64 - 1).sum::<u64>();
        let beyond = printed.highest_count().saturating_sub(written);
        let shared = printed.records().saturating_sub(numbers.len() as u64);
        Self {
            lost: written.saturating_sub(printed.records()) + shared,
            counted_twice: several.max(beyond),
            printed_again: printed.lines - printed.counts.values().map(|counts| counts.len() as u64).sum::<u64>(),
        }
    }

    /// Whether each record counts once.
    pub fn is_exactly_once(&self) -> bool {
        self.lost == 0 && self.counted_twice == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(lines: &[&str], written: u64) -> Verdict {
        let mut printed = Printed::default();
        printed.take(&(lines.join("\n") + "\n1: (torn,9"));
        Verdict::of(&printed, written)
    }

    #[test]
    fn each_record_once_is_right_also_when_lines_are_printed_again() {
        let right = verdict(&["1: (a,1)", "2: (b,2)", "3: (b,2)", "4: (c,3)"], 3);
        assert_eq!(right, Verdict { lost: 0, counted_twice: 0, printed_again: 1 });
    }

    #[test]
    fn what_is_wrong_is_seen() {
        assert_eq!(verdict(&["1: (a,1)", "2: (c,2)"], 3).lost, 1, "never printed");
        assert_eq!(verdict(&["1: (a,1)", "2: (b,1)"], 2).lost, 1, "the counter went back");
        assert_eq!(verdict(&["1: (a,1)", "2: (b,2)", "3: (b,3)"], 2).counted_twice, 1);
        assert_eq!(verdict(&["1: (a,2)", "2: (b,3)"], 2).counted_twice, 1, "the counter is ahead");
    }
}
