//! What `millrace run` tells while it follows a job. Pure: which line to show, and when.

use std::time::{Duration, Instant};

use millrace_core::rest::{CheckpointingStatistics, JobDetails, JobStatus};

/// Off a terminal, lines about mere progress are at least this far apart.
const QUIET: Duration = Duration::from_secs(5);

/// A job at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub state: JobStatus,
    pub waiting_for: Option<String>,
    pub records: u64,
    pub rate: Option<u64>,
    pub checkpoints: u64,
    pub failed_checkpoints: u64,
    pub last_checkpoint: Option<(u64, u64, u64)>,
    pub restarts: u64,
    pub last_recovery: Option<u64>,
}

impl Progress {
    /// What the jobmanager's answers say.
    pub fn new(job: &JobDetails, checkpoints: &CheckpointingStatistics) -> Self {
        let newest = checkpoints.latest.completed.as_ref();
        Self {
            state: job.state,
            waiting_for: job.waiting_for.clone(),
            records: records_read(job),
            rate: None,
            checkpoints: checkpoints.counts.completed,
            failed_checkpoints: checkpoints.counts.failed,
            last_checkpoint: newest.map(|newest| (newest.id, newest.end_to_end_duration, newest.state_size)),
            restarts: job.restarts,
            last_recovery: job.last_recovery.as_ref().map(|recovery| recovery.duration),
        }
    }

    /// The same, with the rate since an earlier moment. Counts begin anew when the tasks do.
    pub fn since(mut self, earlier: &Self, elapsed: Duration) -> Self {
        let grew = self.restarts == earlier.restarts && self.records >= earlier.records && !elapsed.is_zero();
        self.rate = grew.then(|| ((self.records - earlier.records) as f64 / elapsed.as_secs_f64()).round() as u64);
        self
    }

    /// The line that shows it.
    pub fn line(&self) -> String {
        let mut line = self.state.to_string();
        if let Some(reason) = &self.waiting_for {
            line.push_str(&format!(" | {reason}"));
        }
        line.push_str(&format!(" | records {}", self.records));
        if let Some(rate) = self.rate {
            line.push_str(&format!(" ({rate}/s)"));
        }
        line.push_str(&format!(" | checkpoints {}", self.checkpoints));
        if let Some((id, duration, size)) = self.last_checkpoint {
            line.push_str(&format!(" (last {id}: {duration} ms, {})", show_size(size)));
        }
        if self.failed_checkpoints > 0 {
            line.push_str(&format!(", failed {}", self.failed_checkpoints));
        }
        if self.restarts > 0 {
            line.push_str(&format!(" | restarts {}", self.restarts));
        }
        if let Some(recovery) = self.last_recovery {
            line.push_str(&format!(" (recovered in {recovery} ms)"));
        }
        line
    }

    /// Whether there is news that a person waits for, rather than counts that grew.
    fn differs_in_kind(&self, other: &Self) -> bool {
        (self.state, &self.waiting_for, self.restarts, self.failed_checkpoints)
            != (other.state, &other.waiting_for, other.restarts, other.failed_checkpoints)
    }
}

/// The records that the job's sources have read.
fn records_read(job: &JobDetails) -> u64 {
    let sources = job.plan.nodes.iter().filter(|node| node.inputs.is_empty());
    let metrics = sources.filter_map(|node| job.vertices.iter().find(|vertex| vertex.id == node.id));
    metrics.map(|vertex| vertex.metrics.read_records.max(vertex.metrics.write_records)).sum()
}

/// A size as people read it.
pub fn show_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Decides which lines are worth printing where every line stays.
#[derive(Debug, Default)]
pub struct PlainLines {
    last: Option<(Instant, Progress)>,
}

impl PlainLines {
    /// The line to print now, if any.
    pub fn line(&mut self, progress: &Progress, now: Instant) -> Option<String> {
        let due = match &self.last {
            None => true,
            Some((_, last)) if progress.differs_in_kind(last) => true,
            Some((at, last)) => {
                let grew = (progress.records, progress.checkpoints) != (last.records, last.checkpoints);
                grew && now.duration_since(*at) >= QUIET
            }
        };
        due.then(|| {
            self.last = Some((now, progress.clone()));
            progress.line()
        })
    }
}

/// A line cut to a terminal's width, so that it can be overwritten.
pub fn cut(line: &str, width: usize) -> String {
    line.chars().take(width.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(records: u64) -> Progress {
        Progress {
            state: JobStatus::Running,
            waiting_for: None,
            records,
            rate: None,
            checkpoints: 4,
            failed_checkpoints: 0,
            last_checkpoint: Some((9, 12, 3 << 10)),
            restarts: 0,
            last_recovery: None,
        }
    }

    #[test]
    fn the_line_tells_state_records_and_checkpoints() {
        let now = progress(300).since(&progress(100), Duration::from_millis(500));
        assert_eq!(now.line(), "RUNNING | records 300 (400/s) | checkpoints 4 (last 9: 12 ms, 3.0 KiB)");
    }

    #[test]
    fn trouble_is_in_the_line() {
        let mut now = progress(1);
        now.state = JobStatus::Restarting;
        now.waiting_for = Some("1 of 2 slots: start a taskmanager".to_string());
        (now.failed_checkpoints, now.restarts, now.last_checkpoint) = (2, 3, None);
        let line = "RESTARTING | 1 of 2 slots: start a taskmanager | records 1 | checkpoints 4, failed 2 | restarts 3";
        assert_eq!(now.line(), line);
    }

    #[test]
    fn there_is_no_rate_over_a_restart() {
        let mut now = progress(50);
        now.restarts = 1;
        assert_eq!(now.clone().since(&progress(100), Duration::from_secs(1)).rate, None);
        assert_eq!(progress(50).since(&progress(100), Duration::from_secs(1)).rate, None);
    }

    #[test]
    fn plain_lines_come_at_once_with_news_and_seldom_with_growth() {
        let start = Instant::now();
        let mut lines = PlainLines::default();
        assert!(lines.line(&progress(1), start).is_some());
        assert!(lines.line(&progress(2), start + Duration::from_secs(1)).is_none());
        assert!(lines.line(&progress(3), start + QUIET).is_some());
        assert!(lines.line(&progress(3), start + QUIET * 3).is_none());
        let restarting = Progress { state: JobStatus::Restarting, ..progress(3) };
        assert!(lines.line(&restarting, start + QUIET * 3).is_some());
    }

    #[test]
    fn a_line_is_cut_by_characters() {
        assert_eq!(cut("äöü", 3), "äö");
    }
}
