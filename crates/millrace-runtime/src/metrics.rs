//! What a task counts of itself. A task adds to its own atomics, once a batch; readers sum up.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
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

    /// How long the task has waited for consumers.
    pub fn backpressured(&self) -> Duration {
        Duration::from_micros(self.spent[Activity::BackPressured as usize].load(Ordering::Relaxed))
    }

    /// The values now, the current activity included. Values of one moment may differ by one batch.
    pub fn snapshot(&self) -> TaskMetricsSnapshot {
        let mut spent = [0, 1, 2].map(|activity: usize| self.spent[activity].load(Ordering::Relaxed));
        let now = self.started.elapsed().as_micros() as u64;
        let current = usize::from(self.activity.load(Ordering::Relaxed));
        spent[current] += now.saturating_sub(self.since.load(Ordering::Relaxed));
        TaskMetricsSnapshot {
            records_in: self.records_in.load(Ordering::Relaxed),
            records_out: self.records_out.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            busy_ms: spent[Activity::Busy as usize] / 1000,
            idle_ms: spent[Activity::Idle as usize] / 1000,
            backpressured_ms: spent[Activity::BackPressured as usize] / 1000,
        }
    }
}

impl Default for TaskMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The tasks of a process as Prometheus sees them, under Flink's names behind our prefix. Tasks that are gone are no
/// longer shown.
#[derive(Clone)]
pub struct TaskMetricsCollector {
    tasks: Arc<Mutex<Vec<Shown>>>,
    descriptions: Arc<Vec<Desc>>,
}

struct Shown {
    labels: [String; 3],
    metrics: Weak<TaskMetrics>,
    /// Where the current second's rates start, and the rates of the last.
    window: (Instant, TaskMetricsSnapshot),
    rates: [f64; 3],
}

const PREFIX: &str = "millrace_taskmanager_job_task_";
const LABELS: [&str; 3] = ["task_name", "subtask_index", "task_attempt_num"];
/// Rates are taken over at least this long, so that several scrapers don't disturb each other.
const RATE_WINDOW: Duration = Duration::from_secs(1);

type Read = fn(&TaskMetricsSnapshot) -> u64;
const COUNTERS: [(&str, &str, Read); 7] = [
    ("numRecordsIn", "Records taken from inputs or read from the source", |m| m.records_in),
    ("numRecordsOut", "Records handed to consumers", |m| m.records_out),
    ("numBytesIn", "Bytes received from other processes", |m| m.bytes_in),
    ("numBytesOut", "Bytes sent to other processes", |m| m.bytes_out),
    ("accumulateBusyTimeMs", "Milliseconds spent on records and snapshots", |m| m.busy_ms),
    ("accumulateIdleTimeMs", "Milliseconds spent waiting for input", |m| m.idle_ms),
    ("accumulateBackPressuredTimeMs", "Milliseconds spent waiting for consumers", |m| m.backpressured_ms),
];
const RATES: [(&str, &str, Read); 3] = [
    ("busyTimeMsPerSecond", "Milliseconds of a second spent on records and snapshots", |m| m.busy_ms),
    ("idleTimeMsPerSecond", "Milliseconds of a second spent waiting for input", |m| m.idle_ms),
    ("backPressuredTimeMsPerSecond", "Milliseconds of a second spent waiting for consumers", |m| m.backpressured_ms),
];

impl TaskMetricsCollector {
    /// Registers the collector of a process's tasks; once for each registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let describe = |(name, help, _): &(&str, &str, Read)| {
            let labels = LABELS.map(String::from).to_vec();
            Desc::new(format!("{PREFIX}{name}"), (*help).to_string(), labels, Default::default())
        };
        let descriptions = COUNTERS.iter().chain(&RATES).map(describe).collect::<prometheus::Result<Vec<_>>>()?;
        let collector = Self { tasks: Arc::default(), descriptions: Arc::new(descriptions) };
        registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// Shows a task until its counters are dropped.
    pub fn show(&self, task_name: &str, subtask: u32, attempt: u32, metrics: &Arc<TaskMetrics>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(Shown {
            labels: [task_name.to_string(), subtask.to_string(), attempt.to_string()],
            metrics: Arc::downgrade(metrics),
            window: (Instant::now(), metrics.snapshot()),
            rates: [0.0; 3],
        });
    }
}

impl Shown {
    fn update_rates(&mut self, now: &TaskMetricsSnapshot) {
        let elapsed = self.window.0.elapsed();
        if elapsed < RATE_WINDOW {
            return;
        }
        let per_second = |read: Read| read(now).saturating_sub(read(&self.window.1)) as f64 / elapsed.as_secs_f64();
        self.rates = RATES.map(|(_, _, read)| per_second(read));
        self.window = (Instant::now(), *now);
    }
}

impl Collector for TaskMetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| task.metrics.strong_count() > 0);
        let read = |task: &mut Shown| {
            let now = task.metrics.upgrade()?.snapshot();
            task.update_rates(&now);
            Some((task.labels.clone(), now, task.rates))
        };
        let values: Vec<_> = tasks.iter_mut().filter_map(read).collect();
        drop(tasks);
        families(&values)
    }
}

type Values = ([String; 3], TaskMetricsSnapshot, [f64; 3]);

fn families(values: &[Values]) -> Vec<MetricFamily> {
    use prometheus::{GaugeVec, IntCounterVec, Opts};
    let opts = |name: &str, help: &str| Opts::new(format!("{PREFIX}{name}"), help);
    let mut families = Vec::new();
    for (name, help, read) in COUNTERS {
        let Ok(vector) = IntCounterVec::new(opts(name, help), &LABELS) else { continue };
        for (labels, now, _) in values {
            vector.with_label_values(labels).inc_by(read(now));
        }
        families.extend(vector.collect());
    }
    for (index, (name, help, _)) in RATES.iter().enumerate() {
        let Ok(vector) = GaugeVec::new(opts(name, help), &LABELS) else { continue };
        for (labels, _, rates) in values {
            vector.with_label_values(labels).set(rates[index]);
        }
        families.extend(vector.collect());
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_shown_until_it_is_gone() {
        let registry = Registry::new();
        let collector = TaskMetricsCollector::register(&registry).unwrap();
        let metrics = Arc::new(TaskMetrics::new());
        collector.show("map -> print", 1, 3, &metrics);
        metrics.add_records_in(7);
        let families = registry.gather();
        let shown = families.iter().find(|f| f.name() == "millrace_taskmanager_job_task_numRecordsIn").unwrap();
        assert_eq!(shown.get_metric()[0].get_counter().value(), 7.0);
        assert_eq!(families.len(), COUNTERS.len() + RATES.len());
        drop(metrics);
        assert!(registry.gather().iter().all(|family| family.get_metric().is_empty()));
    }

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
