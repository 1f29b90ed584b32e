//! Which subdirectory a record goes to.

use jiff::{Timestamp, tz::TimeZone};
use millrace_core::{Error, FunctionResult};

/// Chooses a record's bucket: a path relative to the sink's directory, its parts separated by `/`.
pub trait BucketAssigner<T>: Send + Sync + 'static {
    /// The bucket of a record that is written at `now`, milliseconds since the epoch.
    fn bucket(&self, record: &T, now: i64) -> FunctionResult<String>;
}

impl<T, F: Fn(&T) -> String + Send + Sync + 'static> BucketAssigner<T> for F {
    fn bucket(&self, record: &T, _now: i64) -> FunctionResult<String> {
        Ok(self(record))
    }
}

/// Buckets by time, in UTC: that of the writing, or one that the record has.
pub struct DateTimeBuckets<T> {
    format: String,
    time: Option<fn(&T) -> i64>,
}

impl<T> DateTimeBuckets<T> {
    /// A bucket for each hour: `2026-11-23--14`.
    pub fn hourly() -> Self {
        Self::format("%Y-%m-%d--%H")
    }

    /// A bucket for each day: `2026-11-23`.
    pub fn daily() -> Self {
        Self::format("%Y-%m-%d")
    }

    /// Buckets by a format of `strftime`.
    pub fn format(format: impl Into<String>) -> Self {
        Self { format: format.into(), time: None }
    }

    /// By the record's own time, milliseconds since the epoch.
    pub fn by(mut self, time: fn(&T) -> i64) -> Self {
        self.time = Some(time);
        self
    }
}

impl<T: 'static> BucketAssigner<T> for DateTimeBuckets<T> {
    fn bucket(&self, record: &T, now: i64) -> FunctionResult<String> {
        let time = self.time.map_or(now, |time| time(record));
        let time =
            Timestamp::from_millisecond(time).map_err(|error| format!("the time {time} of a record: {error}"))?;
        let text = jiff::fmt::strtime::format(&self.format, &time.to_zoned(TimeZone::UTC));
        Ok(text.map_err(|error| format!("the bucket format {:?}: {error}", self.format))?)
    }
}

/// A bucket that stays below the sink's directory.
pub(super) fn checked(bucket: &str) -> Result<(), Error> {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\0', '\\']);
    match bucket.split('/').all(is_part) {
        true => Ok(()),
        false => Err(Error::user(format!(
            "a record's bucket is {bucket:?}, which is no relative path: its parts must be names, separated by /"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_the_time() {
        // 2026-11-23 14:05:06 UTC
        let now = 1_795_442_706_000;
        let bucket = |buckets: DateTimeBuckets<i64>, record| buckets.bucket(&record, now).unwrap();
        assert_eq!(bucket(DateTimeBuckets::hourly(), 0), "2026-11-23--14");
        assert_eq!(bucket(DateTimeBuckets::daily(), 0), "2026-11-23");
        assert_eq!(bucket(DateTimeBuckets::daily().by(|record| *record), 86_400_000), "1970-01-02");
        assert_eq!(bucket(DateTimeBuckets::format("year=%Y/month=%m"), 0), "year=2026/month=11");
        assert!(DateTimeBuckets::<i64>::hourly().by(|record| *record).bucket(&i64::MAX, now).is_err());
    }

    #[test]
    fn a_bucket_outside_of_the_directory_is_refused() {
        for good in ["a", "a/b", "year=2026/month=11", "..."] {
            checked(good).unwrap();
        }
        for bad in ["", "/", "/etc", "a//b", "../a", "a/..", ".", "a/"] {
            assert!(checked(bad).unwrap_err().message.contains(&format!("{bad:?}")));
        }
    }
}
