//! What becomes of bytes that are no record.

use std::{fmt::Display, sync::LazyLock};

use millrace_core::{Error, Result};
use prometheus::{IntCounter, IntCounterVec, Opts};

/// What a source does with bytes that it can't make a record of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecodable {
    /// The job fails with an error that names the position, and does not restart: the bytes would be the same.
    #[default]
    Fail,
    /// They are left out, logged (the 1st, 2nd, 4th, 8th …) and counted, in the metric
    /// `millrace_source_num_records_in_errors` of the process's default Prometheus registry.
    SkipAndCount,
}

static SKIPPED: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let options = Opts::new("millrace_source_num_records_in_errors", "Undecodable records that a source left out.");
    let counters = IntCounterVec::new(options, &["source"]).ok()?;
    // Fails only where the name is taken; the log still tells.
    prometheus::register(Box::new(counters.clone())).ok()?;
    Some(counters)
});

/// Applies the policy in one reader.
pub(crate) struct UndecodableRecords {
    policy: Undecodable,
    source: String,
    skipped: u64,
    counter: Option<IntCounter>,
}

impl UndecodableRecords {
    /// For the source of this name, as it shall stand in the metric.
    pub(crate) fn new(policy: Undecodable, source: String) -> Self {
        let counter = SKIPPED.as_ref().map(|counters| counters.with_label_values(&[source.as_str()]));
        Self { policy, source, skipped: 0, counter }
    }

    /// A record that can't be decoded: an error, or skipped and counted.
    pub(crate) fn handle(&mut self, position: impl Display, why: impl Display) -> Result<()> {
        if self.policy == Undecodable::Fail {
            return Err(Error::invalid(format!(
                "the record at {position} can't be decoded: {why}; correct the data, or leave such records out with \
                 on_undecodable(Undecodable::SkipAndCount)"
            )));
        }
        self.skipped += 1;
        if let Some(counter) = &self.counter {
            counter.inc();
        }
        if self.skipped.is_power_of_two() {
            let (source, skipped) = (&self.source, self.skipped);
            tracing::warn!(%source, %position, skipped, "left out a record that can't be decoded: {why}");
        }
        Ok(())
    }
}

/// How many records of this source the process has left out.
#[cfg(test)]
pub(crate) fn skipped(source: &str) -> u64 {
    SKIPPED.as_ref().unwrap().with_label_values(&[source]).get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_names_position_reason_and_remedy() {
        let mut records = UndecodableRecords::new(Undecodable::Fail, "test failing".into());
        let error = records.handle("words-0@17", "not UTF-8").unwrap_err();
        assert!(!error.retryable);
        for part in ["words-0@17", "not UTF-8", "SkipAndCount"] {
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn skipping_counts() {
        let mut records = UndecodableRecords::new(Undecodable::SkipAndCount, "test skipping".into());
        for _ in 0..3 {
            records.handle("words-0@17", "not UTF-8").unwrap();
        }
        assert_eq!(skipped("test skipping"), 3);
    }
}
