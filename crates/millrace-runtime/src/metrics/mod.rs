//! What a task counts of itself. A task adds to its own atomics, once a batch; readers sum up. What takes longer to find
//! out, [`TaskFigures`], it publishes about once a second.

mod figures;
mod rates;
mod shown;

pub use figures::{OperatorFigures, TaskFigures};
pub use rates::TaskRates;
pub use shown::{ShownTask, described};

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// What a task does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// It processes records or takes a snapshot.
    Busy = 0,
    /// It waits for input.
    Idle = 1,
    /// It waits for room at a consumer.
    BackPressured = 2,
}

/// The counters of one task, all since its start.
#[derive(Debug)]
pub struct TaskMetrics {
    started: Instant,
    records_in: AtomicU64,
    records_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Microseconds spent in each [`Activity`] that has ended.
    spent: [AtomicU64; 3],
    activity: AtomicU8,
    /// Since when, in microseconds after `started`.
    since: AtomicU64,
    /// Nanoseconds that the last checkpoint's barriers were aligned for, and that the first of them was under way.
    alignment: AtomicU64,
    start_delay: AtomicU64,
    /// How many records may wait in each input channel.
    debloated: AtomicU64,
    /// How long it takes to process what waits, in milliseconds.
    time_to_consume_ms: AtomicU64,
    figures: Mutex<TaskFigures>,
}

/// The values of a task's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMetricsSnapshot {
    /// Records taken from inputs or read from the source.
    pub records_in: u64,
    /// Records handed to consumers, each counted once for each edge.
    pub records_out: u64,
    /// Bytes received from other processes.
    pub bytes_in: u64,
    /// Bytes sent to other processes.
    pub bytes_out: u64,
    /// Milliseconds spent on records and snapshots.
    pub busy_ms: u64,
    /// Milliseconds spent waiting for input.
    pub idle_ms: u64,
    /// Milliseconds spent waiting for consumers.
    pub backpressured_ms: u64,
    /// Nanoseconds from the first barrier of the last checkpoint to the last.
    pub alignment_nanos: u64,
    /// Nanoseconds from the last checkpoint's trigger to its first barrier.
    pub start_delay_nanos: u64,
    /// How many records may wait in each input channel; 0 while that is not measured.
    pub debloated_buffer_size: u64,
    /// How long it took to process what waited in the input channels when that was measured, in milliseconds.
    pub time_to_consume_ms: u64,
}

impl TaskMetrics {
    /// Counters at zero, of a task that is busy with its start.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            spent: Default::default(),
            activity: AtomicU8::new(Activity::Busy as u8),
            since: AtomicU64::new(0),
            alignment: AtomicU64::new(0),
            start_delay: AtomicU64::new(0),
            debloated: AtomicU64::new(0),
            time_to_consume_ms: AtomicU64::new(0),
            figures: Mutex::default(),
        }
    }

    /// Records came in.
    pub fn add_records_in(&self, records: usize) {
        self.records_in.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records went out.
    pub fn add_records_out(&self, records: usize) {
        self.records_out.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Bytes came in.
    pub fn add_bytes_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes went out.
    pub fn add_bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The task does something else from now on. Called by its own thread only.
    pub fn enter(&self, activity: Activity) {
        let before = usize::from(self.activity.load(Ordering::Relaxed));
        self.spend(before);
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// What the task did since it entered its activity turns out to have been this. Called by its own thread only.
    pub fn was(&self, activity: Activity) {
        self.spend(activity as usize);
    }

    fn spend(&self, activity: usize) {
        let now = self.started.elapsed().as_micros() as u64;
        let spent = now.saturating_sub(self.since.load(Ordering::Relaxed));
        self.spent[activity].fetch_add(spent, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// The task has taken its part of a checkpoint.
    pub fn set_barrier_times(&self, alignment: Duration, start_delay: Duration) {
        self.alignment.store(alignment.as_nanos() as u64, Ordering::Relaxed);
        self.start_delay.store(start_delay.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Publishes what is not a counter.
    pub fn publish(&self, figures: TaskFigures) {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    /// What was last published.
    pub fn figures(&self) -> TaskFigures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the task has not been idle. Called by its own thread only, while it is busy.
    pub fn active(&self) -> Duration {
        let idle = self.spent[Activity::Idle as usize].load(Ordering::Relaxed);
        self.started.elapsed().saturating_sub(Duration::from_micros(idle))
    }

    /// What may wait in each input channel, and how long it takes to process what waits in all of them.
    pub fn set_debloated(&self, records: usize, time_to_consume: Duration) {
        self.debloated.store(records as u64, Ordering::Relaxed);
        self.time_to_consume_ms.store(time_to_consume.as_millis() as u64, Ordering::Relaxed);
    }

    /// How long the task has waited for consumers.
    pub fn backpressured(&self) -> Duration {
        Duration::from_micros(self.spent[Activity::BackPressured as usize].load(Ordering::Relaxed))
    }

    /// Records taken from inputs or read from the source.
    pub fn num_records_in(&self) -> u64 {
        self.records_in.load(Ordering::Relaxed)
    }

    /// Bytes received from other processes, of what was taken.
    pub fn num_bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Records handed to consumers, each counted once for each edge.
    pub fn num_records_out(&self) -> u64 {
        self.records_out.load(Ordering::Relaxed)
    }

    /// The values now, the current activity included. Values of one moment may differ by one batch.
    pub fn snapshot(&self) -> TaskMetricsSnapshot {
        let mut spent = [0, 1, 2].map(|activity: usize| self.spent[activity].load(Ordering::Relaxed));
        let now = self.started.elapsed().as_micros() as u64;
        let current = usize::from(self.activity.load(Ordering::Relaxed));
        spent[current] += now.saturating_sub(self.since.load(Ordering::Relaxed));
        TaskMetricsSnapshot {
            records_in: self.num_records_in(),
            records_out: self.num_records_out(),
            bytes_in: self.num_bytes_in(),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            busy_ms: spent[Activity::Busy as usize] / 1000,
            idle_ms: spent[Activity::Idle as usize] / 1000,
            backpressured_ms: spent[Activity::BackPressured as usize] / 1000,
            alignment_nanos: self.alignment.load(Ordering::Relaxed),
            start_delay_nanos: self.start_delay.load(Ordering::Relaxed),
            debloated_buffer_size: self.debloated.load(Ordering::Relaxed),
            time_to_consume_ms: self.time_to_consume_ms.load(Ordering::Relaxed),
        }
    }
}

impl Default for TaskMetrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_spent_in_one_activity_at_a_time() {
        let metrics = TaskMetrics::new();
        metrics.enter(Activity::Idle);
        metrics.enter(Activity::BackPressured);
        metrics.enter(Activity::Busy);
        let whole = metrics.started.elapsed().as_micros() as u64;
        let spent: u64 = metrics.spent.iter().map(|spent| spent.load(Ordering::Relaxed)).sum();
        assert!(spent <= whole);
        assert_eq!(metrics.since.load(Ordering::Relaxed), spent);
    }
}
